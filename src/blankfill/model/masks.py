"""Who sees whom, in the form that attention needs: packed rows, or any dense mask.

The rule itself is `objective.mask.visible`: a query sees the keys of its own example that are in
Part A, and those of Part B that do not come after it. A `PackedMask` never builds the square of a
row. It lays the examples of a batch out in groups of similar length, each padded to the longest of
its group, so that attention is a few batched products over little more than what is visible.

Shapes: B rows, T positions, K examples, G examples in a group, L padded length of a group.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["DenseMask", "Group", "PackedMask"]

_LENGTH_STEP = 32
"""Examples whose lengths round up to the same multiple share a group."""
_MIN_GROUP_POSITIONS = 256
"""A group with fewer padded positions joins the next longer one: small products waste time."""


@dataclass(frozen=True, slots=True, eq=False)
class DenseMask:
    """Any mask, as a square of booleans."""

    visible: torch.Tensor
    """`[B or 1, Tq, Tk]` true where the query (row) sees the key (column)."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Examples of similar length, laid side by side."""

    index: torch.Tensor
    """`[G * L]` flat position (row * T + column) of each slot; padding slots repeat position 0."""
    bias: torch.Tensor
    """`[G, 1, L, L]` float32, 0 where visible and minus infinity elsewhere."""
    real: torch.Tensor
    """`[G, 1, L, 1]` float32, 1 on slots that hold a position and 0 on padding."""
    size: tuple[int, int]
    """(G, L)."""


class PackedMask:
    """The examples of packed rows.

    Args:
        blocks: `[K, 4]` of each example: row, first position, first of Part B, end.
        shape: (B, T) of the batch.
    """

    def __init__(self, blocks: npt.NDArray[np.int32], shape: tuple[int, ...]) -> None:
        self.blocks = blocks
        self.shape = (int(shape[0]), int(shape[1]))
        self.groups, self.inverse = _lay_out(blocks.astype(np.int64), self.shape)
        """`inverse` is `[B * T]`: the slot that holds each position, over all groups in order;
        padding positions point one past the last slot."""

    def to(self, device: torch.device | str) -> PackedMask:
        """Return the same mask on another device."""
        moved = PackedMask.__new__(PackedMask)
        moved.blocks, moved.shape = self.blocks, self.shape
        moved.groups = [
            Group(g.index.to(device), g.bias.to(device), g.real.to(device), g.size)
            for g in self.groups
        ]
        moved.inverse = self.inverse.to(device)
        return moved


def _lay_out(
    blocks: npt.NDArray[np.int64], shape: tuple[int, int]
) -> tuple[list[Group], torch.Tensor]:
    row_length = shape[1]
    lengths = blocks[:, 3] - blocks[:, 1]
    groups: list[Group] = []
    inverse = np.full(shape[0] * row_length, -1, dtype=np.int64)
    num_slots = 0
    for members in _group(lengths):
        row, start, part_b, end = blocks[members].T
        size = (len(members), int(lengths[members].max()))
        column = np.arange(size[1])
        flat = (row * row_length + start)[:, None] + column
        real = column < (end - start)[:, None]  # [G, L]
        index = np.where(real, flat, 0)
        slots = num_slots + np.arange(size[0] * size[1]).reshape(size)
        inverse[flat[real]] = slots[real]
        num_slots += size[0] * size[1]
        in_part_a = column < (part_b - start)[:, None]
        causal = column[:, None] >= column
        # Padding queries see Part A's first key or themselves, so that no softmax is empty.
        seen = (in_part_a[:, None, :] | causal) & real[:, None, :] | np.eye(size[1], dtype=bool)
        bias = np.where(seen, np.float32(0), np.float32(-np.inf))[:, None]
        groups.append(
            Group(
                index=torch.from_numpy(index.reshape(-1)),
                bias=torch.from_numpy(bias),
                real=torch.from_numpy(real[:, None, :, None].astype(np.float32)),
                size=size,
            )
        )
    inverse[inverse < 0] = num_slots
    return groups, torch.from_numpy(inverse)


def _group(lengths: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Split example numbers into groups of similar length, shortest first."""
    groups: list[npt.NDArray[np.int64]] = []
    waiting = np.zeros(0, dtype=np.int64)
    rounded = -(-lengths // _LENGTH_STEP)
    steps = np.unique(rounded)
    for step in steps:
        waiting = np.concatenate([waiting, np.flatnonzero(rounded == step)])
        if len(waiting) * step * _LENGTH_STEP >= _MIN_GROUP_POSITIONS or step == steps[-1]:
            groups.append(waiting)
            waiting = np.zeros(0, dtype=np.int64)
    return groups
