"""`blankfill tokenizer`: train one, use it, and see what it does to each language."""

from __future__ import annotations

import operator
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, SupportsIndex

from blankfill.api.parameters import PathLike, Paths, as_list, as_path
from blankfill.config.arguments import checks_arguments
from blankfill.config.objective import MAX_SPAN
from blankfill.config.ranges import Range
from blankfill.errors import DataError
from blankfill.results import short_repr
from blankfill.text.user_text import read_stdin

if TYPE_CHECKING:
    from blankfill.text.options import TextOptions
    from blankfill.text.records import ReadingReport, Skips
    from blankfill.text.tokenizer import Tokenizer
    from blankfill.text.train_tokenizer import TokenizerReport

__all__ = [
    "DecodeResult",
    "EncodeResult",
    "LanguageRate",
    "TokenizerInfo",
    "tokenizer_decode",
    "tokenizer_encode",
    "tokenizer_info",
    "tokenizer_train",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeResult:
    """A text as tokens."""

    ids: list[int]
    """Token ids."""
    tokens: list[str]
    """The pieces, blanks shown as U+2581."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeResult:
    """Tokens as text."""

    text: str
    """The text."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageRate:
    """What a tokenizer does to the text of one language."""

    documents: int
    characters: int
    bytes: int
    tokens: int
    byte_tokens: int
    """Tokens that spell a single byte of a character without a piece."""
    exact: int
    """Documents that came back exactly."""
    characters_per_token: float
    bytes_per_token: float

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerInfo:
    """What a tokenizer is."""

    path: str
    """Its folder."""
    vocab_size: int
    """Ids, special tokens included."""
    fingerprint: str
    """SHA-256 of tokenizer.model."""
    special: dict[str, int]
    """Ids of the special tokens."""
    pieces: dict[str, int]
    """Pieces by script."""
    languages: dict[str, LanguageRate]
    """Rates by language, on the files that were named."""
    reading: ReadingReport | None
    """What was read of these files, by their kind; None where none was named."""

    __repr__ = short_repr


@checks_arguments
def tokenizer_train(
    files: Paths,
    /,
    *,
    out: PathLike,
    vocab_size: Annotated[int, Range(1, 2**24)] = 16384,
    balance: bool = True,
    model_type: Literal["unigram", "bpe"] = "unigram",
    max_han_piece: Annotated[int, Range(0, 10**6)] = 0,
    num_sentinels: Annotated[int, Range(0, MAX_SPAN)] = 0,
    character_coverage: Annotated[float, Range(0.9, 1)] | None = None,
    sample_bytes: Annotated[int, Range(1, 10**15)] = 100_000_000,
    text_field: str = "text",
    encoding: str = "auto",
    documents: Literal["file", "paragraph", "line"] = "file",
    squeeze_whitespace: bool = False,
    strict: bool = False,
    overwrite: bool = False,
) -> TokenizerReport:
    """Train a SentencePiece tokenizer with byte fallback on your text.

    Text comes back exactly from its tokens: line breaks, tabs, runs of blanks and full-width
    punctuation included.

    Example:
        blankfill tokenizer train corpus/ --vocab-size 16384 --out tok

    Args:
        files: text, JSON or tables (.txt .md .jsonl .json .csv .tsv .parquet .arrow), each also
            .gz, .bz2, .xz or .zst; folders; or - for stdin.
        out: folder of the tokenizer; it appears when it is complete.
        vocab_size: number of ids, special tokens and bytes included.
        balance: cut the larger of English and Chinese to the bytes of the smaller, but not below
            100 bytes for each id, and not where the smaller is less than 1 % of it.
        model_type: unigram, or bpe for small and repetitive text.
        max_han_piece: longest piece of Han characters, for small and repetitive text; 0 is off.
        num_sentinels: masks of their own for the second and later spans of an example, for runs
            with --objective.sentinels; few need them.
        character_coverage: share of all characters that get a piece, the rest being spelled in
            bytes; 0.9995 where not given, 0.9999 from 50,000 ids.
        sample_bytes: how much text the trainer sees at most, in UTF-8; bounds its memory.
        text_field: the JSON field or column that holds the text; dots lead into nested ones.
        encoding: of text, JSON, CSV and TSV files: auto, which is sure or skips a file, or a name,
            such as gb18030, big5, utf-16-le.
        documents: what of a plain text is one document: the file, each paragraph (up to an empty
            line), or each line.
        squeeze_whitespace: shorten runs of white space: blanks to one, empty lines to one.
        strict: make anything that cannot be used an error, instead of skipping and counting it.
        overwrite: replace a tokenizer at --out.

    Raises:
        ConfigError: a size cannot be used, or there is too little text for it.
        DataError: there is no text.
    """
    from blankfill.text.options import TextOptions
    from blankfill.text.train_tokenizer import train_tokenizer

    options = TextOptions(
        text_field=text_field, encoding=encoding, documents=documents,
        squeeze_whitespace=squeeze_whitespace,
    )  # fmt: skip
    return train_tokenizer(
        as_list(files), as_path(out), vocab_size=vocab_size, balance=balance,
        model_type=model_type, max_han_piece=max_han_piece,
        num_sentinels=num_sentinels, character_coverage=character_coverage,
        sample_bytes=sample_bytes, options=options, strict=strict, overwrite=overwrite,
    )  # fmt: skip


@checks_arguments
def tokenizer_encode(tokenizer: PathLike, text: str, /, *, blanks: bool = False) -> EncodeResult:
    """Turn text into tokens.

    Example:
        blankfill tokenizer encode tok "A quick brown fox."

    Args:
        tokenizer: folder of the tokenizer.
        text: the text; - reads stdin.
        blanks: read [MASK], [sMASK] and [gMASK] as special tokens instead of plain text.

    Raises:
        DataError: the folder is not a tokenizer.
        RequestError: stdin is not UTF-8.
    """
    from blankfill.text.vocabularies import load_tokenizer

    loaded = load_tokenizer(as_path(tokenizer))
    text = read_stdin(keep_mark=True) if text == "-" else text
    ids = (loaded.encode_with_blanks(text) if blanks else loaded.encode(text)).tolist()
    return EncodeResult(ids=ids, tokens=[loaded.token(i) for i in ids])


@checks_arguments
def tokenizer_decode(
    tokenizer: PathLike, ids: SupportsIndex | str | Sequence[str] | Sequence[int], /
) -> DecodeResult:
    """Turn token ids into text.

    Example:
        blankfill tokenizer decode tok 300 301 302

    Args:
        tokenizer: folder of the tokenizer.
        ids: token ids; a single - reads them from stdin, separated by blanks or commas.

    Raises:
        DataError: an id is not a number or outside the vocabulary.
    """
    from blankfill.text.vocabularies import load_tokenizer

    loaded = load_tokenizer(as_path(tokenizer))
    words: list[SupportsIndex | str] = [ids] if isinstance(ids, str | SupportsIndex) else [*ids]
    if words == ["-"]:
        words = [read_stdin(keep_mark=True)]
    return DecodeResult(text=loaded.decode(_numbers(words)))


def _numbers(values: Sequence[SupportsIndex | str]) -> list[int]:
    """Read token ids, which a string may hold several of."""
    try:
        return [
            number
            for each in values
            for number in (
                map(int, each.replace(",", " ").split())
                if isinstance(each, str)
                else [operator.index(each)]
            )
        ]
    except ValueError as error:
        raise DataError(f"token ids must be whole numbers ({error})") from error


@checks_arguments
def tokenizer_info(
    tokenizer: PathLike,
    files: Paths = (),
    /,
    *,
    text_field: str = "text",
    encoding: str = "auto",
    documents: Literal["file", "paragraph", "line"] = "file",
    squeeze_whitespace: bool = False,
) -> TokenizerInfo:
    """Tell what a tokenizer is, and what it does to the text of files.

    Example:
        blankfill tokenizer info tok corpus/

    Args:
        tokenizer: folder of the tokenizer.
        files: text to measure characters and bytes per token on, by language.
        text_field: the JSON field or column that holds the text; dots lead into nested ones.
        encoding: of text, JSON, CSV and TSV files: auto, which is sure or skips a file, or a name,
            such as gb18030, big5, utf-16-le.
        documents: what of a plain text is one document: the file, each paragraph (up to an empty
            line), or each line.
        squeeze_whitespace: shorten runs of white space: blanks to one, empty lines to one.

    Raises:
        DataError: the folder is not a tokenizer, or a file cannot be read.
    """
    from blankfill.text.options import TextOptions
    from blankfill.text.records import Skips
    from blankfill.text.tokenizer import Tokenizer

    options = TextOptions(
        text_field=text_field, encoding=encoding, documents=documents,
        squeeze_whitespace=squeeze_whitespace,
    )  # fmt: skip
    loaded = Tokenizer.load(as_path(tokenizer))
    specials = {
        role: int(getattr(loaded.ids, role))
        for role in ("mask", "smask", "gmask", "sop", "eop", "eos", "pad", "dblock")
    }
    kinds = Counter(
        "byte" if loaded.byte_mask[i] else
        "special" if i in specials.values() or i == loaded.unknown_id else
        _script(loaded.decode([i]))
        for i in range(loaded.vocab_size)
    )  # fmt: skip
    files = as_list(files)
    skips = Skips()
    return TokenizerInfo(
        path=str(tokenizer),
        vocab_size=loaded.vocab_size,
        fingerprint=loaded.fingerprint,
        special=specials,
        pieces=dict(kinds.most_common()),
        languages=_measure(loaded, files, options, skips) if files else {},
        reading=skips.report() if files else None,
    )


def _measure(
    tokenizer: Tokenizer, files: list[str | Path], options: TextOptions, skips: Skips
) -> dict[str, LanguageRate]:
    from blankfill import progress
    from blankfill.text.corpus import no_documents, read_documents
    from blankfill.text.language import LANGUAGES

    sums: dict[str, Counter[str]] = {}
    documents = read_documents(files, options, report=skips)
    for document in progress.track(documents, "encode", unit="documents"):
        ids = tokenizer.encode(document.text)
        counts = sums.setdefault(LANGUAGES[document.language], Counter())
        counts["documents"] += 1
        counts["characters"] += len(document.text)
        counts["bytes"] += document.num_bytes
        counts["tokens"] += len(ids)
        counts["byte_tokens"] += int(tokenizer.byte_mask[ids].sum())
        counts["exact"] += tokenizer.decode(ids) == document.text
    if not sums:
        raise no_documents(files, skips)
    return {
        language: LanguageRate(
            documents=counts["documents"], characters=counts["characters"],
            bytes=counts["bytes"], tokens=counts["tokens"], byte_tokens=counts["byte_tokens"],
            exact=counts["exact"],
            characters_per_token=counts["characters"] / max(1, counts["tokens"]),
            bytes_per_token=counts["bytes"] / max(1, counts["tokens"]),
        )
        for language, counts in sorted(sums.items())
    }  # fmt: skip


def _script(piece: str) -> str:
    """Name the script that most of a piece is written in."""
    letters = piece.strip()
    if not letters:
        return "blank"
    first = max(Counter(_class(character) for character in letters).items(), key=lambda c: c[1])
    return first[0]


def _class(character: str) -> str:
    name = unicodedata.name(character, "")
    if name.startswith("CJK"):
        return "Han"
    if name.startswith("LATIN"):
        return "Latin"
    if character.isdigit():
        return "digit"
    return "other script" if character.isalpha() else "punctuation"
