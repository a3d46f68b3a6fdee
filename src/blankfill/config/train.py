"""How a run trains: batches, recipe, precision, and what it writes when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from blankfill.errors import ConfigError

__all__ = ["TrainConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One optimizer run over an endless stream of packed rows."""

    steps: int = 2000
    """Optimizer steps."""
    row_length: int = 512
    """Positions in a row; several documents share a row and never see each other."""
    batch_rows: int = 16
    """Rows in one optimizer step."""
    micro_batch_rows: int = 16
    """Rows in one forward and backward pass; must divide batch_rows."""
    peak_lr: float = 1e-3
    """Learning rate at the end of warm-up."""
    min_lr_ratio: float = 0.1
    """Last learning rate as a share of peak_lr."""
    warmup_steps: int = 100
    """Steps of linear warm-up; 0 starts at the peak."""
    schedule: Literal["cosine", "linear", "constant", "glm_cosine", "glm_linear"] = "cosine"
    """Decay from the peak to the last learning rate. The glm_ forms are the released ones: step 0
    does not move, and glm_linear goes on falling past its end."""
    decay_steps: int = 0
    """Step at which the decay ends, warm-up included; 0 is the last step."""
    shrink_hold_steps: int = 0
    """Steps for which model.embedding_gradient_shrink is held before it rises to 1."""
    shrink_rise_steps: int = 0
    """Steps over which it rises; 0 holds it for good."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """adamw for every tensor, or muon for the matrices of the blocks and adamw for the rest."""
    muon_momentum: float = 0.95
    """Muon's decay of the mean gradient."""
    beta1: float = 0.9
    """AdamW's decay of the mean gradient."""
    beta2: float = 0.95
    """AdamW's decay of the squared gradient."""
    eps: float = 1e-8
    """AdamW's epsilon."""
    weight_decay: float = 0.1
    """Decoupled decay of matrices and embeddings; biases and LayerNorms have none."""
    max_grad_norm: float = 1.0
    """Clip the gradient to this global norm; 0 is off."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Arithmetic of matrix products; auto takes bfloat16 where the CPU or GPU multiplies it."""
    compile: bool = False
    """Compile each block with Inductor; pays on runs longer than about five minutes."""
    threads: int = 0
    """CPU threads; 0 takes the cores that this process may use."""
    seed: int = 1
    """Seed of weights, blanks and order."""
    log_every: int = 10
    """Steps between two lines of metrics.jsonl."""
    checkpoint_every: int = 500
    """Steps between two checkpoints; the last step is always saved."""
    keep_checkpoints: int = 2
    """Newest checkpoints that stay on disk."""
    validate_every: int = 0
    """Steps between two validations; 0 validates never. Needs validation data."""

    def __post_init__(self) -> None:
        for name in ("steps", "row_length", "batch_rows", "micro_batch_rows", "log_every",
                     "checkpoint_every", "keep_checkpoints"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError(f"train.{name}={getattr(self, name)} must be at least 1")
        if self.batch_rows % self.micro_batch_rows:
            raise ConfigError(
                f"train.micro_batch_rows={self.micro_batch_rows} must divide "
                f"train.batch_rows={self.batch_rows}"
            )
        if not self.peak_lr > 0:
            raise ConfigError(f"train.peak_lr={self.peak_lr} must be positive")
        if not self.warmup_steps >= 0:
            raise ConfigError(f"train.warmup_steps={self.warmup_steps} must not be negative")
        for name in ("decay_steps", "shrink_hold_steps", "shrink_rise_steps"):
            if getattr(self, name) < 0:
                raise ConfigError(f"train.{name}={getattr(self, name)} must not be negative")
        if self.shrink_hold_steps and not self.shrink_rise_steps:
            raise ConfigError(
                f"train.shrink_hold_steps={self.shrink_hold_steps} needs train.shrink_rise_steps: "
                "without it the share is held for good"
            )
