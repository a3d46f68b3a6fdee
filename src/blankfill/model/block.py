"""One transformer block, in the two published arrangements of norms and residuals."""

from __future__ import annotations

import torch
from torch import nn

from blankfill.config.model import ModelConfig
from blankfill.model.attention import Attention
from blankfill.model.cache import KVCache
from blankfill.model.masks import DenseMask, PackedMask
from blankfill.model.mlp import build_mlp
from blankfill.model.rope import Rotation

__all__ = ["DeepNormBlock", "PreLNBlock", "build_block"]


class PreLNBlock(nn.Module):
    """Pre-LN, as GLM up to 10B: `y = x + attn(LN(x)); z = y + mlp(LN(y))`."""

    def __init__(self, cfg: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.attention_norm = nn.LayerNorm(cfg.hidden_size, eps=cfg.norm_eps)
        self.attention = Attention(cfg)
        self.mlp_norm = nn.LayerNorm(cfg.hidden_size, eps=cfg.norm_eps)
        self.mlp = build_mlp(cfg)
        self.dropout = nn.Dropout(cfg.dropout)

    def forward(
        self,
        x: torch.Tensor,
        rotation: Rotation | None,
        mask: PackedMask | DenseMask,
        cache: KVCache | None = None,
    ) -> torch.Tensor:
        """Map `[B, T, D]` to `[B, T, D]`."""
        attended = self.attention(self.attention_norm(x), rotation, mask, cache, self.layer)
        x = x + self.dropout(attended)
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class DeepNormBlock(nn.Module):
    """DeepNorm as GLM-130B's code has it: the residual is taken from the normalised value.

    `a = LN(x); x = alpha * a + attn(a); m = LN(x); x = alpha * m + mlp(m)`, alpha by the law that
    the configuration names (Zeng et al. 2022, section 2.1). Over a whole stack it is Post-LN with
    `LN(alpha * x + f(x))`, one more norm on the embeddings, and the last one outside.
    """

    def __init__(self, cfg: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.alpha = cfg.deepnorm_alpha
        self.attention_norm = nn.LayerNorm(cfg.hidden_size, eps=cfg.norm_eps)
        self.attention = Attention(cfg)
        self.mlp_norm = nn.LayerNorm(cfg.hidden_size, eps=cfg.norm_eps)
        self.mlp = build_mlp(cfg)
        self.dropout = nn.Dropout(cfg.dropout)

    def forward(
        self,
        x: torch.Tensor,
        rotation: Rotation | None,
        mask: PackedMask | DenseMask,
        cache: KVCache | None = None,
    ) -> torch.Tensor:
        """Map `[B, T, D]` to `[B, T, D]`."""
        a = self.attention_norm(x)
        attended = self.attention(a, rotation, mask, cache, self.layer)
        m = self.mlp_norm(torch.add(self.dropout(attended), a, alpha=self.alpha))
        return torch.add(self.dropout(self.mlp(m)), m, alpha=self.alpha)


def build_block(cfg: ModelConfig, layer: int) -> PreLNBlock | DeepNormBlock:
    """Build block number `layer` of the arrangement that `cfg.block` names."""
    return (PreLNBlock if cfg.block == "pre_ln" else DeepNormBlock)(cfg, layer)
