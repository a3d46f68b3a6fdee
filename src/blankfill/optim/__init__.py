"""Optimizers: which tensor gets which treatment, and the learning rate of each step."""

from __future__ import annotations

from blankfill.optim.groups import (
    SplitOptimizer,
    build_optimizer,
    build_optimizer_of,
    matrices_of,
    parameter_groups,
)
from blankfill.optim.scaler import LossScaler
from blankfill.optim.schedule import annealing_lr, lr_at, shrink_at

__all__ = [
    "LossScaler",
    "SplitOptimizer",
    "annealing_lr",
    "build_optimizer",
    "build_optimizer_of",
    "lr_at",
    "matrices_of",
    "parameter_groups",
    "shrink_at",
]
