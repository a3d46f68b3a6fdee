"""The output layer.

Shapes: D hidden, V vocabulary, n targets.
"""

from __future__ import annotations

import torch
from torch import nn

from blankfill.config.model import ModelConfig
from blankfill.model.linear import Matrix, product
from blankfill.model.loss import Loss, VocabularyPart, target_loss
from blankfill.model.targets import Targets

__all__ = ["Head"]


class Head(nn.Module):
    """Scores every token of the vocabulary, without a bias.

    A tied one has no matrix of its own and is called with the embedding's.
    """

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        matrix = None if cfg.tie_head else torch.empty(cfg.vocab_size, cfg.hidden_size)
        self.weight = None if matrix is None else nn.Parameter(matrix)
        self.part: VocabularyPart | None = None
        """Where the matrix has some rows of the vocabulary's alone."""

    def forward(
        self, hidden: torch.Tensor, tied: Matrix | None = None,
        targets: Targets | None = None, z_loss: float = 0.0,
    ) -> torch.Tensor | Loss:  # fmt: skip
        """Score hidden states, or give the loss of their targets without scoring them all at once.

        Args:
            hidden: `[..., D]`, or `[n, D]` of the positions with a target.
            tied: `[V, D]` the embedding's matrix, where there is no other.
            targets: what the positions are to predict.
            z_loss: as for `target_loss`.

        Returns:
            `[..., V]` scores, or the loss.
        """
        matrix = tied if self.weight is None else self.weight
        assert matrix is not None, "a tied head needs the embedding's matrix"
        if targets is None:
            scores = product(hidden, matrix)
            return scores if self.part is None else self.part.joined(scores)
        return target_loss(hidden, matrix, targets, z_loss, self.part)
