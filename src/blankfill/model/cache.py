"""What attention asks of whoever keeps the keys and values of earlier positions.

The model knows this much of generation; `generate.slots` holds the keys.

Shapes: T new positions, N heads, H head size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from blankfill.model.masks import Mask

__all__ = ["Cache"]


class Cache(Protocol):
    """Keys and values so far, and who sees which of them."""

    def attend(
        self,
        layer: int,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        mask: Mask | None,
        scale: float,
    ) -> torch.Tensor:
        """Store the new keys and values of one layer, and attend from the new queries.

        Args:
            layer: number of the block.
            q: `[1, T, N, H]`.
            k: keys.
            v: values.
            mask: the one that the model was called with.
            scale: of the scores, applied in float32 or wider.

        Returns:
            `[1, T, N, H]`.
        """
        ...
