"""Attention: softmax(q k^T / sqrt(H)) v under a mask, by explicit products.

On CPU the explicit products beat `scaled_dot_product_attention` in training, whose backward pass
takes several times its forward; and grouped examples beat the square of a packed row, most of
which nobody sees. `packed_attention` has its own backward, so that no gradient is ever scattered.

Shapes: B rows, T positions, N heads, H head size, G examples in a group, L its padded length.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from blankfill.config.model import ModelConfig
from blankfill.model.cache import KVCache
from blankfill.model.masks import DenseMask, PackedMask
from blankfill.model.rope import Rotation, rotate

__all__ = ["Attention", "dense_attention", "packed_attention"]


class Attention(nn.Module):
    """Multi-head self-attention with biases; rows of the fused weight are all Q, all K, all V."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.head_size = cfg.head_size
        self.qkv = nn.Linear(cfg.hidden_size, 3 * cfg.hidden_size)
        self.out = nn.Linear(cfg.hidden_size, cfg.hidden_size)
        self.q_norm: nn.LayerNorm | None = None
        self.k_norm: nn.LayerNorm | None = None
        if cfg.qk_norm:
            self.q_norm = nn.LayerNorm(cfg.head_size, eps=cfg.norm_eps)
            self.k_norm = nn.LayerNorm(cfg.head_size, eps=cfg.norm_eps)
        self.pb_relax = cfg.pb_relax
        self.dropout = cfg.attention_dropout_rate

    def forward(
        self,
        x: torch.Tensor,
        rotation: Rotation | None,
        mask: PackedMask | DenseMask,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> torch.Tensor:
        """Attend.

        Args:
            x: `[B, T, D]`.
            rotation: of the positions of `x`; None where positions are learned embeddings.
            mask: who sees whom; over cached and new keys where there is a cache.
            cache: keys and values so far; those of `x` are appended.
            layer: number of this block, for the cache.

        Returns:
            `[B, T, D]`.
        """
        B, T, D = x.shape
        qkv = self.qkv(x).view(B, T, 3, -1, self.head_size)
        qk, v = qkv[:, :, :2], qkv[:, :, 2]
        if self.q_norm is not None and self.k_norm is not None:
            qk = torch.stack([self.q_norm(qk[:, :, 0]), self.k_norm(qk[:, :, 1])], dim=2)
        if rotation is not None:
            qk = rotate(qk.flatten(2, 3), rotation).unflatten(2, (2, -1))
        q, k = qk.unbind(2)  # each [B, T, N, H]
        scale = 1 / math.sqrt(self.head_size)
        if self.pb_relax:
            # PB-relax (Zeng et al. 2022; Ding et al. 2021): the product of q and k, which float16
            # could not hold, is computed pb_relax times smaller and scaled back in float32. What
            # it subtracts before the softmax is the identity on one that subtracts each row's
            # maximum in float32, as ours does.
            q, scale = q * (scale / self.pb_relax), self.pb_relax
        dropout = self.dropout if self.training else 0.0
        if isinstance(mask, PackedMask):
            attended = packed_attention(q, k, v, mask, dropout, scale)
        else:
            if cache is not None:
                k, v = cache.append(layer, k, v)
            attended = dense_attention(q, k, v, mask, dropout, scale)
        return self.out(attended.reshape(B, T, D))


def dense_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: DenseMask,
    dropout: float = 0.0,
    scale: float | None = None,
) -> torch.Tensor:
    """Attend under any mask.

    Args:
        q: `[B, Tq, N, H]`.
        k: `[B, Tk, N, H]`.
        v: `[B, Tk, N, H]`.
        mask: `[B or 1, Tq, Tk]`; each query must see at least one key.
        dropout: rate on the attention weights.
        scale: of the scores, applied in float32; 1 / sqrt(H) where not given.

    Returns:
        `[B, Tq, N, H]`.
    """
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    scores = torch.einsum("bqnh,bknh->bnqk", q, k).to(_wide(q)) * scale
    scores = scores.masked_fill(~mask.visible[:, None], float("-inf"))
    weights = nn.functional.dropout(scores.softmax(dim=-1), dropout, dropout > 0)
    return torch.einsum("bnqk,bknh->bqnh", weights.to(v.dtype), v)


def packed_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: PackedMask,
    dropout: float = 0.0,
    scale: float | None = None,
) -> torch.Tensor:
    """Attend within each example of packed rows.

    Args:
        q: `[B, T, N, H]`; k and v alike.
        k: keys.
        v: values.
        mask: the examples.
        dropout: rate on the attention weights.
        scale: of the scores, applied in float32; 1 / sqrt(H) where not given.

    Returns:
        `[B, T, N, H]`; zero on padding.
    """
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    return _PackedAttention.apply(q, k, v, mask, dropout, scale)  # pyright: ignore[reportReturnType]  # apply is untyped


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the base has *args
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        mask: PackedMask,
        dropout: float,
        scale: float,
    ) -> torch.Tensor:
        flat = [x.reshape(-1, *x.shape[2:]) for x in (q, k, v)]  # [B*T, N, H]
        saved: list[torch.Tensor] = []
        outputs: list[torch.Tensor] = []
        for group in mask.groups:
            qg, kg, vg = (_gather(x, group.index, group.size) for x in flat)  # [G, N, L, H]
            scores = (
                torch.matmul(qg, kg.transpose(-1, -2)).to(_wide(q)).mul_(scale).add_(group.bias)
            )
            weights = scores.softmax(dim=-1).to(q.dtype)
            keep = weights
            if dropout:
                keep = nn.functional.dropout(weights, dropout)
            outputs.append(_slots(torch.matmul(keep, vg)))
            saved += [qg, kg, vg, weights, keep]
        ctx.save_for_backward(*saved)
        ctx.mask, ctx.scale, ctx.dropout = mask, scale, dropout
        return _back(outputs, mask, q)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]  # as above
        mask: PackedMask = ctx.mask
        flat = grad.reshape(-1, *grad.shape[2:])
        grads: list[list[torch.Tensor]] = [[], [], []]
        for i, group in enumerate(mask.groups):
            qg, kg, vg, weights, keep = ctx.saved_tensors[5 * i : 5 * i + 5]
            # Padding slots hold a copy of some real position, whose gradient is not theirs.
            gg = _gather(flat, group.index, group.size).to(vg.dtype).mul_(group.real)
            grad_v = torch.matmul(keep.transpose(-1, -2), gg)
            grad_keep = torch.matmul(gg, vg.transpose(-1, -2)).to(_wide(gg))
            if ctx.dropout:
                grad_keep *= (keep != 0) / (1 - ctx.dropout)
            grad_keep.mul_(weights)
            grad_scores = grad_keep.sub_(weights * grad_keep.sum(dim=-1, keepdim=True))
            grad_scores = grad_scores.mul_(ctx.scale).to(qg.dtype)
            grads[0].append(_slots(torch.matmul(grad_scores, kg)))
            grads[1].append(_slots(torch.matmul(grad_scores.transpose(-1, -2), qg)))
            grads[2].append(_slots(grad_v))
        return (*(_back(parts, mask, grad) for parts in grads), None, None, None)


def _gather(flat: torch.Tensor, index: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Lay positions out as `[G, N, L, H]`."""
    return flat.index_select(0, index).view(*size, *flat.shape[1:]).transpose(1, 2).contiguous()


def _wide(x: torch.Tensor) -> torch.dtype:
    """Softmax and its gradient are computed in float32, or wider where the input is."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _slots(x: torch.Tensor) -> torch.Tensor:
    """Turn `[G, N, L, H]` into `[G * L, N, H]`."""
    return x.transpose(1, 2).flatten(0, 1)


def _back(parts: list[torch.Tensor], mask: PackedMask, like: torch.Tensor) -> torch.Tensor:
    """Bring slots back to `[B, T, N, H]`, zeros on padding."""
    zero = like.new_zeros(1, *like.shape[2:], dtype=parts[0].dtype if parts else like.dtype)
    return torch.cat([*parts, zero]).index_select(0, mask.inverse).view_as(like)
