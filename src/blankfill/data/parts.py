"""What several stores, or several shards of one, hold together: asked of each, put in order again.

Shapes: n things, each of one owner.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from blankfill.objective.batch import Int32, Int64
from blankfill.objective.drawn import gather

__all__ = ["joined_parts", "split_by"]


def split_by(owners: Int64) -> Iterator[tuple[int, Int64]]:
    """Go over the owners of some things.

    Args:
        owners: `[n]` whose each thing is.

    Yields:
        An owner that has any, in ascending order, and its things' places, ascending.
    """
    order = np.argsort(owners, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(owners[order])) + 1):
        if len(members):
            yield int(owners[members[0]]), members


def joined_parts(parts: Sequence[tuple[Int64, Int32]], sizes: Int64) -> Int32:
    """Put stretches of tokens that were read owner by owner into their order.

    Args:
        parts: of each owner, the places of its stretches, and their tokens one after another.
        sizes: `[n]` tokens of each stretch.

    Returns:
        The tokens of all stretches, one after another.
    """
    if len(parts) == 1:
        return parts[0][1]  # in order already
    order = np.concatenate([np.zeros(0, np.int64), *(members for members, _ in parts)])
    tokens = np.concatenate([np.zeros(0, np.int32), *(some for _, some in parts)])
    starts = np.empty(len(sizes), np.int64)
    starts[order] = np.cumsum(sizes[order]) - sizes[order]
    return gather(tokens, starts, sizes)
