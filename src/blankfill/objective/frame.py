"""The tokens around a text: `[CLS]` before it and `eos` after it, as GLM up to 10B was trained.

Texts of vocabularies without an opening token have no frame. Neither token is ever cut out
(released `blocklm_utils.py`). A text that ends in a document blank is not closed: there the model
itself predicts the end, which may be the blank's last target (`document_end`). A prompt is left
open there as well (released `generate_samples.py`).

Here one text gets its frame. Of many, `many.draw_many` says which frame each has, and
`build.build_rows` lays it out.

Shapes: n tokens of a text, S spans.
"""

from __future__ import annotations

import numpy as np

from blankfill.objective.batch import Int32, Kind
from blankfill.objective.special import SpecialIds

__all__ = ["BARE", "CLOSED", "OPEN", "frame_blanks", "frame_room", "frame_text"]

BARE, OPEN, CLOSED = 0, 1, 2
"""Frames by their number of tokens: none, an opening one alone, one on either side."""
OPEN_ENDED = (Kind.DOCUMENT, Kind.CAUSAL)
"""Blanks that leave a text open where they reach its end."""


def frame_room(ids: SpecialIds) -> int:
    """Give the most positions that the frame of one text takes."""
    return BARE if ids.opening is None else CLOSED


def frame_text(tokens: Int32, ids: SpecialIds, *, closed: bool) -> Int32:
    """Put the frame around one text: `[n]` to `[n + 2]`, `[n + 1]` if open, `[n]` without frame."""
    if ids.opening is None:
        return tokens
    end = [ids.eos] if closed else []
    return np.concatenate([[ids.opening], tokens, end]).astype(np.int32)


def frame_blanks(tokens: Int32, spans: Int32, kind: Kind, ids: SpecialIds) -> tuple[Int32, Int32]:
    """Put the frame around one text with blanks.

    Args:
        tokens: `[n]` the text.
        spans: `[S, 2]` its blanks, in order.
        kind: what they are.
        ids: the special tokens.

    Returns:
        The framed text, and its blanks there.
    """
    if ids.opening is None:
        return tokens, spans
    closed = kind not in OPEN_ENDED or int(spans[-1, 1]) < len(tokens)
    return frame_text(tokens, ids, closed=closed), spans + np.int32(1)
