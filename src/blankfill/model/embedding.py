"""Word embedding, and the learned position tables of the first GLMs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from blankfill.config.model import ModelConfig
from blankfill.model.dropout import Draws, Dropout

__all__ = ["Embedding", "shrink_gradient"]


class Embedding(nn.Module):
    """Looks words up; adds two learned position embeddings where the model has them."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.word = _table(cfg.vocab_size, cfg.hidden_size)
        self.position: nn.Embedding | None = None
        self.block_position: nn.Embedding | None = None
        if cfg.positions == "learned_2d":
            # Ids 0..max_position, so max_position + 1 rows (GLM mpu/transformer.py).
            self.position = _table(cfg.max_position + 1, cfg.hidden_size)
            self.block_position = _table(cfg.max_position + 1, cfg.hidden_size)
        self.dropout = Dropout(cfg.embedding_dropout_rate)

    def forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, shrink: float = 1.0,
        draws: Draws | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """Embed.

        Args:
            tokens: `[B, T]`.
            positions: `[B, 2, T]`.
            shrink: share of the gradient that reaches the table of words.
            draws: of the layer that the embedding counts as, where dropout has addresses.

        Returns:
            `[B, T, D]`.
        """
        h = shrink_gradient(self.word(tokens), shrink)
        if h.dtype.itemsize < 4:  # a table in 16 bits; what flows through the blocks has 32
            h = h.float()
        if self.position is not None and self.block_position is not None:
            h = h + self.position(positions[:, 0]) + self.block_position(positions[:, 1])
        return self.dropout(h, draws)


def _table(rows: int, width: int) -> nn.Embedding:
    """Make a table without values, which `model.init` gives it.

    nn.Embedding's own normal draw loads the compiler, seconds of it, on the meta device.
    """
    return nn.Embedding.from_pretrained(torch.empty(rows, width), freeze=False)


def shrink_gradient(x: torch.Tensor, share: float) -> torch.Tensor:
    """Return `x`, whose gradient is `share` of what it would be.

    Embedding-gradient shrink, `share * x + (1 - share) * stop_gradient(x)` (Zeng et al. 2022,
    section 3), without the rounding that the sum costs.
    """
    return x if share == 1.0 else _ScaleGradient.apply(x, share)  # pyright: ignore[reportReturnType]  # apply is untyped


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, share: float) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]  # the base has *args
        ctx.share = share
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]  # as above
        return grad * ctx.share, None
