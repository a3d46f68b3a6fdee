"""The tokens around a text: `[CLS]` before it and `eos` behind, as GLM up to 10B was trained.

Texts of vocabularies without an opening token stand bare. Neither token is ever cut out (released
`blocklm_utils.py`). A text that ends in a document blank is not closed: there the end is for the
blank to find, whose last target it may be (`document_end`), and a prompt is left open there as well
(released `generate_samples.py`).

Shapes: n documents (or pieces), S spans of all of them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from blankfill.objective.batch import Bool, Int32, Int64, Kind
from blankfill.objective.drawn import Drawn, Placed
from blankfill.objective.special import SpecialIds

__all__ = ["frame_blanks", "frame_lengths", "frame_room", "frame_rows", "frame_text"]

OPEN_ENDED = (Kind.DOCUMENT, Kind.CAUSAL)
"""Blanks that leave a text open where they reach its end."""


def frame_room(ids: SpecialIds) -> int:
    """Give the most positions that the frame of one text takes."""
    return 0 if ids.opening is None else 2


def frame_text(tokens: Int32, ids: SpecialIds, *, closed: bool) -> Int32:
    """Put the frame around one text: `[n]` to `[n + 2]`, `[n + 1]` where open, `[n]` if bare."""
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


def frame_lengths(drawn: Drawn, ids: SpecialIds) -> Int64:
    """Give `[n]` the positions that each text's frame takes."""
    if ids.opening is None:
        return np.zeros(len(drawn.numbers), np.int64)
    return 1 + _closed(drawn).astype(np.int64)


def frame_rows(tokens: Int32, placed: Placed, ids: SpecialIds) -> tuple[Int32, Placed]:
    """Put the frame around many texts.

    Args:
        tokens: of all texts, one behind another.
        placed: their blanks.
        ids: the special tokens.

    Returns:
        The same of the framed texts.
    """
    if ids.opening is None:
        return tokens, placed
    drawn, closed = placed.drawn, _closed(placed.drawn)
    size = drawn.num_tokens + 1 + closed
    end = np.cumsum(size)
    framed = np.empty(int(end[-1]), np.int32)
    inside = np.ones(len(framed), bool)
    for place, token in ((end - size, ids.opening), (end[closed] - 1, ids.eos)):
        framed[place] = token
        inside[place] = False
    framed[inside] = tokens
    moved = replace(drawn, num_tokens=size, starts=np.where(drawn.starts < 0, -1, drawn.starts + 1))
    return framed, replace(placed, drawn=moved, spans=placed.spans + 1)


def _closed(drawn: Drawn) -> Bool:
    """Tell `[n]` which texts are closed: all but those that end in a document blank."""
    last = drawn.first[1:] - 1
    reaches = drawn.starts[last] + drawn.lengths[last] == drawn.num_tokens
    return ~(reaches & np.isin(drawn.kinds, OPEN_ENDED))
