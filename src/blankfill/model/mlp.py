"""The feed-forward layer: gated (GeGLU, SwiGLU) or plain."""

from __future__ import annotations

from functools import partial
from typing import Final

import torch
from torch import nn
from torch.nn import functional

from blankfill.config.model import ModelConfig
from blankfill.kernels.gate import geglu_in_c
from blankfill.model.linear import Joined, Linear

__all__ = ["GatedMLP", "PlainMLP", "build_mlp"]

ACTIVATIONS: Final = {
    "geglu": functional.gelu,
    "swiglu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "relu": functional.relu,
}
"""What `ModelConfig.activation` names; of a gated layer, what its second half goes through."""


class GatedMLP(nn.Module):
    """GeGLU or SwiGLU (Shazeer 2020): `down(up(x) * activation(gate(x)))`.

    Released checkpoints hold `up` and `gate` as the halves of one matrix, in this order.
    """

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.up = Linear(cfg.hidden_size, cfg.ffn_size)
        self.gate = Linear(cfg.hidden_size, cfg.ffn_size)
        self.down = Linear(cfg.ffn_size, cfg.hidden_size)
        self.activation = ACTIVATIONS[cfg.activation]
        self.joined: Joined | None = None
        """Both layers into the inner width as one, of a model in use."""

    def join(self) -> None:
        """Compute both halves by one product from here on."""
        self.joined = Joined(self.up, self.gate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `[..., D]` to `[..., D]`."""
        if self.joined is not None and self.joined.serves:
            # Torch rounds a function of rows that lie apart otherwise than of one alone.
            up, gate = (half.contiguous() for half in self.joined(x).chunk(2, dim=-1))
        else:
            up, gate = self.up(x), self.gate(x)
        gated = geglu_in_c(up, gate) if self.activation is functional.gelu else None
        return self.down(up * self.activation(gate) if gated is None else gated)


class PlainMLP(nn.Module):
    """Two layers with an activation between: GeLU in its erf or its tanh form, or ReLU."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.up = Linear(cfg.hidden_size, cfg.ffn_size)
        self.down = Linear(cfg.ffn_size, cfg.hidden_size)
        self.activation = ACTIVATIONS[cfg.activation]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `[..., D]` to `[..., D]`."""
        return self.down(self.activation(self.up(x)))


def build_mlp(cfg: ModelConfig) -> GatedMLP | PlainMLP:
    """Build the layer that `cfg.activation` names."""
    return GatedMLP(cfg) if cfg.is_gated else PlainMLP(cfg)
