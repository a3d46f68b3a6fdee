"""What a batch's positions are to predict.

Shapes: B rows, T positions, n targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["IGNORE_INDEX", "Targets"]

IGNORE_INDEX = -100
"""Target of a position that predicts nothing; the objective's constant of the same name."""


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """The targets of a batch, in row-major order."""

    index: torch.Tensor
    """`[n]` int64 positions that predict something, counted over all rows."""
    ids: torch.Tensor
    """`[n]` int64 what they are to predict."""
    weights: torch.Tensor | None = None
    """`[n]` weight of each in the loss; 1 where not given."""

    @classmethod
    def of(cls, targets: torch.Tensor, weights: torch.Tensor | None = None) -> Targets:
        """List the targets of whole rows. To count them, the CPU waits for a GPU.

        Args:
            targets: `[B, T]` ids; `IGNORE_INDEX` where nothing is predicted.
            weights: `[B, T]` weights in the loss.
        """
        index = (targets != IGNORE_INDEX).flatten().nonzero().squeeze(1)
        taken = None if weights is None else weights.flatten().index_select(0, index)
        return cls(index, targets.flatten().index_select(0, index), taken)
