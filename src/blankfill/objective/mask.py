"""Who sees whom: the dense oracle that every attention back end answers to."""

from __future__ import annotations

import numpy as np

from blankfill.objective.batch import Bool, Int32

__all__ = ["visible"]


def visible(segment_ids: Int32, is_part_b: Bool) -> Bool:
    """Tell which key each query of one row sees.

    A query sees the keys of its own example that are in Part A, and those of Part B that do not
    come after it. So Part A attends in both directions and never sees Part B; Part B is causal and
    sees all of Part A and every earlier span (Du et al. 2022, section 2.1). Examples of a packed
    row never see each other.

    Args:
        segment_ids: `[T]` number of the example that each position belongs to.
        is_part_b: `[T]`.

    Returns:
        `[T, T]`; row = query, column = key.
    """
    index = np.arange(len(segment_ids))
    same_example = segment_ids[:, None] == segment_ids[None, :]
    return same_example & (~is_part_b[None, :] | (index[None, :] <= index[:, None]))
