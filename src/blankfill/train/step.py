"""What one optimizer step did."""

from __future__ import annotations

import math
from dataclasses import dataclass

from blankfill.metrics import NO_FLOPS, Flops

__all__ = ["StepInfo"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StepInfo:
    """What one optimizer step did."""

    lr: float
    """Learning rate used."""
    num_rows: int
    """Rows it read or left out."""
    loss_nats: float = math.nan
    """Weighted mean loss of the step's targets; NaN where its rows were left out, and where it is
    still on the device."""
    grad_norm: float = math.nan
    """Global gradient norm before clipping; NaN as above."""
    num_targets: int = 0
    """Positions that predicted something."""
    flops: Flops = NO_FLOPS
    """Operations of its products."""
