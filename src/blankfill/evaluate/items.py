"""The blanks of an evaluation as one model reads them: in its tokens, in its rows.

The text left of a blank, the blank and the text right of it are each encoded by themselves, since a
blank's characters need not begin or end where a token does. Where the three take more than the
model's rows hold, the text that is furthest from the blank is left away.

Shapes: n tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from blankfill.errors import DataError
from blankfill.evaluate.law import Blank
from blankfill.objective.batch import Int32
from blankfill.objective.frame import frame_room
from blankfill.text.tokenizer import TextTokenizer

__all__ = ["BlankItem", "encode_blanks", "shares_of"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BlankItem:
    """One blank in a model's tokens."""

    blank: Blank
    """What it is of."""
    before: Int32
    """`[n]` the text on its left."""
    span: Int32
    """`[n]` what was cut out; never empty."""
    after: Int32
    """`[n]` the text on its right."""
    shortened: bool
    """Whether text was left away."""

    @property
    def tokens(self) -> Int32:
        """The text with the blank's own tokens in it."""
        return np.concatenate([self.before, self.span, self.after])

    @property
    def start(self) -> int:
        """First token of the blank."""
        return len(self.before)

    @property
    def end(self) -> int:
        """End of the blank."""
        return len(self.before) + len(self.span)

    def prompt(self, mask: int, *, both_sides: bool = True) -> Int32:
        """Part A: the text with one mask, with or without what stands to its right."""
        right = self.after if both_sides else self.after[:0]
        return np.concatenate([self.before, [mask], right]).astype(np.int32)


def encode_blanks(
    blanks: Sequence[Blank], tokenizer: TextTokenizer, *, row_length: int
) -> list[BlankItem]:
    """Encode blanks for one model.

    Args:
        blanks: as the law gives them.
        tokenizer: the model's.
        row_length: positions of the model's rows: text, frame, mask and Part B have room in them.

    Returns:
        One item for each blank; a blank that the tokenizer gives no token for has none.

    Raises:
        DataError: the rows are too short for a blank.
    """
    items: list[BlankItem] = []
    for blank in blanks:
        span = tokenizer.encode(blank.text)
        if not len(span):
            continue
        # Part A holds the frame and one mask, Part B begins with one `sop`.
        room = row_length - frame_room(tokenizer.ids) - 2 - len(span)
        if room < 1:
            raise DataError(
                f"the blank {blank.text!r} takes {len(span)} tokens, too many for rows of "
                f"{row_length} positions (train.row_length): nothing of its text has room beside "
                "it; this run cannot be evaluated on blanks of up to six words"
            )
        before, after = tokenizer.encode(blank.before), tokenizer.encode(blank.after)
        left, right = shares_of(len(before), len(after), room)
        items.append(
            BlankItem(
                blank=blank, before=before[len(before) - left :], span=span, after=after[:right],
                shortened=left < len(before) or right < len(after),
            )
        )  # fmt: skip
    return items


def shares_of(left: int, right: int, room: int) -> tuple[int, int]:
    """Give either side half of the room, and what the other does not need."""
    half = room // 2
    if left <= half:
        return left, min(right, room - left)
    if right <= room - half:
        return min(left, room - right), right
    return half, room - half
