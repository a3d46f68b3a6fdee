"""Keys and values of the positions that a generation has already passed.

Shapes: B rows, S positions so far, N heads, H head size.
"""

from __future__ import annotations

import torch

from blankfill.config.model import ModelConfig

__all__ = ["KVCache"]


class KVCache:
    """Grows as positions are appended; every row appends the same number at a time."""

    def __init__(self, cfg: ModelConfig, batch_size: int, *, capacity: int) -> None:
        self._shape = (batch_size, capacity, cfg.num_heads, cfg.head_size)
        self._keys: list[torch.Tensor | None] = [None] * cfg.num_layers
        self._values: list[torch.Tensor | None] = [None] * cfg.num_layers
        self.length = 0

    def append(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store new keys and values of one layer behind the old ones.

        Args:
            layer: number of the block.
            keys: `[B, T, N, H]`.
            values: `[B, T, N, H]`.

        Returns:
            All keys and all values of the layer, `[B, S + T, N, H]`.
        """
        end = self.length + keys.shape[1]
        stored = [
            _store(table[layer], new, self.length, end, self._shape)
            for table, new in ((self._keys, keys), (self._values, values))
        ]
        self._keys[layer], self._values[layer] = stored
        return stored[0][:, :end], stored[1][:, :end]

    def advance(self, num_positions: int) -> None:
        """Count positions that every layer has appended."""
        self.length += num_positions


def _store(
    table: torch.Tensor | None,
    new: torch.Tensor,
    start: int,
    end: int,
    shape: tuple[int, int, int, int],
) -> torch.Tensor:
    if table is None or end > table.shape[1]:
        batch, capacity, heads, size = shape
        capacity = max(capacity, end if table is None else 2 * table.shape[1])
        grown = new.new_zeros(batch, capacity, heads, size)
        if table is not None:
            grown[:, :start] = table[:, :start]
        table = grown
    table[:, start:end] = new
    return table
