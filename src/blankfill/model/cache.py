"""Keys and values of the positions that a generation has already passed.

Shapes: B rows, S positions so far, N heads, H head size.
"""

from __future__ import annotations

import torch

__all__ = ["KVCache"]


class KVCache:
    """Grows as positions are appended; every row appends the same number at a time.

    Args:
        capacity: positions that it has room for before it grows.
    """

    def __init__(self, *, capacity: int) -> None:
        self._capacity = capacity
        self._keys: dict[int, torch.Tensor] = {}
        self._values: dict[int, torch.Tensor] = {}
        self.length = 0

    def append(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store new keys and values of one layer after the old ones.

        Args:
            layer: number of the block.
            keys: `[B, T, N, H]`.
            values: `[B, T, N, H]`.

        Returns:
            All keys and all values of the layer, `[B, S + T, N, H]`.
        """
        end = self.length + keys.shape[1]
        for table, new in ((self._keys, keys), (self._values, values)):
            table[layer] = _store(table.get(layer), new, self.length, end, self._capacity)
        return self._keys[layer][:, :end], self._values[layer][:, :end]

    def advance(self, num_positions: int) -> None:
        """Count positions that every layer has appended."""
        self.length += num_positions


def _store(
    table: torch.Tensor | None, new: torch.Tensor, start: int, end: int, capacity: int
) -> torch.Tensor:
    if table is None or end > table.shape[1]:
        room = max(capacity, end if table is None else 2 * table.shape[1])
        grown = new.new_zeros(new.shape[0], room, *new.shape[2:])
        if table is not None:
            grown[:, :start] = table[:, :start]
        table = grown
    table[:, start:end] = new
    return table
