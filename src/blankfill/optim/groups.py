"""Which tensors are decayed, and the fused AdamW over them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from blankfill.config.train import TrainConfig

__all__ = ["build_optimizer", "parameter_groups"]


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the parameters into decayed and not decayed.

    Matrices and embeddings are decayed; biases and LayerNorms, which are vectors, are not
    (GLM `modeling_glm.py`; Megatron's convention).

    Returns:
        Two groups for a torch optimizer, each in the model's order.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for _, p in named if p.ndim >= 2]
    kept = [p for _, p in named if p.ndim < 2]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]


def build_optimizer(model: nn.Module, cfg: TrainConfig) -> torch.optim.AdamW:
    """Build AdamW (Loshchilov and Hutter 2019) in torch's fused form, four times the plain one."""
    return torch.optim.AdamW(
        parameter_groups(model, cfg.weight_decay),
        lr=cfg.peak_lr,
        betas=(cfg.beta1, cfg.beta2),
        eps=cfg.eps,
        fused=True,
    )
