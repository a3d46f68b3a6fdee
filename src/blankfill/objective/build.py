"""Building rows: documents and their blanks to one packed batch, in a handful of vector operations.

The same layout as `blank.build_example` and `pack.stack` make example by example. Every row is a
sequence of runs (a visible stretch, a mask, a `sop`, a span, padding); a run is copied from one
source array that holds the documents and, behind them, the special tokens, so that a whole batch is
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
from blankfill.objective.drawn import Placed, ranks
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
        tokens: the documents' tokens, one document behind another.
        placed: their blanks.
        rows: `[K]` row of each example, ascending from 0, no row without one.
        cfg: position scheme and loss weights.
        ids: the special tokens.
        row_length: positions of a row.
        documents: `[K]` each example's document in its store.
        languages: `[K]` its language code.
        sources: `[K]` its store.
    """
    drawn, spans = placed.drawn, placed.spans
    first, n, count = drawn.first, drawn.num_tokens, np.diff(drawn.first)
    num_examples, num_rows = len(count), int(rows[-1]) + 1
    owner, rank = np.repeat(np.arange(num_examples), count), ranks(first)
    lengths = spans[:, 1] - spans[:, 0]
    ended = (drawn.ends != End.NONE).astype(np.int64)
    size = drawn.example_lengths
    part_a = n + count - np.add.reduceat(lengths, first[:-1])
    part_b = size - part_a

    # Where each example lies: examples of a row stand one behind another, padding at its end.
    before = np.cumsum(size) - size
    opens = np.flatnonzero(np.diff(rows, prepend=-1))
    column = before - before[opens][rows]
    fill = (column + size)[np.append(opens[1:], num_examples) - 1]
    assert fill.max() <= row_length
    padding = np.zeros(num_examples, np.int64)
    padding[np.append(opens[1:], num_examples) - 1] = row_length - fill
    place = rows * row_length + column

    # The source: documents, special tokens by role, and a row of padding.
    text = np.cumsum(n) - n
    behind = len(tokens)
    # The mask of each kind in the order of `Kind`, then `sop`, then the ends in the order of `End`.
    roles = [ids.mask, ids.smask, ids.gmask, ids.gmask, ids.mask, ids.sop, ids.eop, ids.eos]
    extra = [*ids.mask_sentinels, *ids.sop_sentinels] if cfg.sentinels else []
    source = np.concatenate(
        [tokens, np.array(roles + extra, np.int32), np.full(row_length, ids.pad, np.int32)]
    )
    first_sop = behind + len(Kind)
    mask, sop = (behind + drawn.kinds.astype(np.int64))[owner], np.full(len(spans), first_sop)
    pad = behind + len(roles) + len(extra)
    end = first_sop + drawn.ends.astype(np.int64)
    in_order = first[owner] + placed.order
    if cfg.sentinels:
        # The k-th span of Part B is the k-th sentinel, wherever its mask stands.
        later = np.flatnonzero(rank > 0)
        sentinel = behind + len(roles) + rank[later] - 1
        mask[in_order[later]] = sentinel
        sop[later] = sentinel + len(ids.mask_sentinels)

    # Runs of an example: (visible, mask) for each span, visible, (sop, span) in order, padding.
    base = 4 * first[:-1] + 2 * np.arange(num_examples)
    run_length = np.empty(4 * len(spans) + 2 * num_examples, np.int64)
    run_source = np.empty_like(run_length)
    previous = np.zeros(len(spans), np.int64)
    previous[1:] = spans[:-1, 1]
    previous[first[:-1]] = 0
    run = base[owner] + 2 * rank
    run_length[run], run_source[run] = spans[:, 0] - previous, text[owner] + previous
    run_length[run + 1], run_source[run + 1] = 1, mask
    run, last = base + 2 * count, spans[first[1:] - 1, 1]
    run_length[run], run_source[run] = n - last, text + last
    run = (base + 2 * count + 1)[owner] + 2 * rank
    span_source = text[owner] + spans[in_order, 0]
    # A blank that goes on needs no input for an end it does not have.
    run_length[run], run_source[run] = 1, sop
    run_length[run + 1] = lengths[in_order] - 1 + ended[owner]
    run_source[run + 1] = span_source
    run = base + 4 * count + 1
    run_length[run], run_source[run] = padding, pad
    batch_tokens = _gather(source, run_source, run_length)

    # Part B: where it lies, what it predicts, its positions.
    b_before = np.cumsum(part_b) - part_b
    b_index = np.arange(int(part_b.sum()))
    b_place = np.repeat(place + part_a - b_before, part_b) + b_index
    run_length = np.stack([lengths[in_order], ended[owner]], axis=1).reshape(-1)
    run_source = np.stack([span_source, end[owner]], axis=1).reshape(-1)
    targets = np.full(num_rows * row_length, IGNORE_INDEX, np.int32)
    targets[b_place] = _gather(source, run_source, run_length)
    is_part_b = np.zeros(num_rows * row_length, bool)
    is_part_b[b_place] = True
    if placed.dropped is not None:
        batch_tokens[b_place[placed.dropped]] = ids.dblock
    weights = np.zeros(num_rows * row_length, np.float32)
    weights[b_place] = _weights(cfg, drawn.kinds, part_b, rows)

    whole = size + padding
    text_position = np.arange(num_rows * row_length, dtype=np.int32)
    text_position -= np.repeat((place - placed.shifts).astype(np.int32), whole)
    positions = np.zeros((num_rows, 2, row_length), np.int32)
    positions[:, 0] = text_position.reshape(num_rows, row_length)
    inputs = lengths[in_order] + ended[owner]
    inner = b_index - np.repeat(np.cumsum(inputs) - inputs, inputs)
    flat = positions.reshape(-1)
    b_place += np.repeat(rows * row_length, part_b)
    start, inner_start = spans[in_order, 0], 1
    if cfg.positions != "original":
        # Index of the mask: each earlier span has become one token.
        cut = np.cumsum(lengths) - lengths
        cut -= cut[first[:-1]][owner]
        start = (spans[:, 0] - cut + rank)[in_order]
    if cfg.sentinels:
        start = np.full(len(spans), row_length)
    if cfg.positions == "linear":
        pair = drawn.kinds == Kind.PAIR
        straight = np.isin(drawn.kinds, STRAIGHT)
        straight |= pair & (cfg.pair_positions == "straight")
        start = np.where(straight[owner], part_a[owner], start)
        advance = inner * np.repeat((straight | pair & ~placed.pinned)[owner], inputs)
    elif cfg.positions == "original":
        inner = np.maximum(inner - 1, 0)
        advance, inner_start = inner, 0
    else:
        advance = 0
    flat[b_place] = np.repeat(start + placed.shifts[owner], inputs) + advance
    if cfg.positions != "linear":
        flat[b_place + row_length] = inner + inner_start

    segments = np.repeat((np.arange(num_examples) - opens[rows]).astype(np.int32), whole)
    segments = segments.reshape(num_rows, row_length)
    for row, used in enumerate(fill.tolist()):
        positions[row, 0, used:] = 0
        segments[row, used:] = PADDING_SEGMENT
    shape = (num_rows, row_length)
    return Batch(
        tokens=batch_tokens.reshape(shape), targets=targets.reshape(shape), positions=positions,
        segment_ids=segments, is_part_b=is_part_b.reshape(shape), weights=weights.reshape(shape),
        blocks=np.stack([rows, column, column + part_a, column + size], axis=1).astype(np.int32),
        kinds=drawn.kinds, wished=drawn.wished, languages=languages, documents=documents,
        sources=sources,
    )  # fmt: skip


def _gather(source: Int32, run_source: Int64, run_length: Int64) -> Int32:
    """Copy runs of the source one behind another."""
    ends = np.cumsum(run_length)
    index = np.repeat(run_source - ends + run_length, run_length)
    index += np.arange(len(index))
    return source.take(index)


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
