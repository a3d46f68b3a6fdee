"""Prompts of the published models: special tokens around a text and in place of its blanks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypedDict, TypeGuard, Unpack

import numpy as np
import numpy.typing as npt

from blankfill.errors import DataError
from blankfill.objective.special import DISPLAY, SpecialIds

__all__ = [
    "Frame",
    "PieceSettings",
    "Portable",
    "PortableSettings",
    "Vocabulary",
    "checked",
    "decode_between",
    "encode_prompt",
    "is_published",
    "portable",
]

Int32 = npt.NDArray[np.int32]
_BLANKS = re.compile(r"\[([sg]?)MASK\]")


class PieceSettings(TypedDict, total=False):
    """How the pieces of a SentencePiece model are used; absent in the English vocabularies."""

    offset: int
    """Ids before the first piece."""
    spelled: list[tuple[str, str]]
    """Pairs: what stands in a text, and its piece."""
    longest_blank: int
    """Runs of up to so many spaces have pieces; 0: none has."""


class PortableSettings(PieceSettings):
    """How a published vocabulary encodes a text."""

    size: int
    """Number of ids."""
    special_ids: dict[str, int]
    """By role."""
    opening: int | None
    """Id of `[CLS]`, which opens a text; None where nothing does."""
    open_ended: Literal["gmask", "any"]
    """A text that ends in such a blank is not closed."""
    untrained: list[str]
    """Blanks that the models never saw in training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Portable:
    """A vocabulary for software that has no blankfill."""

    name: str
    """Name of its file: tokenizer.model of SentencePiece, or vocabulary.json of tokenizers."""
    data: bytes
    """What the file holds."""
    settings: PortableSettings
    """What else it takes, as `interop/hf_files/vocabulary_blankfill.py` reads it."""


class Vocabulary(Protocol):
    """A published vocabulary: a `TextTokenizer` that says what it is and where it came from."""

    kind: str
    """Its name in a manifest: icetk, cog-pretrain, wordpiece, gpt2 or roberta."""
    vocab_size: int
    """Number of ids, special tokens included."""
    ids: SpecialIds
    """Ids of the special tokens."""
    fingerprint: str
    """Differs for every vocabulary of other content."""
    files: dict[str, bytes]
    """The files that it was made of, by name."""
    settings: Mapping[str, int]
    """What else it takes to make it again."""

    def encode(self, text: str) -> Int32:
        """Turn text into ids; never a special one."""
        ...

    def encode_with_blanks(self, text: str) -> Int32:
        """Turn text into the prompt that the models know, blanks and framing tokens included."""
        ...

    def decode(self, ids: Iterable[int] | npt.NDArray[Any]) -> str:
        """Turn ids into text; blanks are shown as `[MASK]` and so on, framing tokens not at all."""
        ...

    def token(self, token_id: int) -> str:
        """Show one token in a table."""
        ...

    def portable(self) -> Portable:
        """Give what software without blankfill needs to do the same."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """Which prompts end in `eos`, and which blanks may stand in them. The opening `[CLS]`, where
    there is one, and `eos` are special ids."""

    open_ended: Literal["gmask", "any"]
    """A text that ends in this blank is not closed: `[gMASK]` (GLM, `generate_samples.py`), any
    blank (GLM-130B, `generate.py`)."""
    untrained: tuple[str, ...] = ()
    """Blanks that the models of this vocabulary never saw in training."""


def is_published(tokenizer: object) -> TypeGuard[Vocabulary]:
    """Whether a tokenizer is the vocabulary of a published model."""
    return hasattr(tokenizer, "portable")


def encode_prompt(
    text: str, encode: Callable[[str], Int32], ids: SpecialIds, frame: Frame
) -> Int32:
    """Encode a text with blanks in the form that its models were prompted with.

    Raises:
        DataError: the text holds a blank that the models never saw.
    """
    opening = [] if ids.opening is None else [ids.opening]
    parts: list[Int32] = [np.array(opening, np.int32)]
    end, last = 0, ""
    for blank in _BLANKS.finditer(text):
        role = blank.group(1) + "mask"
        if role in frame.untrained:
            raise DataError(
                f"the models of this vocabulary never saw {blank.group()} in training; "
                "write [MASK] instead"
            )
        parts += [encode(text[end : blank.start()]), np.array([getattr(ids, role)], np.int32)]
        end, last = blank.end(), role
    parts.append(encode(text[end:]))
    is_open = end == len(text) and bool(last) and frame.open_ended in ("any", last)
    parts.append(np.array([] if is_open else [ids.eos], np.int32))
    return np.concatenate(parts)


def portable(
    name: str,
    data: bytes,
    ids: SpecialIds,
    frame: Frame,
    *,
    size: int,
    **pieces: Unpack[PieceSettings],
) -> Portable:
    """Describe a vocabulary for software that has no blankfill.

    Args:
        name: name of its file.
        data: what the file holds.
        ids: its special tokens.
        frame: how its prompts are closed.
        size: number of ids.
        pieces: how the pieces of a SentencePiece model are used.
    """
    return Portable(
        name=name, data=data,
        settings={
            "size": size, "special_ids": {role: getattr(ids, role) for role in DISPLAY},
            "opening": ids.opening, "open_ended": frame.open_ended,
            "untrained": list(frame.untrained), **pieces,
        },
    )  # fmt: skip


def decode_between(
    ids: Iterable[int] | npt.NDArray[Any],
    decode: Callable[[list[int]], str],
    special: SpecialIds,
    size: int,
) -> str:
    """Decode the stretches between special tokens, which are shown or, around a text, left out."""
    shown = {getattr(special, role): DISPLAY[role] for role in reversed(DISPLAY)}
    shown |= dict.fromkeys((special.eos, special.pad), "")
    if special.opening is not None:
        shown[special.opening] = ""
    text: list[str] = []
    stretch: list[int] = []
    for token in checked(ids, size):
        if token not in shown:
            stretch.append(token)
        elif shown[token]:
            text += [decode(stretch) if stretch else "", shown[token]]
            stretch = []
    return "".join([*text, decode(stretch) if stretch else ""])


def checked(ids: Iterable[int] | npt.NDArray[Any], size: int) -> list[int]:
    """Turn ids into Python integers and check their range.

    Raises:
        DataError: an id is outside the vocabulary.
    """
    numbers = [int(i) for i in ids]
    for number in numbers:
        if not 0 <= number < size:
            raise DataError(f"token id {number} is outside the vocabulary of {size} ids")
    return numbers
