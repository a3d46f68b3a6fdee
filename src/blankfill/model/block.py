"""One transformer block: the published arrangements of norms and residuals, each a class.

All share the names of their parts, so that a checkpoint of one arrangement names its tensors as
any other does: `attention_norm`, `attention`, `mlp_norm`, `mlp`.

Shapes: B rows, T positions, D hidden, n wanted positions.
"""

from __future__ import annotations

import torch
from torch import nn

from blankfill.config.model import ModelConfig
from blankfill.model.attention import Attention, pick
from blankfill.model.cache import Cache
from blankfill.model.dropout import ATTENDED, FED, Draws, Dropout
from blankfill.model.masks import Mask
from blankfill.model.mlp import build_mlp
from blankfill.model.rope import Rotation

__all__ = ["Block", "DeepNormBlock", "PostLNBlock", "PreLNBlock", "SandwichBlock", "build_block"]


class PreLNBlock(nn.Module):
    """Pre-LN, as GLM up to 10B: `y = x + attn(LN(x)); z = y + mlp(LN(y))`."""

    def __init__(self, cfg: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = _norm(cfg)
        self.attention = Attention(cfg, layer)
        self.mlp_norm = _norm(cfg)
        self.mlp = build_mlp(cfg)
        self.dropout = Dropout(cfg.dropout)

    def forward(
        self,
        x: torch.Tensor,
        rotation: Rotation | None,
        mask: Mask | None,
        cache: Cache | None = None,
        wanted: torch.Tensor | None = None,
        draws: Draws | None = None,
    ) -> torch.Tensor:
        """Map `[B, T, D]` to `[B, T, D]`, or to `[n, D]` at the `wanted` positions."""
        attended = self.attention(self.attention_norm(x), rotation, mask, cache, wanted, draws)
        x = pick(x, wanted) + self.dropout(attended, draws, ATTENDED, wanted)
        return x + self.dropout(self.mlp(self.mlp_norm(x)), draws, FED, wanted)


class DeepNormBlock(nn.Module):
    """DeepNorm as GLM-130B's code has it: the residual is taken from the normalised value.

    `a = LN(x); x = alpha * a + attn(a); m = LN(x); x = alpha * m + mlp(m)`, alpha by the law that
    the configuration names (Zeng et al. 2022, section 2.1). Over a whole stack it is Post-LN with
    `LN(alpha * x + f(x))`, one more norm on the embeddings, and the last one outside.
    """

    def __init__(self, cfg: ModelConfig, layer: int) -> None:
        super().__init__()
        self.alpha = cfg.deepnorm_alpha
        self.attention_norm = _norm(cfg)
        self.attention = Attention(cfg, layer)
        self.mlp_norm = _norm(cfg)
        self.mlp = build_mlp(cfg)
        self.dropout = Dropout(cfg.dropout)

    def forward(
        self,
        x: torch.Tensor,
        rotation: Rotation | None,
        mask: Mask | None,
        cache: Cache | None = None,
        wanted: torch.Tensor | None = None,
        draws: Draws | None = None,
    ) -> torch.Tensor:
        """Map `[B, T, D]` to `[B, T, D]`, or to `[n, D]` at the `wanted` positions."""
        a = self.attention_norm(x)
        attended = self.attention(a, rotation, mask, cache, wanted, draws)
        m = self.mlp_norm(
            torch.add(
                self.dropout(attended, draws, ATTENDED, wanted), pick(a, wanted), alpha=self.alpha
            )
        )
        return torch.add(self.dropout(self.mlp(m), draws, FED, wanted), m, alpha=self.alpha)


class PostLNBlock(nn.Module):
    """Post-LN: `y = LN(alpha * x + attn(x)); z = LN(alpha * y + mlp(y))`.

    With alpha 1 it is the first Transformer's (Vaswani et al. 2017); with DeepNorm's alpha it is
    DeepNorm as its paper and GLM-130B's have it (Wang et al. 2022, figure 2; Zeng et al. 2022,
    section 2.1). The last block ends the model in its own norm.
    """

    def __init__(self, cfg: ModelConfig, layer: int) -> None:
        super().__init__()
        self.alpha = cfg.deepnorm_alpha
        self.attention = Attention(cfg, layer)
        self.attention_norm = _norm(cfg)
        self.mlp = build_mlp(cfg)
        self.mlp_norm = _norm(cfg)
        self.dropout = Dropout(cfg.dropout)

    def forward(
        self,
        x: torch.Tensor,
        rotation: Rotation | None,
        mask: Mask | None,
        cache: Cache | None = None,
        wanted: torch.Tensor | None = None,
        draws: Draws | None = None,
    ) -> torch.Tensor:
        """Map `[B, T, D]` to `[B, T, D]`, or to `[n, D]` at the `wanted` positions."""
        attended = self.attention(x, rotation, mask, cache, wanted, draws)
        x = pick(x, wanted)
        y = self.attention_norm(
            torch.add(self.dropout(attended, draws, ATTENDED, wanted), x, alpha=self.alpha)
        )
        return self.mlp_norm(
            torch.add(self.dropout(self.mlp(y), draws, FED, wanted), y, alpha=self.alpha)
        )


class SandwichBlock(nn.Module):
    """Sandwich-LN: `y = x + LN(attn(LN(x))); z = y + LN(mlp(LN(y)))`.

    Pre-LN with one more norm on each branch (Ding et al. 2021, CogView; offered by GLM-130B's code
    and by SAT, whose third and fourth LayerNorm they are).
    """

    def __init__(self, cfg: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = _norm(cfg)
        self.attention = Attention(cfg, layer)
        self.attention_out_norm = _norm(cfg)
        self.mlp_norm = _norm(cfg)
        self.mlp = build_mlp(cfg)
        self.mlp_out_norm = _norm(cfg)
        self.dropout = Dropout(cfg.dropout)

    def forward(
        self,
        x: torch.Tensor,
        rotation: Rotation | None,
        mask: Mask | None,
        cache: Cache | None = None,
        wanted: torch.Tensor | None = None,
        draws: Draws | None = None,
    ) -> torch.Tensor:
        """Map `[B, T, D]` to `[B, T, D]`, or to `[n, D]` at the `wanted` positions."""
        attended = self.attention(self.attention_norm(x), rotation, mask, cache, wanted, draws)
        x = pick(x, wanted) + self.attention_out_norm(
            self.dropout(attended, draws, ATTENDED, wanted)
        )
        return x + self.mlp_out_norm(self.dropout(self.mlp(self.mlp_norm(x)), draws, FED, wanted))


Block = PreLNBlock | DeepNormBlock | PostLNBlock | SandwichBlock
"""Any block."""


def build_block(cfg: ModelConfig, layer: int) -> Block:
    """Build block number `layer` of the arrangement that `cfg.block` names."""
    kinds: dict[str, type[Block]] = {
        "pre_ln": PreLNBlock,
        "deepnorm": DeepNormBlock,
        "deepnorm_paper": PostLNBlock,
        "post_ln": PostLNBlock,
        "sandwich": SandwichBlock,
    }
    return kinds[cfg.block](cfg, layer)


def _norm(cfg: ModelConfig) -> nn.LayerNorm:
    return nn.LayerNorm(cfg.hidden_size, eps=cfg.norm_eps)
