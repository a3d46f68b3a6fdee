"""What `kernels/packed.py` replaced, kept to be measured beside it.

Examples of similar length are gathered side by side and padded to the longest of their group, so
that attention is a few batched products over somewhat more than what is visible.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

__all__ = ["GroupedMask", "grouped_attention"]

_LENGTH_STEP = 32
"""Examples whose lengths round up to the same multiple share a group."""
_MIN_GROUP_POSITIONS = 256
"""A group with fewer padded positions joins the next longer one: small products waste time."""


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


class GroupedMask:
    """The examples of packed rows in groups of similar length."""

    def __init__(self, blocks, shape):
        self.groups, self.inverse = _lay_out(blocks.astype(np.int64), shape)


def grouped_attention(q, k, v, mask):
    """Attend within each example: `[B, T, N, H]` each."""
    return _GroupedAttention.apply(q, k, v, mask, 0.0)


class _GroupedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        mask: GroupedMask,
        dropout: float,
    ) -> torch.Tensor:
        scale = 1 / math.sqrt(q.shape[-1])
        flat = [x.reshape(-1, *x.shape[2:]) for x in (q, k, v)]  # [B*T, N, H]
        saved: list[torch.Tensor] = []
        outputs: list[torch.Tensor] = []
        for group in mask.groups:
            qg, kg, vg = (_gather(x, group.index, group.size) for x in flat)  # [G, N, L, H]
            scores = (
                torch.matmul(qg, kg.transpose(-1, -2)).to(_wide(q)).mul_(scale).add_(group.bias)
            )
            weights = scores.softmax(dim=-1).to(q.dtype)
            keep = weights
            if dropout:
                keep = nn.functional.dropout(weights, dropout)
            outputs.append(_slots(torch.matmul(keep, vg)))
            saved += [qg, kg, vg, weights, keep]
        ctx.save_for_backward(*saved)
        ctx.mask, ctx.scale, ctx.dropout = mask, scale, dropout
        return _back(outputs, mask, q)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        mask: GroupedMask = ctx.mask
        flat = grad.reshape(-1, *grad.shape[2:])
        grads: list[list[torch.Tensor]] = [[], [], []]
        for i, group in enumerate(mask.groups):
            qg, kg, vg, weights, keep = ctx.saved_tensors[5 * i : 5 * i + 5]
            # Padding slots hold a copy of some real position, whose gradient is not theirs.
            gg = _gather(flat, group.index, group.size).to(vg.dtype).mul_(group.real)
            grad_v = torch.matmul(keep.transpose(-1, -2), gg)
            grad_keep = torch.matmul(gg, vg.transpose(-1, -2)).to(_wide(gg))
            if ctx.dropout:
                grad_keep *= (keep != 0) / (1 - ctx.dropout)
            grad_keep.mul_(weights)
            grad_scores = grad_keep.sub_(weights * grad_keep.sum(dim=-1, keepdim=True))
            grad_scores = grad_scores.mul_(ctx.scale).to(qg.dtype)
            grads[0].append(_slots(torch.matmul(grad_scores, kg)))
            grads[1].append(_slots(torch.matmul(grad_scores.transpose(-1, -2), qg)))
            grads[2].append(_slots(grad_v))
        return (*(_back(parts, mask, grad) for parts in grads), None, None)


def _gather(flat: torch.Tensor, index: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Lay positions out as `[G, N, L, H]`."""
    return flat.index_select(0, index).view(*size, *flat.shape[1:]).transpose(1, 2).contiguous()


def _wide(x: torch.Tensor) -> torch.dtype:
    """Softmax and its gradient are computed in float32, or wider where the input is."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _slots(x: torch.Tensor) -> torch.Tensor:
    """Turn `[G, N, L, H]` into `[G * L, N, H]`."""
    return x.transpose(1, 2).flatten(0, 1)


def _back(parts: list[torch.Tensor], mask: GroupedMask, like: torch.Tensor) -> torch.Tensor:
    """Bring slots back to `[B, T, N, H]`, zeros on padding."""
    zero = like.new_zeros(1, *like.shape[2:], dtype=parts[0].dtype if parts else like.dtype)
    return torch.cat([*parts, zero]).index_select(0, mask.inverse).view_as(like)


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
