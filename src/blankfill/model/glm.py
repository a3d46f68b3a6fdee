"""The GLM: embedding, blocks, final norm, one linear output layer.

The model knows nothing of devices, ranks or files. `blocks` is keyed "0".."N-1"; the constructor
works on the meta device; values come from `model.init.init_weights`.

Shapes: B rows, T positions, D hidden, V vocabulary, n wanted positions.
"""

from __future__ import annotations

import torch
from torch import nn

from blankfill.config.model import ModelConfig
from blankfill.model.block import build_block
from blankfill.model.cache import KVCache
from blankfill.model.embedding import Embedding, shrink_gradient
from blankfill.model.masks import Mask
from blankfill.model.rope import Rotation, rotation_of

__all__ = ["GLM", "device_of"]


class GLM(nn.Module):
    """A General Language Model (Du et al. 2022; Zeng et al. 2022)."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.embed = Embedding(cfg)
        self.blocks = nn.ModuleDict(
            {str(layer): build_block(cfg, layer) for layer in range(cfg.num_layers)}
        )
        # Post-LN's last block ends in a norm of its own.
        self.norm = (
            nn.LayerNorm(cfg.hidden_size, eps=cfg.norm_eps) if cfg.has_final_norm else nn.Identity()
        )
        self.head = None if cfg.tie_head else nn.Linear(cfg.hidden_size, cfg.vocab_size, bias=False)

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        mask: Mask,
        cache: KVCache | None = None,
        wanted: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Compute the last hidden states.

        Only positions with a target are scored, and the last block's queries, its output and its
        feed-forward layer touch no other position: with a third of the positions as targets, that
        saves about half of one block.

        Args:
            tokens: `[B, T]` ids.
            positions: `[B, 2, T]` position in the text, position inside the span.
            mask: who sees whom; with a cache, `[B, T, cached + T]`.
            cache: earlier keys and values; those of `tokens` are appended to it.
            wanted: `[n]` positions, counted over all rows, whose states are asked for.

        Returns:
            `[B, T, D]` after the final norm, or `[n, D]` where positions are wanted; `logits` turns
            them into scores.
        """
        h = self.embed(tokens, positions)
        rotation = self._rotation(positions, h.dtype)
        *before, last = self.blocks.values()
        for block in before:
            h = block(h, rotation, mask, cache)
        h = last(h, rotation, mask, cache, wanted)
        if cache is not None:
            cache.advance(tokens.shape[1])
        return self.norm(h)

    def compile_blocks(self) -> None:
        """Compile each block by itself."""
        *before, last = self.blocks.values()
        for block in before:
            block.compile(dynamic=False)
        last.compile()  # it works on the wanted positions alone, whose number changes

    @property
    def head_weight(self) -> torch.Tensor:
        """`[V, D]` matrix of the output layer."""
        if self.head is not None:
            return self.head.weight
        share = self.embed.shrink if self.cfg.shrink_head else 1.0
        return shrink_gradient(self.embed.word.weight, share)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Score every token of the vocabulary: `[..., D]` to `[..., V]`."""
        return nn.functional.linear(hidden, self.head_weight)

    def _rotation(self, positions: torch.Tensor, dtype: torch.dtype) -> Rotation | None:
        if not self.cfg.positions.startswith("rope"):
            return None
        num_parts = 2 if self.cfg.positions == "rope_2d" else 1
        return rotation_of(
            positions, self.cfg.head_size, num_parts, dtype, angles=self.cfg.rope_angles
        )


def device_of(model: nn.Module) -> torch.device:
    """Tell where a model's weights are."""
    return next(model.parameters()).device
