"""What the tokens of a vocabulary spell, for bounds that are about characters.

Only the vocabularies that blankfill trains spell a text exactly as it stands; those of published
models normalise it.

Shapes: V ids, L characters of the longest piece.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blankfill.errors import RequestError
from blankfill.objective.batch import Int32
from blankfill.text.tokenizer import TextTokenizer, Tokenizer

__all__ = ["Spelling", "spelling_of"]

_SPECIAL = ("mask", "smask", "gmask", "sop", "eop", "eos", "pad", "dblock")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Spelling:
    """The pieces of one vocabulary as text."""

    tokenizer: Tokenizer
    """Whose pieces they are."""
    texts: tuple[str, ...]
    """`[V]` what each id spells; nothing of special ones and of single bytes."""
    codes: Int32
    """`[V, L]` their characters, -1 behind the last."""
    bytes_of: dict[int, int]
    """The ids that stand for one byte of a character without a piece."""

    def is_whole(self, character: str) -> bool:
        """Tell whether a character has a piece, alone or in front of what is behind it."""
        return not any(
            token in self.bytes_of for token in self.tokenizer.encode(character).tolist()
        )


def spelling_of(tokenizer: TextTokenizer) -> Spelling:
    """Give what the tokens of a vocabulary spell.

    Raises:
        RequestError: its pieces are not the text as it stands.
    """
    if not isinstance(tokenizer, Tokenizer):
        raise RequestError(
            "this model's vocabulary changes the text that it encodes, so characters, words and "
            "expressions cannot bound its fills; bound them by min_tokens, max_tokens or allowed"
        )
    return _spelling(tokenizer)


@functools.lru_cache(maxsize=4)
def _spelling(tokenizer: Tokenizer) -> Spelling:
    never = {getattr(tokenizer.ids, role) for role in _SPECIAL}
    never |= {*tokenizer.ids.mask_sentinels, *tokenizer.ids.sop_sentinels, tokenizer.unknown_id}
    single = np.flatnonzero(tokenizer.byte_mask).tolist()
    texts = tuple(
        "" if i in never or tokenizer.byte_mask[i] else piece.replace("\u2581", " ")
        for i, piece in enumerate(tokenizer.pieces)
    )
    longest = max(map(len, texts))
    codes: npt.NDArray[np.int32] = np.full((len(texts), max(longest, 1)), -1, np.int32)
    for i, text in enumerate(texts):
        codes[i, : len(text)] = [ord(character) for character in text]
    return Spelling(
        tokenizer=tokenizer, texts=texts, codes=codes,
        bytes_of={i: int(tokenizer.pieces[i][1:-1], 16) for i in single},
    )  # fmt: skip
