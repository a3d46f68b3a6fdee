"""Who sees whom, in the form that each way to compute attention needs.

The rule itself is `objective.mask.visible`: a query sees the keys of its own example that are in
Part A, and those of Part B that do not come after it. Every mask here is made from the same table
of examples and answers to that rule; none of them but `DenseMask` builds the square of a row.

Shapes: B rows, T positions, K examples, S tiles in a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from blankfill.config.train import AttentionKind
from blankfill.model.copies import on_device

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

__all__ = [
    "DenseMask",
    "FlexMask",
    "Mask",
    "PackedMask",
    "VarlenMask",
    "build_mask",
]

TILE = 128
"""Side of FlexAttention's tiles (its default)."""
Blocks = npt.NDArray[np.int32]
"""`[K, 4]` of each example: row, first position, first position of Part B, end."""


@dataclass(frozen=True, slots=True, eq=False)
class DenseMask:
    """Any mask, as a square of booleans."""

    visible: torch.Tensor
    """`[B or 1, Tq, Tk]` true where the query (row) sees the key (column)."""

    @classmethod
    def of(cls, blocks: Blocks, shape: tuple[int, ...]) -> DenseMask:
        """Spread the examples out; padding sees padding of its own row, as `visible()` has it."""
        example, part_b = _by_position(blocks, shape)
        index = np.arange(shape[1])
        seen = (index < part_b[:, :, None]) | (index <= index[:, None])
        same = example[:, :, None] == example[:, None, :]
        return cls(torch.from_numpy(same & seen))

    def to(self, device: torch.device | str) -> DenseMask:
        """Return the same mask on another device."""
        return DenseMask(self.visible.to(device))


class PackedMask:
    """The examples of packed rows, as `packed.block_attention` takes them.

    Args:
        blocks: `[K, 4]` of each example: row, first position, first of Part B, end.
        shape: (B, T) of the batch.
    """

    def __init__(self, blocks: Blocks, shape: tuple[int, ...]) -> None:
        self.shape = (int(shape[0]), int(shape[1]))
        self.table = torch.from_numpy(blocks.astype(np.int32))
        """`[K, 4]` int32. It stays on the CPU: it is read there, wherever the queries are."""


@dataclass(frozen=True, slots=True, eq=False)
class FlexMask:
    """The tiles of packed rows, as FlexAttention takes them."""

    block_mask: BlockMask
    """Which tiles of a row are computed, whole or under the rule."""

    @classmethod
    def of(cls, blocks: Blocks, shape: tuple[int, ...], device: torch.device | str) -> FlexMask:
        """Sort every tile into empty, partly and wholly visible, by arithmetic on the table.

        No square of a row is made, so this is quick enough for the thread that makes batches.
        """
        from torch.nn.attention.flex_attention import BlockMask

        example, part_b = _by_position(blocks, shape)
        of_query = on_device(example, device)
        a_end = on_device(part_b, device)

        def rule(
            row: torch.Tensor, _head: torch.Tensor, query: torch.Tensor, key: torch.Tensor
        ) -> torch.Tensor:
            same = (of_query[row, query] == of_query[row, key]) & (of_query[row, query] >= 0)
            return same & ((key < a_end[row, query]) | (key <= query))

        pairs = tile_pairs(blocks, shape)
        whole = pairs == TILE * TILE
        part_count, part_list, whole_count, whole_list = (
            # One list for all heads. The kernels step from row to row by the stride of that dim,
            # so it must be torch's: numpy's `[:, None]` has the stride 0, by which every row is
            # given the tiles of the first.
            on_device(array, device).unsqueeze(1)
            for tiles in ((pairs > 0) & ~whole, whole)
            for array in (
                tiles.sum(-1, dtype=np.int32),
                np.argsort(~tiles, axis=-1, kind="stable").astype(np.int32),
            )
        )
        lengths = (int(shape[1]), int(shape[1]))
        lists = (part_count, part_list, whole_count, whole_list)
        return cls(BlockMask.from_kv_blocks(*lists, TILE, rule, lengths))


@dataclass(frozen=True, slots=True, eq=False)
class VarlenMask:
    """The rectangles of packed rows, as two calls of a variable-length kernel take them."""

    part_a: torch.Tensor
    """`[a]` positions of Part A, counted over all rows, example by example."""
    part_b: torch.Tensor
    """`[b]` those of Part B."""
    both: torch.Tensor
    """Those of each example that has a Part B, Part A and then Part B."""
    a_bounds: torch.Tensor
    """int32 where each example that has a Part A starts in `part_a`, and the last one's end."""
    b_bounds: torch.Tensor
    """The same in `part_b`, of examples that have a Part B."""
    both_bounds: torch.Tensor
    """The same in `both`."""
    present: tuple[bool, bool]
    """Whether any example has a Part A, and a Part B."""
    length: int
    """T, which no example is longer than. Kernels ask how much room to plan for; the longest
    example would be less, but another number in each batch, and a compiled graph knows its own."""

    @classmethod
    def of(cls, blocks: Blocks, shape: tuple[int, ...], device: torch.device | str) -> VarlenMask:
        """Lay out what each call gathers. No call is given an example that has no query in it:
        a sequence without queries is the edge at which such kernels have been wrong."""
        row, start, part_b, end = blocks.astype(np.int64).T
        first = row * shape[1]
        has_a, has_b = part_b > start, end > part_b
        parts = [
            (first[has] + low[has], (high - low)[has])
            for has, low, high in (
                (has_a, start, part_b),
                (has_b, part_b, end),
                (has_b, start, end),
            )
        ]
        index = [_ranges(*part) for part in parts]
        bounds = [np.append(0, np.cumsum(lengths)).astype(np.int32) for _, lengths in parts]
        a, b, both = (on_device(x, device) for x in index)
        of_a, of_b, of_both = (on_device(x, device) for x in bounds)
        present = (bool(has_a.any()), bool(has_b.any()))
        return cls(a, b, both, of_a, of_b, of_both, present, int(shape[1]))

    @property
    def varying(self) -> list[torch.Tensor]:
        """Give the tensors that are of another size in each batch."""
        return [self.part_a, self.part_b, self.both,
                self.a_bounds, self.b_bounds, self.both_bounds]  # fmt: skip


Mask = PackedMask | DenseMask | FlexMask | VarlenMask
"""What attention takes."""


def build_mask(
    blocks: Blocks, shape: tuple[int, ...], kind: AttentionKind, device: torch.device | str = "cpu"
) -> Mask:
    """Make the mask that one way of attention takes, on the device.

    Args:
        blocks: `[K, 4]` of each example: row, first position, first of Part B, end.
        shape: (B, T) of the batch.
        kind: one that the device computes.
        device: where queries will be.
    """
    match kind:
        case "flex":
            return FlexMask.of(blocks, shape, device)
        case "varlen":
            return VarlenMask.of(blocks, shape, device)
        case "dense":
            return DenseMask.of(blocks, shape).to(device)
        case _:
            return PackedMask(blocks, shape)


def tile_pairs(blocks: Blocks, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Count the visible pairs in each tile of each row.

    Returns:
        `[B, S, S]`; row = tile of queries, column = tile of keys.
    """
    num_tiles = -(-int(shape[1]) // TILE)
    edges = np.arange(num_tiles) * TILE
    pairs = np.zeros((int(shape[0]), num_tiles, num_tiles), np.int64)

    def inside(low: int, high: int) -> npt.NDArray[np.int64]:
        return np.clip(np.minimum(high, edges + TILE) - np.maximum(low, edges), 0, None)

    for row, start, part_b, end in blocks.tolist():
        a, b = inside(start, part_b), inside(part_b, end)
        pairs[row] += np.outer(a + b, a)
        # Part B on itself: tiles left of the diagonal whole, those on it a triangle.
        pairs[row] += np.tril(np.outer(b, b), -1) + np.diag(b * (b + 1) // 2)
    return pairs


def _by_position(
    blocks: Blocks, shape: tuple[int, ...]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Give the example of each position (-1 on padding) and where that example's Part B starts."""
    example = np.full(shape, -1, np.int64)
    part_b = np.full(shape, shape[1], np.int64)
    for number, (row, start, first, end) in enumerate(blocks.tolist()):
        example[row, start:end] = number
        part_b[row, start:end] = first
    return example, part_b


def _ranges(starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Join `start, start + 1, ...` of each length."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))
