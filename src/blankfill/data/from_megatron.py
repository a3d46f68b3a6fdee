"""A token store from an indexed dataset of Megatron, whose ids are those of a tokenizer we have.

The ids are taken as they are; their text is decoded for what a store says besides: language,
characters, bytes, where sentences end, and which side a document is held out to.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from blankfill import progress
from blankfill.data.hold_out import SplitWriter, fraction_of
from blankfill.data.manifest import StoreManifest
from blankfill.data.megatron import MegatronPair, open_pair
from blankfill.errors import DataError
from blankfill.objective.special import SpecialIds
from blankfill.text.language import language_code
from blankfill.text.records import Skipped, Skips, shown
from blankfill.text.sentences import sentence_tokens
from blankfill.text.tokenizer import TextTokenizer, Tokenizer
from blankfill.text.vocabularies import load_tokenizer

__all__ = ["Imported", "import_pair"]


class Imported(NamedTuple):
    """What came of an indexed dataset."""

    training: StoreManifest
    """The manifest of the store."""
    held_out: StoreManifest | None
    """The manifest of the held-out store; None where nothing was to be held out."""
    skips: Skips
    """What was left out."""


def import_pair(
    path: Path,
    tokenizer: Path,
    out: Path,
    *,
    end_token: int | None = None,
    strict: bool = False,
    overwrite: bool = False,
    hold_out: float = 0.0,
    shard_tokens: int = 0,
) -> Imported:
    """Build a token store from an indexed dataset.

    Args:
        path: of either file, or of both without a suffix.
        tokenizer: folder of the tokenizer that made the ids.
        out: folder of the store.
        end_token: id that closes each document there, and is taken off; the tokenizer's own end of
            a document where not given.
        strict: raise an error where a document cannot be used, instead of skipping it.
        overwrite: replace a store at `out`.
        hold_out: share of the documents that goes into a second store.
        shard_tokens: most tokens of a shard; 0 makes stores without shards.

    Raises:
        DataError: the files cannot be used, hold ids that the tokenizer has not, or are empty.
        OutputError: `out` is taken or cannot be written.
    """
    pair = open_pair(path)
    loaded = load_tokenizer(tokenizer)
    skips = Skips(strict=strict)
    end = loaded.ids.eos if end_token is None else end_token
    if not 0 <= end < loaded.vocab_size:
        raise DataError(
            f"end_token={end} is outside the vocabulary of {loaded.vocab_size:,} ids in {tokenizer}"
        )
    with (
        SplitWriter(
            out, hold_out, vocab_size=loaded.vocab_size, tokenizer_fingerprint=loaded.fingerprint,
            tokenizer=tokenizer, overwrite=overwrite, shard_tokens=shard_tokens,
        ) as writer,
        progress.bar("reading ids", total=pair.num_documents, unit="documents") as meter,
    ):  # fmt: skip
        _copy(pair, loaded, end, writer, skips, meter)
        if not writer.num_documents:
            why = f" ({skips.total} left out, the first is {skips.first[0]})" if skips.first else ""
            raise DataError(f"there is no document in {shown(path)}{why}")
        manifests = writer.finish({"sources": [shown(path)], "skipped": dict(skips.counts)})
    return Imported(*manifests, skips)


def _copy(
    pair: MegatronPair, tokenizer: TextTokenizer, end: int, writer: SplitWriter, skips: Skips,
    meter: progress.Meter,
) -> None:  # fmt: skip
    special = _special(tokenizer.ids)
    skips.open("Megatron")
    for number, ids in enumerate(pair.read(), 1):
        meter.advance()
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < tokenizer.vocab_size:
            wrong = int(ids.min()) if ids.min() < 0 else int(ids.max())
            raise DataError(
                f"document {number} of {shown(pair.path)} holds the id {wrong:,}, and the "
                f"tokenizer has {tokenizer.vocab_size:,}: name the one that made the ids"
            )
        tokens = (ids[:-1] if len(ids) and ids[-1] == end else ids).astype(np.int32)
        reason = "empty"
        if np.isin(tokens, special).any():
            reason = "special tokens in a document (--end-token names what closes each)"
        elif len(tokens):
            text = tokenizer.decode(tokens)
            if not text or text.isspace():
                pass
            elif not _spells(text, tokens, tokenizer):
                reason = "no text (its tokens spell bytes that are not UTF-8)"
            else:
                skips.keep("Megatron")
                writer.side(fraction_of(text)).add(
                    tokens, language_code(text), characters=len(text),
                    num_bytes=len(text.encode()),
                    sentence_ends=sentence_tokens(text, tokens, tokenizer),
                )  # fmt: skip
                continue
        skips.add(Skipped(str(pair.path), number, reason))


def _spells(text: str, tokens: npt.NDArray[np.int32], tokenizer: TextTokenizer) -> bool:
    """Whether the tokens are the text's bytes, none of them replaced."""
    if not isinstance(tokenizer, Tokenizer):
        return True
    return int(tokenizer.byte_lengths[tokens].sum()) == len(text.encode())


def _special(ids: SpecialIds) -> list[int]:
    found: set[int] = {*ids.mask_sentinels, *ids.sop_sentinels}
    for field in fields(ids):
        value = getattr(ids, field.name)
        if isinstance(value, int):
            found.add(value)
    return sorted(found)
