"""From what tensor-parallel ranks hold to whole tensors; from int8 and int4 back to float16.

Every rank of `columns` holds a slice of the columns, of `rows` a slice of the rows; of `row_thirds`
its slices of Q, K and V one under the other; of `row_halves` a slice of the linear half and one of
the gate half (GLM `change_mp.py`; GLM-130B `tools/convert_tp.py`).

Quantised weights (GLM-130B `quantization/layers.py`, also ChatGLM-6B): `q = round(w / s)` with one
float16 scale `s` per row; in int4 two columns share a byte, the even one in the high nibble. Each
rank was quantised by itself, so its scales belong to its own slice: ranks are dequantised first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch

from blankfill.errors import ConversionError
from blankfill.interop.keymap import Sharding
from blankfill.interop.shards import StoredTensor

__all__ = ["SCALE", "Part", "dequantise", "merge", "part_shape"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What one rank holds of a tensor."""

    stored: StoredTensor
    """Its values."""
    scale: StoredTensor | None
    """One scale a row, where they are quantised."""
    shape: tuple[int, ...]
    """Its shape once it is read."""

    def read(self) -> torch.Tensor:
        """Read the values, dequantised.

        Raises:
            ConversionError: the file is damaged, or the scales do not fit the weight.
        """
        stored, scale = self.stored, self.scale
        if scale is None:
            return stored.read()
        if stored.dtype not in (torch.int8, torch.uint8) or scale.shape != stored.shape[:1]:
            raise ConversionError(
                f"{stored.path} holds {stored.name} as {str(stored.dtype).removeprefix('torch.')} "
                f"{list(stored.shape)} with scales {list(scale.shape)}; quantised weights are int8 "
                "with one scale a row"
            )
        return dequantise(stored.read().view(torch.int8), scale.read(), self.shape[1])


SCALE: Final = "_scale"
"""Ending of the name of a quantised tensor's scales."""

_GROUPS: Final[dict[Sharding, int]] = {"rows": 1, "row_thirds": 3, "row_halves": 2}


def merge(parts: Sequence[Part], sharding: Sharding) -> torch.Tensor:
    """Read a tensor from every rank, one rank at a time, into one whole.

    Args:
        parts: what each rank holds, in order.
        sharding: how the ranks share it.

    Raises:
        ConversionError: a file is damaged, or scales do not fit their weight.
    """
    first = parts[0].read()
    if len(parts) == 1 or sharding == "whole":
        return first
    count = len(parts)
    if sharding == "columns":
        whole = first.new_empty((first.shape[0], first.shape[1] * count))
        target, dim, size = whole, 1, first.shape[1]
    else:
        groups = _GROUPS[sharding]
        whole = first.new_empty((first.shape[0] * count, *first.shape[1:]))
        target, dim, size = whole.unflatten(0, (groups, -1)), 1, first.shape[0] // groups
    for index, part in enumerate(parts):
        values = first if index == 0 else part.read()
        if sharding != "columns":
            values = values.unflatten(0, (_GROUPS[sharding], -1))
        target.narrow(dim, index * size, size).copy_(values)
    return whole


def part_shape(whole: tuple[int, ...], sharding: Sharding, num_ranks: int) -> tuple[int, ...]:
    """Give the shape of what one rank holds."""
    if sharding == "whole":
        return whole
    dim = 1 if sharding == "columns" else 0
    return tuple(n // num_ranks if i == dim else n for i, n in enumerate(whole))


def dequantise(weight: torch.Tensor, scale: torch.Tensor, num_columns: int) -> torch.Tensor:
    """Turn int8 or packed int4 rows back into float16, rounded once as the released kernel does.

    Args:
        weight: `[R, C]` int8, or `[R, C / 2]` with two columns a byte.
        scale: `[R]`.
        num_columns: `C`.

    Returns:
        `[R, C]` float16.
    """
    if weight.shape[1] * 2 == num_columns:
        # A shift of the signed byte keeps the sign; the low nibble is brought up and down again.
        weight = torch.stack([weight >> 4, (weight << 4) >> 4], dim=2).flatten(1)
    return weight.to(torch.float16) * scale.to(torch.float16)[:, None]
