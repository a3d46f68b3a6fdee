"""The GLM: embedding, blocks, final norm, one linear output layer.

The model knows nothing of devices, ranks or files. `blocks` is keyed "0".."N-1"; the constructor
works on the meta device; values come from `model.init.init_weights`.

Shapes: B rows, T positions, D hidden, V vocabulary, n wanted positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

from blankfill.config.model import ModelConfig
from blankfill.model.block import build_block
from blankfill.model.cache import KVCache
from blankfill.model.embedding import Embedding, shrink_gradient
from blankfill.model.masks import Mask, PackedMask, VarlenMask
from blankfill.model.rope import Rotation, rotation_of

__all__ = ["GLM", "compile_block", "device_of", "mark_varying"]


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
        self._compiled: list[Callable[..., torch.Tensor]] = []

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
        rotation = self.rotation(positions, h.dtype)
        blocks: Iterable[Callable[..., torch.Tensor]] = self.blocks.values()
        if self._compiled and self.training:
            mark_varying(mask, wanted)
            blocks = self._compiled
        *before, last = blocks
        for block in before:
            h = block(h, rotation, mask, cache)
        h = last(h, rotation, mask, cache, wanted)
        if cache is not None:
            cache.advance(tokens.shape[1])
        return self.norm(h)

    def compile_blocks(self, *, one_graph: bool = True) -> None:
        """Compile the blocks for training; scoring and filling, of many shapes, stay as they are.

        Two graphs serve every batch: one all blocks but the last, one the last. Neither knows the
        sizes of the batch that it was made from, so a resumed run computes with the same ones.

        Args:
            one_graph: refuse a block that is more than one graph; else it is computed in parts.
        """
        self._compiled = [
            compile_block(block, one_graph=one_graph) for block in self.blocks.values()
        ]

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


def compile_block(block: nn.Module, *, one_graph: bool = True) -> Callable[..., torch.Tensor]:
    """Compile one block; blocks of a model share the graph. See `mark_varying`."""
    return torch.compile(block.forward, fullgraph=one_graph, dynamic=False)


def mark_varying(mask: Mask, wanted: torch.Tensor | None = None) -> None:
    """Tell `torch.compile` which sizes differ from batch to batch and are not to be built in."""
    from torch._dynamo.decorators import mark_unbacked  # loads the compiler

    varying: list[torch.Tensor] = []
    if isinstance(mask, PackedMask):
        varying = [mask.table]
    elif isinstance(mask, VarlenMask):
        varying = mask.varying
    for tensor in varying if wanted is None else [*varying, wanted]:
        mark_unbacked(tensor, 0)
