"""`blankfill data`: token stores from text, and documents of a store back as text."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from blankfill.api.parameters import PathLike, Paths, as_list, as_path
from blankfill.config.arguments import checks_arguments
from blankfill.config.ranges import Range
from blankfill.errors import DataError
from blankfill.results import short_repr

if TYPE_CHECKING:
    from blankfill.text.records import ReadingReport, Skips

__all__ = [
    "BuildResult",
    "LanguageCounts",
    "ShowResult",
    "ShownDocument",
    "StoreInfo",
    "data_build",
    "data_import",
    "data_info",
    "data_merge",
    "data_show",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageCounts:
    """What a store holds of one language."""

    documents: int
    tokens: int
    characters: int
    bytes: int

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreInfo:
    """What a token store holds."""

    path: str
    """Its folder."""
    documents: int
    """Documents."""
    tokens: int
    """Tokens of all documents."""
    pairs: int
    """Documents that are a text and its answer."""
    shards: int
    """Shards that it is cut into; 0 where its arrays lie in its own folder."""
    dtype: str
    """Width of a token on disk."""
    vocab_size: int
    """Ids of its tokenizer."""
    fingerprint: str
    """What tells its content from any other."""
    tokenizer_fingerprint: str
    """Fingerprint of its tokenizer."""
    languages: dict[str, LanguageCounts]
    """By language."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildResult:
    """A store that was built."""

    store: StoreInfo
    """What it holds."""
    held_out: StoreInfo | None
    """What the held-out store holds; None where nothing was to be held out."""
    num_skipped: int
    """Documents and files that could not be used."""
    skipped: dict[str, int]
    """How many, by reason."""
    first_skipped: list[str]
    """The first cases: file, line, reason."""
    reading: ReadingReport
    """What was read, by the kind of file."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownDocument:
    """One document of a store."""

    index: int
    """Its number."""
    language: str
    """en, zh or other."""
    num_tokens: int
    """Its tokens."""
    text: str
    """Its text, decoded."""
    answer: str | None
    """Of a pair, its answer."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class ShowResult:
    """Documents of a store as text."""

    documents: list[ShownDocument]
    """In order."""

    __repr__ = short_repr


@checks_arguments
def data_build(
    files: Paths,
    /,
    *,
    tokenizer: PathLike,
    out: PathLike,
    text_field: str = "text",
    answer_field: str = "",
    encoding: str = "auto",
    documents: Literal["file", "paragraph", "line"] = "file",
    squeeze_whitespace: bool = False,
    drop_duplicates: bool = False,
    strict: bool = False,
    overwrite: bool = False,
    hold_out: Annotated[float, Range(1e-6, 0.9, or_zero=True)] = 0.0,
    shard_tokens: Annotated[int, Range(1, 10**12, or_zero=True)] = 0,
    num_workers: Annotated[int, Range(0, 1024)] = 0,
) -> BuildResult:
    """Turn text into a token store.

    Files may be text, JSON or tables (.txt .md .jsonl .json .csv .tsv .parquet .arrow), each also
    .gz, .bz2, .xz or .zst; folders of them; or - for stdin.

    Example:
        blankfill data build corpus/ --tokenizer tok --out store

    Args:
        files: one file or folder, or several; - for stdin.
        tokenizer: folder of the tokenizer.
        out: folder of the store; it appears when it is complete.
        text_field: the JSON field or column that holds the text; dots lead into nested ones.
        answer_field: a JSON field or column that holds an answer to the text: such a pair
            is one example, its answer in place of [MASK] (GLM-130B's instruction rows). Without it
            everything is plain text.
        encoding: of text, JSON, CSV and TSV files: auto, which is sure or skips a file, or a name,
            such as gb18030, big5, utf-16-le.
        documents: what of a plain text is one document: the file, each paragraph (up to an empty
            line), or each line.
        squeeze_whitespace: shorten runs of white space: blanks to one, empty lines to one.
        drop_duplicates: leave out documents that were there before, word for word; without it they
            are only counted. Takes 16 bytes of memory a document.
        strict: make anything that cannot be used an error, instead of skipping and counting it.
        overwrite: replace a store at --out.
        hold_out: share of the documents, such as 1%, that goes into a second store, whose name is
            that of --out and -held-out. The hash of its text decides for each document, so
            the same text is always on the same side.
        shard_tokens: most tokens of a shard, such as 100000000; 0 makes a store without shards. For
            text that is too large for one file, or is to be read from elsewhere.
        num_workers: processes that encode; 0 takes one per core.

    Raises:
        DataError: nothing can be read, or nothing is left.
        OutputError: the folder at --out is taken or cannot be written.
    """
    from blankfill.data.ingest import build_store
    from blankfill.runtime import at_most_cores
    from blankfill.text.options import TextOptions

    out = as_path(out)
    options = TextOptions(
        text_field=text_field, answer_field=answer_field, encoding=encoding, documents=documents,
        squeeze_whitespace=squeeze_whitespace,
    )  # fmt: skip
    built = build_store(
        as_list(files), as_path(tokenizer), out,
        options=options, strict=strict, overwrite=overwrite, hold_out=hold_out,
        num_workers=at_most_cores(num_workers, "num_workers"), drop_duplicates=drop_duplicates,
        shard_tokens=shard_tokens,
    )  # fmt: skip
    return _result(out, built.held_out is not None, built.skips, built.num_duplicates)


def _result(out: Path, is_split: bool, skips: Skips, duplicates: int | None) -> BuildResult:
    from blankfill.data.hold_out import held_out_path
    from blankfill.data.manifest import MANIFEST

    second = held_out_path(out)
    if not is_split and (second / MANIFEST).is_file():
        log.warning("%s stands from an earlier build, and its documents may be in %s as well: do "
                    "not evaluate on it, or build both with --hold-out", second, out)  # fmt: skip
    return BuildResult(
        store=data_info(out),
        held_out=data_info(second) if is_split else None,
        num_skipped=skips.total,
        skipped=dict(skips.counts),
        first_skipped=[str(case) for case in skips.first],
        reading=skips.report(duplicates),
    )


@checks_arguments
def data_import(
    pair: PathLike,
    /,
    *,
    tokenizer: PathLike,
    out: PathLike,
    end_token: Annotated[int, Range(0, 2**31 - 1)] | None = None,
    hold_out: Annotated[float, Range(1e-6, 0.9, or_zero=True)] = 0.0,
    shard_tokens: Annotated[int, Range(1, 10**12, or_zero=True)] = 0,
    strict: bool = False,
    overwrite: bool = False,
) -> BuildResult:
    """Turn an indexed dataset of Megatron (.bin and .idx) into a token store.

    Example:
        blankfill data import corpus_text_document --tokenizer tok --out store

    Args:
        pair: path of the .bin or the .idx, or of both without a suffix.
        tokenizer: folder of the tokenizer that made the ids.
        out: folder of the store; it appears when it is complete.
        end_token: id that closes each document there, and is taken off; the tokenizer's own end
            of a document where not given.
        hold_out: share of the documents, such as 1%, that goes into a second store, as in
            data build.
        shard_tokens: most tokens of a shard, as in data build.
        strict: make a document that cannot be used an error, instead of skipping and counting it.
        overwrite: replace a store at --out.

    Raises:
        DataError: the files cannot be used, or hold ids that the tokenizer has not.
        OutputError: the folder at --out is taken or cannot be written.
    """
    from blankfill.data.from_megatron import import_pair

    out = as_path(out)
    done = import_pair(
        as_path(pair), as_path(tokenizer), out, end_token=end_token, strict=strict,
        overwrite=overwrite, hold_out=hold_out, shard_tokens=shard_tokens,
    )  # fmt: skip
    return _result(out, done.held_out is not None, done.skips, None)


@checks_arguments
def data_merge(stores: Paths, /, *, out: PathLike, overwrite: bool = False) -> StoreInfo:
    """Join token stores of one tokenizer as the shards of one store.

    Files are linked where the disk can, and copied elsewhere; no token is read. So a text of any
    size is built in parts, side by side, and joined.

    Example:
        blankfill data merge part-0 part-1 part-2 --out store

    Args:
        stores: folders of stores, with shards or without, in the order that they are to have.
        out: folder of the new store; it appears when it is complete.
        overwrite: replace a store at --out.

    Raises:
        DataError: a folder is no store, or does not go with the others.
        OutputError: the folder at --out is taken or cannot be written.
    """
    from blankfill.data.merge import merge_stores

    out = as_path(out)
    merge_stores([as_path(store) for store in as_list(stores)], out, overwrite=overwrite)
    return data_info(out)


@checks_arguments
def data_info(store: PathLike, /, *, verify: bool = False) -> StoreInfo:
    """Tell what a token store holds.

    Example:
        blankfill data info store

    Args:
        store: folder of the store, or the address of one that lies elsewhere.
        verify: also read every file and compare its checksum; without it, sizes are compared.

    Raises:
        DataError: the folder is not a store or is damaged.
    """
    from blankfill.data.store import TokenStore

    opened = TokenStore.open(as_path(store), verify=verify)
    return StoreInfo(
        path=str(store), documents=len(opened), tokens=opened.num_tokens,
        pairs=opened.num_pairs, shards=len(opened.entries) if opened.is_sharded else 0,
        dtype=opened.dtype, vocab_size=opened.vocab_size,
        fingerprint=opened.fingerprint, tokenizer_fingerprint=opened.tokenizer_fingerprint,
        languages={
            name: LanguageCounts(**counts) for name, counts in opened.by_language.items()
        },
    )  # fmt: skip


@checks_arguments
def data_show(
    store: PathLike,
    /,
    *,
    index: Annotated[int, Range(0, 10**12)] = 0,
    count: Annotated[int, Range(1, 10**12)] = 1,
    tokenizer: PathLike | None = None,
) -> ShowResult:
    """Show documents of a token store as text.

    Example:
        blankfill data show store --index 17

    Args:
        store: folder of the store.
        index: number of the first document to show.
        count: documents to show.
        tokenizer: folder of the tokenizer; the store's own copy where not given.

    Raises:
        DataError: the folder is not a store, or has no such document.
    """
    import numpy as np

    from blankfill.data.store import TokenStore
    from blankfill.text.language import LANGUAGES
    from blankfill.text.vocabularies import load_tokenizer

    opened = TokenStore.open(as_path(store))
    if not 0 <= index < len(opened):
        raise DataError(f"{store} has documents 0 to {len(opened) - 1}, not {index}")
    loaded = load_tokenizer(Path(tokenizer) if tokenizer else opened.path / "tokenizer")
    if loaded.fingerprint != opened.tokenizer_fingerprint:
        raise DataError(f"{store} was built with another tokenizer than {tokenizer}; leave out "
                        "--tokenizer to use the store's own copy")  # fmt: skip
    documents: list[ShownDocument] = []
    for i in range(index, min(index + count, len(opened))):
        tokens, alone = opened.document(i), np.array([i])
        prompt = int(opened.prompts_of(alone)[0])
        documents.append(
            ShownDocument(
                index=i, language=LANGUAGES[int(opened.languages_of(alone)[0])],
                num_tokens=len(tokens),
                text=loaded.decode(tokens if prompt < 0 else tokens[:prompt]),
                answer=None if prompt < 0 else loaded.decode(tokens[prompt:]),
            )
        )  # fmt: skip
    return ShowResult(documents=documents)
