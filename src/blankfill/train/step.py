"""What one optimizer step did."""

from __future__ import annotations

from dataclasses import dataclass

from blankfill.metrics import NO_FLOPS, Flops

__all__ = ["StepInfo"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StepInfo:
    """What one optimizer step did."""

    loss_nats: float
    """Weighted mean loss of the step's targets; NaN where its rows were left out."""
    grad_norm: float
    """Global gradient norm before clipping."""
    lr: float
    """Learning rate used."""
    num_rows: int
    """Rows it read or left out."""
    num_targets: int
    """Positions that predicted something."""
    flops: Flops = NO_FLOPS
    """Operations of its products."""
