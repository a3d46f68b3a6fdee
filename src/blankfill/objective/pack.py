"""Packing examples into rows: best fit with a bounded buffer of open rows.

Each example goes into the open row that it fills most nearly. When a new row is needed and the
buffer is full, the fullest open row is closed. Rows leave in the order in which they close, so the
plan is a pure function of the lengths and their order.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np

from blankfill.objective.batch import (
    IGNORE_INDEX,
    PADDING_SEGMENT,
    Batch,
    Example,
    Int64,
)

__all__ = ["pack", "stack"]

OPEN_ROWS = 128
"""Rows that may be open at a time."""


def pack(lengths: Int64, row_length: int, *, open_rows: int = OPEN_ROWS) -> list[list[int]]:
    """Plan which examples share a row.

    Args:
        lengths: `[K]` positions of each example, none longer than a row.
        row_length: positions of a row.
        open_rows: bound of the buffer.

    Returns:
        For each row, the numbers of its examples; every example is in exactly one row.
    """
    assert lengths.size == 0 or lengths.max() <= row_length
    rows: list[list[int]] = []
    # The free positions of open rows, sorted, and the rows that have as many.
    free: list[int] = []
    open_by_free: list[list[list[int]]] = [[] for _ in range(row_length + 1)]
    for example, length in enumerate(lengths.tolist()):
        place = bisect_left(free, length)
        if place < len(free):
            room = free.pop(place)
            members = open_by_free[room].pop()
            members.append(example)
        else:
            if len(free) == open_rows:
                rows.append(open_by_free[free.pop(0)].pop())
            room, members = row_length, [example]
        left = room - length
        if left:
            insort(free, left)
            open_by_free[left].append(members)
        else:
            rows.append(members)
    return rows + [members for same in open_by_free for members in same]


def stack(
    rows: Sequence[Sequence[Example]],
    row_length: int,
    *,
    pad: int,
    documents: Sequence[int],
    languages: Sequence[int],
    sources: Sequence[int],
) -> Batch:
    """Lay examples out in rows: what `build.build_rows` does at once, example by example.

    Args:
        rows: the examples of each row.
        row_length: positions of a row.
        pad: token id of padding.
        documents: document of each example, in the order of the rows.
        languages: language code of each example's document.
        sources: store of each example's document.
    """
    shape = (len(rows), row_length)
    tokens = np.full(shape, pad, dtype=np.int32)
    targets = np.full(shape, IGNORE_INDEX, dtype=np.int32)
    positions = np.zeros((len(rows), 2, row_length), dtype=np.int32)
    segment_ids = np.full(shape, PADDING_SEGMENT, dtype=np.int32)
    is_part_b = np.zeros(shape, dtype=bool)
    weights = np.zeros(shape, dtype=np.float32)
    blocks: list[tuple[int, int, int, int]] = []
    kinds: list[int] = []
    for r, row in enumerate(rows):
        start = 0
        for number, example in enumerate(row):
            part = slice(start, start + len(example.tokens))
            tokens[r, part] = example.tokens
            targets[r, part] = example.targets
            positions[r, :, part] = example.positions
            segment_ids[r, part] = number
            is_part_b[r, part] = example.is_part_b
            weights[r, part] = example.weights
            blocks.append((r, start, start + example.part_b_start, part.stop))
            kinds.append(int(example.kind))
            start = part.stop
    return Batch(
        tokens=tokens, targets=targets, positions=positions, segment_ids=segment_ids,
        is_part_b=is_part_b, weights=weights,
        blocks=np.array(blocks, dtype=np.int32).reshape(-1, 4),
        kinds=np.array(kinds, dtype=np.uint8),
        languages=np.array(languages, dtype=np.uint8),
        documents=np.array(documents, dtype=np.int64),
        sources=np.array(sources, dtype=np.int32),
    )  # fmt: skip
