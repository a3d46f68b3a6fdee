"""How weights move: the optimizer, its decay, and what bounds a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from blankfill.config.ranges import Range, check_numbers

__all__ = ["OptimizerConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """The optimizer."""

    kind: Literal["adamw", "muon"] = "adamw"
    """adamw for every tensor, or muon for the matrices of the blocks and adamw for the rest."""
    muon_momentum: Annotated[float, Range(0, 0.9999)] = 0.95
    """Muon's decay of the mean gradient."""
    beta1: Annotated[float, Range(0, 0.9999)] = 0.9
    """AdamW's decay of the mean gradient."""
    beta2: Annotated[float, Range(0, 0.999999)] = 0.95
    """AdamW's decay of the squared gradient."""
    eps: Annotated[float, Range(1e-30, 1)] = 1e-8
    """AdamW's epsilon."""
    weight_decay: Annotated[float, Range(0, 100)] = 0.1
    """Decoupled decay of matrices and embeddings; biases and LayerNorms have none."""
    max_grad_norm: Annotated[float, Range(1e-6, 1e6, or_zero=True)] = 1.0
    """Clip the gradient to this global norm; 0 is off."""
    embedding_lr_ratio: Annotated[float, Range(1e-6, 1000)] = 1.0
    """Learning rate of embeddings and the output layer, as a share of that of the rest."""
    ema_decay: Annotated[float, Range(0, 0.999999)] = 0.0
    """Decay of an exponential moving average of the weights, kept beside them; 0 is off."""

    def __post_init__(self) -> None:
        check_numbers(self, "optimizer")
