"""What attention multiplies inside each example: rectangles of (query, key) pairs.

Part A's queries see all of Part A's keys: one rectangle. Part B's see Part A's and, causally, Part
B's: it is cut into strips of queries, each a rectangle that ends at the strip's last key, so of
Part B's own square little more than the visible half is multiplied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["STRIP", "count_pairs", "rectangles"]

STRIP = 128
"""Most queries of a strip of Part B; `packed.c` is compiled with it."""


def rectangles(
    examples: Iterable[Iterable[int]], row_length: int
) -> Iterator[tuple[int, int, int, int]]:
    """List the rectangles, of each example Part A's, then the strips of Part B.

    Args:
        examples: of each: row, first position, first of Part B, end.
        row_length: positions of a row.

    Yields:
        First key, first query, end of both, in positions counted over all rows, and how many of
        the last keys are causal: all of the queries' own in Part B, none in Part A.
    """
    for row, start, part_b, end in examples:
        offset = row * row_length
        if start < part_b:
            yield offset + start, offset + start, offset + part_b, 0
        for low in range(part_b, end, STRIP):
            high = min(low + STRIP, end)
            yield offset + start, offset + low, offset + high, high - low


def count_pairs(examples: Any) -> Any:
    """Count the pairs in the rectangles of each example.

    Args:
        examples: `[K, 4]` int64, an array or a tensor: row, first position, first of Part B, end.

    Returns:
        `[K]`, of the same kind.
    """
    _, start, part_b, end = examples.T
    a, b = part_b - start, end - part_b
    whole, rest = b // STRIP, b % STRIP
    own = STRIP * STRIP * whole * (whole + 1) // 2 + rest * b
    return a * a + a * b + own
