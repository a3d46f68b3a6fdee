"""A GLM in plain torch: embedding, blocks, norm, output layer; every published architecture.

Sources: Du et al. 2022 (GLM), Zeng et al. 2022 (GLM-130B), and their released code. The names of
the weights are those of blankfill's own checkpoints. No buffers: everything but the weights is
computed from the configuration.

Plain torch; this file needs nothing beside it. Shapes: B rows, T new positions, S cached ones,
D hidden, N heads, H head size, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = ["Network", "mean_loss"]

_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "geglu": functional.gelu,
    "swiglu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "relu": functional.relu,
}
_GATED = ("geglu", "swiglu")


class Network(nn.Module):
    """Tokens and positions to hidden states and logits."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.embed = Embedding(config)
        self.blocks = nn.ModuleDict(
            {str(layer): Block(config, layer) for layer in range(config.num_layers)}
        )
        # Post-LN's last block ends in a norm of its own.
        ends_in_norm = config.block in ("post_ln", "deepnorm_paper")
        self.norm = nn.Identity() if ends_in_norm else _norm(config)
        self.head: nn.Linear | None = None
        if not config.tie_head:
            self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.gradient_checkpointing = False
        self._gradient_checkpointing_func: Callable[..., torch.Tensor] | None = None

    def forward(
        self,
        tokens: torch.Tensor | None,
        positions: torch.Tensor,
        visible: torch.Tensor,
        cache: Any = None,
        embeddings: torch.Tensor | None = None,
        *,
        hidden_states: list[torch.Tensor] | None = None,
        attentions: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Compute the last hidden states.

        Args:
            tokens: `[B, T]` ids.
            positions: `[B, 2, T]` position in the text, position inside the span.
            visible: `[B, 1, T, S + T]` true where the query sees the key.
            cache: anything with `update(keys, values, layer)` that stores `[B, N, T, H]` and
                returns all keys and values so far.
            embeddings: `[B, T, D]` in place of those of `tokens`.
            hidden_states: a list that takes what enters each block, and what is returned.
            attentions: a list that takes the weights of each block, `[B, N, T, S + T]`.

        Returns:
            `[B, T, D]` after the last norm.

        Raises:
            ValueError: attentions are asked for while blocks are computed twice.
        """
        recomputes = self.gradient_checkpointing and self.training
        if recomputes and attentions is not None:
            raise ValueError(
                "gradient checkpointing computes every block twice and gives no attentions; leave "
                "output_attentions out, or call gradient_checkpointing_disable()"
            )
        h = self.embed(tokens, positions, embeddings)
        rotation = self._rotation(positions, h.dtype)
        for block in self.blocks.values():
            if hidden_states is not None:
                hidden_states.append(h)
            if recomputes and self._gradient_checkpointing_func:
                h = self._gradient_checkpointing_func(block.__call__, h, rotation, visible, None)
            else:
                h = block(h, rotation, visible, cache, attentions)
        h = self.norm(h)
        if hidden_states is not None:
            hidden_states.append(h)
        return h

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Score every token of the vocabulary: `[..., D]` to `[..., V]`.

        Raises:
            ValueError: the embedding, which is the output layer too, is not in memory.
        """
        if self.head is not None:
            return self.head(hidden)
        share = self.config.embedding_gradient_shrink if self.config.shrink_head else 1.0
        weight = self.embed.word.weight
        if weight.is_meta and not hidden.is_meta:
            raise ValueError(
                "the device_map keeps network.embed in another place than a device; the embedding "
                "is the output layer too, so put network.embed on a device"
            )
        # Where the blocks are spread over devices, the last is not the embedding's.
        return functional.linear(hidden.to(weight.device), _shrink(weight, share))

    def _rotation(
        self, positions: torch.Tensor, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Cosines and sines, each `[B, T, 1, parts, P / 2]`; half-split pairs, base 10,000."""
        if not self.config.positions.startswith("rope"):
            return None
        parts = 2 if self.config.positions == "rope_2d" else 1
        width = self.config.hidden_size // self.config.num_heads // parts
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        exponent = torch.arange(0, width, 2, device=positions.device, dtype=wide) / width
        frequency = 10_000.0**-exponent
        if self.config.rope_angles == "float16":  # as ChatGLM-6B's released code rounds them
            frequency = (1 / 10_000.0 ** exponent.float()).half().to(wide)
        angle = positions[:, :parts, :, None].to(wide) * frequency
        angle = angle.transpose(1, 2).unsqueeze(2)
        return angle.cos().to(dtype), angle.sin().to(dtype)


class Embedding(nn.Module):
    """Looks words up; adds two learned position embeddings where the model has them."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.hidden_size)
        self.share = config.embedding_gradient_shrink
        self.position: nn.Embedding | None = None
        self.block_position: nn.Embedding | None = None
        if config.positions == "learned_2d":
            self.position = nn.Embedding(config.max_position + 1, config.hidden_size)
            self.block_position = nn.Embedding(config.max_position + 1, config.hidden_size)
        self.dropout = nn.Dropout(_or(config.embedding_dropout, config.dropout))

    def forward(
        self,
        tokens: torch.Tensor | None,
        positions: torch.Tensor,
        embeddings: torch.Tensor | None,
    ) -> torch.Tensor:
        """Embed `[B, T]` ids, or take `[B, T, D]` embeddings: `[B, T, D]`."""
        assert tokens is not None or embeddings is not None
        h = _shrink(self.word(tokens) if embeddings is None else embeddings, self.share)
        if self.position is not None and self.block_position is not None:
            h = h + self.position(positions[:, 0]) + self.block_position(positions[:, 1])
        return self.dropout(h)


class Block(nn.Module):
    """One transformer block, in any of the published arrangements of norms and residuals."""

    def __init__(self, config: Any, layer: int) -> None:
        super().__init__()
        self.kind, self.alpha = config.block, config.residual_alpha
        self.attention_norm, self.mlp_norm = _norm(config), _norm(config)
        self.attention, self.mlp = Attention(config, layer), MLP(config)
        if self.kind == "sandwich":
            self.attention_out_norm, self.mlp_out_norm = _norm(config), _norm(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: torch.Tensor,
        rotation: tuple[torch.Tensor, torch.Tensor] | None,
        visible: torch.Tensor,
        cache: Any = None,
        attentions: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Map `[B, T, D]` to `[B, T, D]`; attention weights are appended to `attentions`."""
        attend = partial(
            self.attention, rotation=rotation, visible=visible, cache=cache, attentions=attentions
        )
        if self.kind == "pre_ln":
            x = x + self.dropout(attend(self.attention_norm(x)))
            return x + self.dropout(self.mlp(self.mlp_norm(x)))
        if self.kind == "sandwich":
            x = x + self.attention_out_norm(self.dropout(attend(self.attention_norm(x))))
            return x + self.mlp_out_norm(self.dropout(self.mlp(self.mlp_norm(x))))
        if self.kind == "deepnorm":  # released GLM-130B: the residual is the normalised value
            a = self.attention_norm(x)
            m = self.mlp_norm(self.alpha * a + self.dropout(attend(a)))
            return self.alpha * m + self.dropout(self.mlp(m))
        y = self.attention_norm(self.alpha * x + self.dropout(attend(x)))  # alpha 1: Post-LN
        return self.mlp_norm(self.alpha * y + self.dropout(self.mlp(y)))


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, config: Any, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.num_heads = config.num_heads
        self.q = nn.Linear(config.hidden_size, config.hidden_size)
        self.k = nn.Linear(config.hidden_size, config.hidden_size)
        self.v = nn.Linear(config.hidden_size, config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)
        if config.qk_norm:
            head_size = config.hidden_size // config.num_heads
            self.q_norm = nn.LayerNorm(head_size, eps=config.norm_eps)
            self.k_norm = nn.LayerNorm(head_size, eps=config.norm_eps)
        self.has_norms = config.qk_norm
        self.pb_relax = config.pb_relax
        self.explicit = bool(self.pb_relax) or (
            getattr(config, "_attn_implementation", None) == "eager"
        )
        self.dropout = _or(config.attention_dropout, config.dropout)

    def forward(
        self,
        x: torch.Tensor,
        rotation: tuple[torch.Tensor, torch.Tensor] | None,
        visible: torch.Tensor,
        cache: Any = None,
        attentions: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Map `[B, T, D]` to `[B, T, D]`; attention weights are appended to `attentions`."""
        each = (layer(x) for layer in (self.q, self.k, self.v))
        q, k, v = (y.unflatten(-1, (self.num_heads, -1)) for y in each)  # [B, T, N, H]
        if self.has_norms:
            q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = _rotate(q, rotation), _rotate(k, rotation)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # [B, N, T, H]
        if cache is not None:
            k, v = cache.update(k, v, self.layer)
        # A cache of a fixed size has free room after what it holds.
        if room := k.shape[2] - visible.shape[-1]:
            visible = functional.pad(visible, (0, room))
        dropout = self.dropout if self.training else 0.0
        if self.explicit or attentions is not None:
            attended = self._explicit(q, k, v, visible, dropout, attentions)
        else:
            attended = functional.scaled_dot_product_attention(
                q, k, v, attn_mask=visible, dropout_p=dropout
            )
        return self.out(attended.transpose(1, 2).flatten(2))

    def _explicit(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        visible: torch.Tensor,
        dropout: float,
        attentions: list[torch.Tensor] | None,
    ) -> torch.Tensor:
        """Softmax in float32; with PB-relax the product is computed smaller and scaled back."""
        relax = self.pb_relax or 1.0
        scores = torch.matmul(q * (1 / (math.sqrt(q.shape[-1]) * relax)), k.transpose(-1, -2))
        wide = torch.float64 if scores.dtype == torch.float64 else torch.float32
        scores = (scores.to(wide) * relax).masked_fill(~visible, float("-inf"))
        weights = functional.dropout(scores.softmax(dim=-1), dropout, dropout > 0).to(v.dtype)
        if attentions is not None:
            attentions.append(weights)
        return torch.matmul(weights, v)


class MLP(nn.Module):
    """Feed-forward layer; a gated one multiplies a linear half by an activated one."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.gated = config.activation in _GATED
        self.up = nn.Linear(config.hidden_size, config.ffn_size)
        if self.gated:
            self.gate = nn.Linear(config.hidden_size, config.ffn_size)
        self.down = nn.Linear(config.ffn_size, config.hidden_size)
        self.activation = _ACTIVATIONS[config.activation]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `[..., D]` to `[..., D]`."""
        if not self.gated:
            return self.down(self.activation(self.up(x)))
        return self.down(self.up(x) * self.activation(self.gate(x)))


def mean_loss(
    logits: torch.Tensor, labels: torch.Tensor, num_items: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Compute the mean cross-entropy of the next tokens.

    Args:
        logits: `[B, T, V]`.
        labels: `[B, T]` in line with the tokens, -100 where nothing is to be predicted.
        num_items: targets over which the mean is taken, where gradients of several batches are
            added up; those of this batch where it is None.
    """
    targets = labels[:, 1:].flatten().to(logits.device)
    total = functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), targets, ignore_index=-100, reduction="sum"
    )
    if num_items is None:
        num_items = (targets != -100).sum().clamp(min=1)
    if isinstance(num_items, torch.Tensor):
        num_items = num_items.to(total.device).reshape(())
    return total / num_items


def _norm(config: Any) -> nn.LayerNorm:
    return nn.LayerNorm(config.hidden_size, eps=config.norm_eps)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _rotate(x: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Turn `[B, T, N, H]` queries or keys."""
    cos, sin = rotation
    first, second = x.unflatten(-1, (cos.shape[3], 2, -1)).unbind(-2)
    turned = torch.stack((first * cos - second * sin, second * cos + first * sin), dim=-2)
    return turned.flatten(-3)


def _shrink(x: torch.Tensor, share: float) -> torch.Tensor:
    """Return `x`, with `share` of its gradient (Zeng et al. 2022, section 3)."""
    return x if share == 1.0 else x.detach() + share * (x - x.detach())
