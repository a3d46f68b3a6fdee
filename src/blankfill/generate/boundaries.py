"""The edges of blanks: what stands before them, and blanks that begin or end inside a token.

Text that is cut inside of a word is encoded into other pieces than the whole word, which the model
has never seen before a blank. So up to some pieces on either side of a blank can be taken into it;
the fill is then held to begin and end with their characters ("token healing"; Guo et al. 2024,
"FIM-SE", does so in training). Pieces are taken only where the blank touches a letter, a digit or
a character of Chinese or Japanese: elsewhere a token ends anyway.

Shapes: n tokens, S blanks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from blankfill.errors import RequestError
from blankfill.objective.batch import Int32
from blankfill.text.tokenizer import TextTokenizer, Tokenizer
from blankfill.text.user_text import blanks_after_space

__all__ = ["Edges", "encode_edges"]

_SPACE_BEFORE_MASK = re.compile(r" (?=\[[sg]?MASK\])")


@dataclass(frozen=True, kw_only=True, slots=True)
class Edges:
    """What of the text around a blank belongs to its fill."""

    after_space: bool = False
    """Whether a space stood before the blank, which the fill brings."""
    before: str = ""
    """Characters that the fill begins with."""
    behind: str = ""
    """Characters that it ends with."""
    num_held: int = 0
    """Tokens that these were."""

    def inside(self, fill: str) -> str:
        """Give what of a fill stands in the blank."""
        return fill[len(self.before) : len(fill) - len(self.behind)]


def encode_edges(
    text: str, tokenizer: TextTokenizer, back_off: int = 0
) -> tuple[Int32, list[Edges]]:
    """Encode a text with blanks; take up to `back_off` pieces on either side of each into it.

    One space before a blank is taken away: pieces begin with the space before their word, so the
    fill brings its own.

    Returns:
        `[n]` tokens with masks; `[S]` the edges of the blanks.

    Raises:
        RequestError: pieces are to be taken, and the vocabulary changes the text it encodes.
    """
    tokens = tokenizer.encode_with_blanks(_SPACE_BEFORE_MASK.sub("", text))
    spaces = blanks_after_space(text)
    if not back_off:
        return tokens, [Edges(after_space=space) for space in spaces]
    if not isinstance(tokenizer, Tokenizer):
        raise RequestError(
            "back_off takes pieces into a blank, and this model's vocabulary changes the text that "
            "it encodes; leave it out"
        )
    ids = tokenizer.ids
    masks = np.flatnonzero(np.isin(tokens, [ids.mask, ids.smask, ids.gmask]))
    between = [part.tolist() for part in np.split(tokens, masks)]
    parts = [between[0], *(part[1:] for part in between[1:])]  # the masks are known
    edges: list[Edges] = []
    for b, space in enumerate(spaces):
        left, right = parts[b], parts[b + 1]
        taken = 0 if space else _pieces_before(tokenizer, left, back_off)
        before, parts[b] = left[len(left) - taken :], left[: len(left) - taken]
        taken = _pieces_behind(tokenizer, right, back_off)
        behind, parts[b + 1] = right[:taken], right[taken:]
        edges.append(
            Edges(
                after_space=space, before=tokenizer.decode(before), num_held=len(before + behind),
                behind=tokenizer.decode(behind),
            )
        )  # fmt: skip
    whole = list(parts[0])
    for mask, part in zip(masks, parts[1:], strict=True):
        whole += [int(tokens[mask]), *part]
    return np.array(whole, np.int32), edges


def _pieces_before(tokenizer: Tokenizer, tokens: list[int], most: int) -> int:
    """Count the pieces that are taken from before a blank: back to where a word begins, whole
    characters."""
    taken = 0
    while taken < len(tokens) and _touches(tokenizer.decode(tokens[: len(tokens) - taken])[-1:]):
        if taken >= most and _is_whole(tokenizer, tokens[len(tokens) - taken :]):
            break
        taken += 1
    # The space before a word belongs to it, where it is a piece of its own.
    rest = tokens[: len(tokens) - taken]
    return taken + bool(taken and rest and tokenizer.decode(rest[-1:]) == " ")


def _pieces_behind(tokenizer: Tokenizer, tokens: list[int], most: int) -> int:
    """Count the pieces that are taken from behind a blank: on to where a word ends."""
    taken = 0
    while taken < len(tokens) and _touches(tokenizer.decode(tokens[taken:])[:1]):
        if taken >= most and _is_whole(tokenizer, tokens[:taken]):
            break
        taken += 1
    return taken


def _touches(character: str) -> bool:
    """Tell whether a word may go on at a character; bytes of one are no character yet."""
    return character.isalnum() or character == "\ufffd"


def _is_whole(tokenizer: Tokenizer, tokens: list[int]) -> bool:
    return "\ufffd" not in tokenizer.decode(tokens)
