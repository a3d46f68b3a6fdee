"""The GLM: embedding, blocks, final norm, one linear output layer.

The model keeps four promises to those who lay it out over devices, and a test holds them:

- it knows no device, rank, file or environment; the constructor works on the meta device, and
  values come from `model.init.init_weights`;
- a part that is None passes its input through, and `blocks`, keyed "0".."N-1", may be any slice;
- widths come from tensors, so a module whose matrices were cut to some of the heads still works;
- the loss over targets is part of the model's call.

Shapes: B rows, T positions, D hidden, V vocabulary, n targets.
"""

from __future__ import annotations

import torch
from torch import nn

from blankfill.config.model import ModelConfig
from blankfill.model.attention import pick
from blankfill.model.block import build_block
from blankfill.model.cache import Cache
from blankfill.model.dropout import Draws
from blankfill.model.embedding import Embedding, shrink_gradient
from blankfill.model.head import Head
from blankfill.model.linear import Matrix
from blankfill.model.loss import Loss
from blankfill.model.masks import Mask
from blankfill.model.quantized import QuantizedTable
from blankfill.model.rope import Rotation, rotation_of
from blankfill.model.targets import Targets

__all__ = ["GLM", "device_of"]


class GLM(nn.Module):
    """A General Language Model (Du et al. 2022; Zeng et al. 2022)."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.embed: Embedding | None = Embedding(cfg)
        self.blocks = nn.ModuleDict(
            {str(layer): build_block(cfg, layer) for layer in range(cfg.num_layers)}
        )
        # Post-LN's last block ends in a norm of its own.
        self.norm: nn.Module | None = (
            nn.LayerNorm(cfg.hidden_size, eps=cfg.norm_eps) if cfg.has_final_norm else nn.Identity()
        )
        self.head: Head | None = Head(cfg)

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        mask: Mask | None,
        cache: Cache | None = None,
        *,
        targets: Targets | None = None,
        z_loss: float = 0.0,
        shrink: float | None = None,
        draws: Draws | None = None,
    ) -> torch.Tensor | Loss:
        """Compute the last hidden states, or the loss of the targets.

        Only positions with a target are scored, and the last block's queries, its output and its
        feed-forward layer touch no other position: with a third of the positions as targets, that
        saves about half of one block.

        Args:
            tokens: `[B, T]` ids; `[B, T, D]` hidden states where there is no embedding.
            positions: `[B, 2, T]` position in the text, position inside the span.
            mask: who sees whom; None where the cache knows.
            cache: earlier keys and values, to which those of `tokens` are added.
            targets: what is to be predicted, and where.
            z_loss: as for `loss.target_loss`.
            shrink: share of the gradient that reaches the word embedding, which a training schedule
                may raise; the configuration's where not given.
            draws: what dropout follows from, layer by layer; torch's generator where not given.

        Returns:
            `[B, T, D]` after the final norm, which `logits` turns into scores; with targets their
            loss. Without a head hidden states either way.
        """
        share = self.cfg.embedding_gradient_shrink if shrink is None else shrink
        wanted = None if targets is None or self.head is None else targets.index
        of_embedding = draws and draws.layer(self.cfg.num_layers)
        h = tokens if self.embed is None else self.embed(tokens, positions, share, of_embedding)
        rotation = self.rotation(positions, h.dtype)
        blocks = list(self.blocks.values())
        for number, block in self.blocks.items():
            last = wanted if block is blocks[-1] else None
            h = block(h, rotation, mask, cache, last, draws and draws.layer(int(number)))
        h = h if blocks else pick(h, wanted)
        h = h if self.norm is None else self.norm(h)
        if targets is None or self.head is None:
            return h
        return self.head(h, self._tied(share), targets, z_loss)

    @property
    def head_weight(self) -> torch.Tensor:
        """`[V, D]` matrix of the output layer."""
        matrix = None if self.head is None else self.head.weight
        if matrix is None:
            assert self.embed is not None, "this part of a model has no output layer"
            return self.embed.word.weight
        return matrix

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Score every token of the vocabulary: `[..., D]` to `[..., V]`."""
        assert self.head is not None, "this part of a model has no output layer"
        return self.head(hidden, self._tied(self.cfg.embedding_gradient_shrink))

    def _tied(self, share: float) -> Matrix | None:
        """Give the embedding's matrix for the head; None where there is no embedding."""
        if self.embed is None:
            return None
        word: nn.Module = self.embed.word
        if isinstance(word, QuantizedTable):  # it has no gradient
            return word.weight
        return shrink_gradient(self.embed.word.weight, share if self.cfg.shrink_head else 1.0)

    def rotation(self, positions: torch.Tensor, dtype: torch.dtype) -> Rotation | None:
        """Give the rotation of `[B, 2, T]` positions; None where they are learned embeddings."""
        if not self.cfg.positions.startswith("rope"):
            return None
        num_parts = 2 if self.cfg.positions == "rope_2d" else 1
        return rotation_of(
            positions, self.cfg.head_size, num_parts, dtype, angles=self.cfg.rope_angles
        )


def device_of(model: nn.Module) -> torch.device:
    """Tell where a model's weights are."""
    return next(model.parameters()).device
