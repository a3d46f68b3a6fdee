"""What of a text that is too long a model reads: the text around its blanks."""

from __future__ import annotations

import numpy as np

from blankfill.errors import RequestError
from blankfill.objective.batch import Int32
from blankfill.objective.special import SpecialIds

__all__ = ["around_blanks"]


def around_blanks(tokens: Int32, ids: SpecialIds, room: int) -> slice:
    """Choose the stretch of a text that holds all of its blanks and as much on either side.

    Args:
        tokens: `[n]` the text, with mask ids where its blanks are.
        ids: the special tokens.
        room: tokens that may be kept.

    Returns:
        The stretch; all of a text that is short enough, or has no blank.

    Raises:
        RequestError: the blanks are further apart than this.
    """
    blanks = np.flatnonzero(np.isin(tokens, [ids.mask, ids.smask, ids.gmask]))
    if len(tokens) <= room or not len(blanks):
        return slice(0, len(tokens))
    first, last = int(blanks[0]), int(blanks[-1])
    apart = last - first + 1
    if apart > room:
        raise RequestError(
            f"the text's blanks are {apart:,} tokens apart, and this model reads {room:,} beside "
            "what it writes; give them in several texts"
        )
    # What one side does not need the other may have.
    start = max(0, first - (room - apart) // 2)
    start = max(0, min(start, len(tokens) - room))
    return slice(start, start + room)
