"""Which part of each tensor a process keeps.

First, processes that compute a block together cut some tensors into equal parts, by rows or by
columns (`tensor.cut_dimension`). Then FSDP2 cuts what is left along its first dimension into parts
of equal height, as `torch.chunk` does; the last ones are lower, or empty, where it does not divide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.distributed.tensor import DTensor

__all__ = ["Place", "kept_place", "kept_rows", "own", "own_parameters"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a part of a tensor belongs."""

    shape: tuple[int, ...]
    """Of the whole tensor."""
    begin: tuple[int, ...]
    """Where the part begins, along each dimension."""
    sizes: tuple[int, ...]
    """Its own shape."""

    @property
    def index(self) -> tuple[slice, ...]:
        """What takes the part out of the whole tensor."""
        return tuple(slice(at, at + n) for at, n in zip(self.begin, self.sizes, strict=True))

    @property
    def numel(self) -> int:
        """Values of the part."""
        return torch.Size(self.sizes).numel()


def kept_rows(height: int, part: int, parts: int) -> slice:
    """Give the rows of a tensor that one of several processes keeps."""
    most = -(-height // parts)
    return slice(min(part * most, height), min((part + 1) * most, height))


def kept_place(
    shape: Sequence[int], cut: int | None, *, tensor: tuple[int, int], shard: tuple[int, int]
) -> Place:
    """Give what one process keeps of a tensor.

    Args:
        shape: of the whole tensor, which has at least one dimension.
        cut: dimension that is cut into equal parts among those that compute a block together; None
            where each of them has all of it.
        tensor: which of those the process is, and how many they are.
        shard: which of FSDP2's processes it is, and how many they are.
    """
    begin, sizes = [0] * len(shape), list(shape)
    if cut is not None:
        sizes[cut] = shape[cut] // tensor[1]
        begin[cut] = tensor[0] * sizes[cut]
    rows = kept_rows(sizes[0], *shard)
    begin[0] += rows.start
    sizes[0] = rows.stop - rows.start
    return Place(shape=tuple(shape), begin=tuple(begin), sizes=tuple(sizes))


def own(tensor: torch.Tensor) -> torch.Tensor:
    """Give the rows of a distributed tensor that this process keeps; they share its memory."""
    return cast("DTensor", tensor).to_local()


def own_parameters(named: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Give the kept rows of each parameter, by name, as parameters that share their memory.

    Optimizers move these: their arithmetic is by element, and needs no other rank.
    """
    return {name: nn.Parameter(own(weight).detach()) for name, weight in named.items()}
