"""Word embedding, and the learned position tables of the first GLMs."""

from __future__ import annotations

import torch
from torch import nn

from blankfill.config.model import ModelConfig

__all__ = ["Embedding"]


class Embedding(nn.Module):
    """Looks words up; adds two learned position embeddings where the model has them."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(cfg.vocab_size, cfg.hidden_size)
        self.shrink = cfg.embedding_gradient_shrink
        self.position: nn.Embedding | None = None
        self.block_position: nn.Embedding | None = None
        if cfg.positions == "learned_2d":
            # Ids 0..max_position, so max_position + 1 rows (GLM mpu/transformer.py).
            self.position = nn.Embedding(cfg.max_position + 1, cfg.hidden_size)
            self.block_position = nn.Embedding(cfg.max_position + 1, cfg.hidden_size)
        self.dropout = nn.Dropout(cfg.dropout)

    def forward(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Embed.

        Args:
            tokens: `[B, T]`.
            positions: `[B, 2, T]`.

        Returns:
            `[B, T, D]`.
        """
        h = self.word(tokens)
        if self.shrink != 1.0:
            # Zeng et al. 2022, section 3: only this share of the gradient reaches the table.
            h = self.shrink * h + (1 - self.shrink) * h.detach()
        if self.position is not None and self.block_position is not None:
            h = h + self.position(positions[:, 0]) + self.block_position(positions[:, 1])
        return self.dropout(h)
