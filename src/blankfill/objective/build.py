"""Building rows: documents and their blanks to one packed batch, in a handful of vector operations.

The same layout as `blank.build_example` and `pack.stack` make example by example. Every row is a
sequence of runs (a visible stretch, a mask, a `sop`, a span, padding); a run is copied from one
source array that holds the documents and, after them, the special tokens, so that a whole batch is
one gather.

Shapes: K examples, S spans, B rows of T positions.
"""

from __future__ import annotations

import numpy as np

from blankfill.config.objective import ObjectiveConfig
from blankfill.objective.batch import (
    IGNORE_INDEX,
    PADDING_SEGMENT,
    Batch,
    End,
    Float32,
    Int32,
    Int64,
    Kind,
    UInt8,
)
from blankfill.objective.drawn import Placed, gather, ranks
from blankfill.objective.frame import BARE, CLOSED
from blankfill.objective.positions import STRAIGHT
from blankfill.objective.special import SpecialIds

__all__ = ["build_rows"]


def build_rows(
    tokens: Int32,
    placed: Placed,
    rows: Int64,
    cfg: ObjectiveConfig,
    ids: SpecialIds,
    *,
    row_length: int,
    documents: Int64,
    languages: UInt8,
    sources: Int32,
) -> Batch:
    """Lay the examples of many documents out in rows.

    Args:
        tokens: the documents' tokens, one document after another.
        placed: their blanks.
        rows: `[K]` row of each example, ascending from 0, no row without one.
        cfg: position scheme and loss weights.
        ids: the special tokens.
        row_length: positions of a row.
        documents: `[K]` each example's document in its store.
        languages: `[K]` its language code.
        sources: `[K]` its store.
    """
    lay = _Layout(placed, rows, row_length)
    source = _Source(tokens, placed, lay, cfg, ids)
    shape = (lay.num_rows, row_length)
    batch_tokens = _inputs(placed, lay, source)
    targets = np.full(lay.num_rows * row_length, IGNORE_INDEX, np.int32)
    targets[lay.b_place] = _targets(placed, lay, source)
    is_part_b = np.zeros(targets.shape, bool)
    is_part_b[lay.b_place] = True
    if placed.dropped is not None:
        batch_tokens[lay.b_place[placed.dropped]] = ids.dblock
    weights = np.zeros(targets.shape, np.float32)
    weights[lay.b_place] = _weights(cfg, placed.drawn.kinds, lay.part_b, rows)
    in_row = np.arange(len(rows)) - lay.opens[rows]
    segments = np.repeat(in_row.astype(np.int32), lay.size + lay.padding).reshape(shape)
    positions = _positions(placed, lay, cfg)
    for row, used in enumerate(lay.fill.tolist()):
        positions[row, 0, used:] = 0
        segments[row, used:] = PADDING_SEGMENT
    part_b = lay.column + lay.part_a
    return Batch(
        tokens=batch_tokens.reshape(shape), targets=targets.reshape(shape), positions=positions,
        segment_ids=segments, is_part_b=is_part_b.reshape(shape), weights=weights.reshape(shape),
        blocks=np.stack([rows, lay.column, part_b, lay.column + lay.size], 1).astype(np.int32),
        kinds=placed.drawn.kinds, languages=languages, documents=documents, sources=sources,
    )  # fmt: skip


class _Layout:
    """Where the examples and their spans lie.

    Args:
        placed: the examples' blanks.
        rows: `[K]` row of each.
        row_length: positions of a row.
    """

    def __init__(self, placed: Placed, rows: Int64, row_length: int) -> None:
        drawn, spans = placed.drawn, placed.spans
        self.first, self.count = drawn.first, np.diff(drawn.first)
        self.rows, self.row_length = rows, row_length
        self.num_examples, self.num_rows = len(rows), int(rows[-1]) + 1
        # Of spans, each `[S]`: their example, their number in it, in_order those of Part B.
        self.owner, self.rank = np.repeat(np.arange(len(rows)), self.count), ranks(self.first)
        self.in_order = self.first[self.owner] + placed.order
        self.lengths = spans[:, 1] - spans[:, 0]
        # Of spans in the order of Part B: whether an end is predicted, and how many inputs.
        self.ended = (drawn.ends != End.NONE).astype(np.int64)[self.owner]
        self.inputs = self.lengths[self.in_order] + self.ended
        # Of examples, each `[K]`: examples of a row stand one after another, padding at its end.
        self.size = size = drawn.example_lengths
        self.opened, self.closed = drawn.frames > BARE, drawn.frames == CLOSED
        text = drawn.num_tokens + drawn.frames
        self.part_a = text + self.count - np.add.reduceat(self.lengths, self.first[:-1])
        self.part_b = size - self.part_a
        self.opens = np.flatnonzero(np.diff(rows, prepend=-1))  # the first example of each row
        closes = np.append(self.opens[1:], len(rows)) - 1
        before = np.cumsum(size) - size
        self.column = before - before[self.opens][rows]
        self.fill = (self.column + size)[closes]  # of each row
        assert self.fill.max() <= row_length
        self.padding = np.zeros(len(rows), np.int64)
        self.padding[closes] = row_length - self.fill
        self.place = rows * row_length + self.column
        # Of the inputs of all Parts B, one after another: their number, and where each lies.
        self.b_index = np.arange(int(self.part_b.sum()))
        b_before = np.cumsum(self.part_b) - self.part_b
        self.b_place = np.repeat(self.place + self.part_a - b_before, self.part_b) + self.b_index


class _Source:
    """What runs are copied from: the documents, the special tokens by role, a row of padding.

    Args:
        tokens: of the documents.
        placed: their blanks.
        lay: where those lie.
        cfg: whether masks have numbers.
        ids: the special tokens.
    """

    def __init__(
        self, tokens: Int32, placed: Placed, lay: _Layout, cfg: ObjectiveConfig, ids: SpecialIds
    ) -> None:
        drawn = placed.drawn
        # The mask of each kind in the order of `Kind`, then `sop`, then the ends in that of `End`,
        # then what opens a text.
        roles = [ids.mask, ids.smask, ids.gmask, ids.gmask, ids.mask, ids.sop, ids.eop, ids.eos]
        assert ids.opening is not None or not lay.opened.any()
        roles.append(ids.pad if ids.opening is None else ids.opening)
        extra = [*ids.mask_sentinels, *ids.sop_sentinels] if cfg.sentinels else []
        pads = np.full(lay.row_length, ids.pad, np.int32)
        self.tokens = np.concatenate([tokens, np.array(roles + extra, np.int32), pads])
        after_text = len(tokens)
        first_sop = after_text + len(Kind)
        # Where each begins: a document's text `[K]`, a span's mask `[S]`; the others as in Part B.
        self.text = np.cumsum(drawn.num_tokens) - drawn.num_tokens
        self.mask = (after_text + drawn.kinds.astype(np.int64))[lay.owner]
        self.sop = np.full(len(lay.owner), first_sop)
        self.span = self.text[lay.owner] + placed.spans[lay.in_order, 0]
        self.end = (first_sop + drawn.ends.astype(np.int64))[lay.owner]
        self.closing = first_sop + int(End.EOS)
        self.opening = self.closing + 1
        self.pad = after_text + len(roles) + len(extra)
        if cfg.sentinels:
            # The k-th span of Part B is the k-th sentinel, wherever its mask stands.
            later = np.flatnonzero(lay.rank > 0)
            sentinel = after_text + len(roles) + lay.rank[later] - 1
            self.mask[lay.in_order[later]] = sentinel
            self.sop[later] = sentinel + len(ids.mask_sentinels)


def _inputs(placed: Placed, lay: _Layout, source: _Source) -> Int32:
    """Copy the inputs of all rows.

    Runs of an example: opening, (visible, mask) for each span, visible, closing, (sop, span) in
    order, padding.
    """
    spans, text, owner = placed.spans, source.text, lay.owner
    base = 4 * (lay.first[:-1] + np.arange(lay.num_examples))
    length = np.empty(4 * (len(spans) + lay.num_examples), np.int64)
    start = np.empty_like(length)
    previous = np.zeros(len(spans), np.int64)
    previous[1:] = spans[:-1, 1]
    previous[lay.first[:-1]] = 0
    length[base], start[base] = lay.opened, source.opening
    run = (base + 1)[owner] + 2 * lay.rank
    length[run], start[run] = spans[:, 0] - previous, text[owner] + previous
    length[run + 1], start[run + 1] = 1, source.mask
    run, last = base + 1 + 2 * lay.count, spans[lay.first[1:] - 1, 1]
    length[run], start[run] = placed.drawn.num_tokens - last, text + last
    length[run + 1], start[run + 1] = lay.closed, source.closing
    run = (base + 3 + 2 * lay.count)[owner] + 2 * lay.rank
    # A blank that goes on needs no input for an end it does not have.
    length[run], start[run] = 1, source.sop
    length[run + 1], start[run + 1] = lay.inputs - 1, source.span
    run = base + 3 + 4 * lay.count
    length[run], start[run] = lay.padding, source.pad
    return gather(source.tokens, start, length)


def _targets(placed: Placed, lay: _Layout, source: _Source) -> Int32:
    """Copy what all Parts B predict: each span and its end, in order."""
    length = np.stack([lay.lengths[lay.in_order], lay.ended], axis=1)
    start = np.stack([source.span, source.end], axis=1)
    return gather(source.tokens, start.reshape(-1), length.reshape(-1))


def _positions(placed: Placed, lay: _Layout, cfg: ObjectiveConfig) -> Int32:
    """Give `[B, 2, T]`, those of padding yet to be cleared; the rules are those of `positions`."""
    num_rows, row_length, owner = lay.num_rows, lay.row_length, lay.owner
    text = np.arange(num_rows * row_length, dtype=np.int32)
    text -= np.repeat((lay.place - placed.shifts).astype(np.int32), lay.size + lay.padding)
    positions = np.zeros((num_rows, 2, row_length), np.int32)
    positions[:, 0] = text.reshape(num_rows, row_length)
    inner = lay.b_index - np.repeat(np.cumsum(lay.inputs) - lay.inputs, lay.inputs)
    starts, inner_start, advance = placed.spans[:, 0] + lay.opened[owner], 1, 0
    start = starts[lay.in_order]
    if cfg.positions != "original":
        # Index of the mask: each earlier span has become one token.
        cut = np.cumsum(lay.lengths) - lay.lengths
        cut -= cut[lay.first[:-1]][owner]
        start = (starts - cut + lay.rank)[lay.in_order]
    if cfg.sentinels:
        start = np.full(len(owner), row_length)
    if cfg.positions == "linear":
        kinds = placed.drawn.kinds
        pair, straight = kinds == Kind.PAIR, np.isin(kinds, STRAIGHT)
        straight |= pair & (cfg.pair_positions == "straight")
        start = np.where(straight[owner], lay.part_a[owner], start)
        advance = inner * np.repeat((straight | pair & ~placed.pinned)[owner], lay.inputs)
    elif cfg.positions == "original":
        inner = np.maximum(inner - 1, 0)
        advance, inner_start = inner, 0
    # Both ids of a row stand one after the other, so a row begins at twice its place.
    flat = positions.reshape(-1)
    place = lay.b_place + np.repeat(lay.rows * row_length, lay.part_b)
    flat[place] = np.repeat(start + placed.shifts[owner], lay.inputs) + advance
    if cfg.positions != "linear":
        flat[place + row_length] = inner + inner_start
    return positions


def _weights(
    cfg: ObjectiveConfig, kinds: UInt8, num_targets: Int64, rows: Int64
) -> Float32 | np.float32:
    """Give the loss weight of every target, example by example."""
    if cfg.loss_weights == "token":
        return np.float32(1)
    if cfg.loss_weights == "kind":
        weights = np.array(cfg.kind_weights, np.float32)[kinds]
    else:
        weights = (1 / np.bincount(rows, num_targets))[rows].astype(np.float32)
    return np.repeat(weights, num_targets)
