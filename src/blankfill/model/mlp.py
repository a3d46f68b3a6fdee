"""The feed-forward layer: gated (GeGLU) or plain."""

from __future__ import annotations

import torch
from torch import nn

from blankfill.config.model import ModelConfig

__all__ = ["GatedMLP", "PlainMLP", "build_mlp"]


class GatedMLP(nn.Module):
    """GeGLU (Shazeer 2020) in GLM-130B's order: the linear half first, then the gated half."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(cfg.hidden_size, 2 * cfg.ffn_size)
        self.down = nn.Linear(cfg.ffn_size, cfg.hidden_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `[..., D]` to `[..., D]`."""
        linear, gate = self.up(x).chunk(2, dim=-1)
        return self.down(linear * nn.functional.gelu(gate))


class PlainMLP(nn.Module):
    """Two layers with a GeLU between, in its erf or its tanh form."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(cfg.hidden_size, cfg.ffn_size)
        self.down = nn.Linear(cfg.ffn_size, cfg.hidden_size)
        self.approximate = "tanh" if cfg.activation == "gelu_tanh" else "none"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `[..., D]` to `[..., D]`."""
        return self.down(nn.functional.gelu(self.up(x), approximate=self.approximate))


def build_mlp(cfg: ModelConfig) -> GatedMLP | PlainMLP:
    """Build the layer that `cfg.activation` names."""
    return GatedMLP(cfg) if cfg.activation == "geglu" else PlainMLP(cfg)
