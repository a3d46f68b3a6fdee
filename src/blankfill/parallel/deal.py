"""Which rows of a step are whose: arithmetic on the row's number.

A step's rows are cut into equal shares in the order of the ranks, and a share into micro-batches of
equal size. Where they do not divide, the last rows of a share are of weight 0: every rank does the
same number of passes over the same shapes, and none waits for another longer than it has to.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from blankfill.engine.engine import Portion
from blankfill.objective.batch import Batch

__all__ = ["deal", "first_rows", "weigh_first_rows"]


def deal(
    first: int, num_rows: int, *, micro_batch_rows: int, rank: int, count: int
) -> list[Portion]:
    """Give the micro-batches of a rank.

    Args:
        first: first row of the step.
        num_rows: rows of the step.
        micro_batch_rows: most rows of one micro-batch.
        rank: whose.
        count: of all ranks.
    """
    start, stop = (first + num_rows * i // count for i in (rank, rank + 1))
    largest = -(-num_rows // count)
    passes = -(-largest // micro_batch_rows)
    size = -(-largest // passes)
    starts = (start + i * size for i in range(passes))
    return [Portion(first=row, num_rows=min(max(stop - row, 0), size), size=size) for row in starts]


def first_rows(batch: Batch, num_rows: int) -> Batch:
    """Give a batch's first rows."""
    examples = batch.blocks[:, 0] < num_rows
    of_rows = {
        name: getattr(batch, name)[:num_rows]
        for name in ("tokens", "targets", "positions", "segment_ids", "is_part_b", "weights")
    }
    of_examples = {
        name: getattr(batch, name)[examples]
        for name in ("blocks", "kinds", "languages", "documents", "sources")
    }
    return Batch(**of_rows, **of_examples)


def weigh_first_rows(batch: Batch, num_rows: int) -> Batch:
    """Give a batch whose rows after the first ones have weight 0."""
    weights = batch.weights.copy()
    weights[num_rows:] = np.float32(0)
    return dataclasses.replace(batch, weights=weights)
