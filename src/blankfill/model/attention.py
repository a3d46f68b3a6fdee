"""Attention: softmax(q k^T / sqrt(H)) v under a mask, in one of four ways.

`packed_attention` multiplies exactly what is visible in packed rows, on any device; it is what a
CPU trains with. `flex_attention` and `varlen_attention` are for CUDA. `dense_attention` takes any
mask, for generation and as the plainest form. On a CPU none of them is
`scaled_dot_product_attention`, whose backward pass takes several times its forward there.

Shapes: B rows, T positions, N heads, H head size, D hidden, n wanted positions.
"""

from __future__ import annotations

import math
from typing import Any, Protocol, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from blankfill.config.model import ModelConfig
from blankfill.kernels.packed import block_attention
from blankfill.model.cache import Cache
from blankfill.model.dropout import ATTENTION, Draws, kept
from blankfill.model.linear import Joined, Linear, is_narrow
from blankfill.model.masks import DenseMask, FlexMask, Mask, PackedMask, VarlenMask
from blankfill.model.rope import Rotation, rotate

__all__ = [
    "Attention",
    "attend",
    "dense_attention",
    "flex_attention",
    "packed_attention",
    "pick",
    "varlen_attention",
    "wide",
]


class Attention(nn.Module):
    """Multi-head self-attention with biases.

    Queries, keys and values have matrices of their own, which one product reads.
    """

    def __init__(self, cfg: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer  # read with a cache alone, so that no compiled graph knows it
        self.head_size = cfg.head_size
        self.q = Linear(cfg.hidden_size, cfg.hidden_size)
        self.k = Linear(cfg.hidden_size, cfg.hidden_size)
        self.v = Linear(cfg.hidden_size, cfg.hidden_size)
        self.out = Linear(cfg.hidden_size, cfg.hidden_size)
        self.q_norm: nn.LayerNorm | None = None
        self.k_norm: nn.LayerNorm | None = None
        if cfg.qk_norm:
            self.q_norm = nn.LayerNorm(cfg.head_size, eps=cfg.norm_eps)
            self.k_norm = nn.LayerNorm(cfg.head_size, eps=cfg.norm_eps)
        self.pb_relax = cfg.pb_relax
        self.dropout = cfg.attention_dropout_rate
        self.recomputes = False
        """Whether training keeps no attention weights, and computes them again in the backward
        pass; flex and varlen never keep them."""
        self.joined: Joined | None = None
        """Queries, keys and values as one layer, of a model in use."""

    def join(self) -> None:
        """Compute queries, keys and values by one product from here on."""
        self.joined = Joined(self.q, self.k, self.v)

    def forward(
        self,
        x: torch.Tensor,
        rotation: Rotation | None,
        mask: Mask | None,
        cache: Cache | None = None,
        wanted: torch.Tensor | None = None,
        draws: Draws | None = None,
    ) -> torch.Tensor:
        """Attend.

        Args:
            x: `[B, T, D]`.
            rotation: of the positions of `x`; None where positions are learned embeddings.
            mask: who sees whom; None where the cache knows.
            cache: keys and values so far, to which those of `x` are added.
            wanted: `[n]` positions, counted over all rows, whose results are asked for.
            draws: of this layer, where dropout has addresses.

        Returns:
            `[B, T, D]`, or `[n, D]` where positions are wanted.
        """
        qkv = self._project(x, wanted, apart=cache is not None).unflatten(
            -1, (3, -1, self.head_size)
        )
        # Split, not sliced: the backward pass of slices adds whole tensors of zeros.
        qk, v = qkv.split([2, 1], dim=2)
        v = v[:, :, 0]
        if self.q_norm is not None and self.k_norm is not None:
            qk = torch.stack([self.q_norm(qk[:, :, 0]), self.k_norm(qk[:, :, 1])], dim=2)
            # Autocast on CUDA gives a norm's result in float32, which FlashAttention refuses.
            qk = qk.to(v.dtype)
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
        if cache is not None:
            attended: Any = cache.attend(self.layer, q, k, v, mask, scale)
            return self.out(pick(attended.flatten(2), wanted))
        assert mask is not None, "without a cache a mask says who sees whom"
        if self.recomputes and self.training and isinstance(mask, PackedMask | DenseMask):
            attended = checkpoint(attend, q, k, v, mask, dropout, scale, draws, use_reentrant=False)
        else:
            attended = attend(q, k, v, mask, dropout, scale, draws)
        return self.out(pick(attended.flatten(2), wanted))

    def _project(
        self, x: torch.Tensor, wanted: torch.Tensor | None, *, apart: bool
    ) -> torch.Tensor:
        """Give queries, keys and values side by side; other queries than the wanted are zero,
        or whatever they are.

        Apart they are three products: of the few positions of a step of generation, joining the
        matrices would cost more than multiplying by them.
        """
        if self.joined is not None and self.joined.serves:
            return self.joined(x)
        if wanted is None and apart:
            return torch.cat([self.q(x), self.k(x), self.v(x)], dim=-1)
        if wanted is None:
            return _joined(x, self.q, self.k, self.v)
        own = self.q(pick(x, wanted))
        queries = own.new_zeros(x.shape[0] * x.shape[1], own.shape[-1]).index_copy(0, wanted, own)
        return torch.cat([queries.view(*x.shape[:2], -1), _joined(x, self.k, self.v)], dim=-1)


def _joined(x: torch.Tensor, *layers: Linear) -> torch.Tensor:
    """Compute layers of one input as one product: their results side by side."""
    if is_narrow(layers[0].weight, x):  # what is in fewer bits is not copied, but used in pieces
        return torch.cat([layer(x) for layer in layers], dim=-1)
    weight = torch.cat([layer.weight for layer in layers])
    return nn.functional.linear(x, weight, torch.cat([layer.bias for layer in layers]))


def pick(x: torch.Tensor, wanted: torch.Tensor | None) -> torch.Tensor:
    """Take the wanted positions, `[B, T, D]` to `[n, D]`; all of them where none are named."""
    return x if wanted is None else x.flatten(0, 1).index_select(0, wanted)


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: Mask,
    dropout: float = 0.0,
    scale: float | None = None,
    draws: Draws | None = None,
) -> torch.Tensor:
    """Attend in the way that the mask is made for; arguments as for `dense_attention`."""
    if isinstance(mask, PackedMask):
        return packed_attention(q, k, v, mask, dropout, scale, draws)
    if isinstance(mask, DenseMask):
        return dense_attention(q, k, v, mask, dropout, scale, draws)
    assert not dropout, "flex and varlen have no dropout; masks.build_mask does not choose them"
    if isinstance(mask, FlexMask):
        return flex_attention(q, k, v, mask, scale)
    return varlen_attention(q, k, v, mask, scale)


def dense_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: DenseMask,
    dropout: float = 0.0,
    scale: float | None = None,
    draws: Draws | None = None,
) -> torch.Tensor:
    """Attend under any mask.

    Args:
        q: `[B, Tq, N, H]`.
        k: `[B, Tk, N, H]`.
        v: `[B, Tk, N, H]`.
        mask: `[B or 1, Tq, Tk]`; each query must see at least one key.
        dropout: rate on the attention weights.
        scale: of the scores, applied in float32; 1 / sqrt(H) where not given.
        draws: of this layer, where dropout has addresses.

    Returns:
        `[B, Tq, N, H]`.
    """
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    scores = torch.einsum("bqnh,bknh->bnqk", q, k).to(wide(q)) * scale
    scores = scores.masked_fill(~mask.visible[:, None], float("-inf"))
    weights = scores.softmax(dim=-1)  # [B, N, Tq, Tk]
    if dropout and draws is not None:
        num_pairs = weights[0, :, 0].numel()  # each key of each head, of which others have others
        first = draws.part * num_pairs
        pairs = torch.arange(first, first + num_pairs, device=q.device)
        queries = draws.positions(ATTENTION)[:, None, :, None]
        stays = kept(queries, pairs.view(weights.shape[1], 1, -1), dropout)
        weights = torch.where(stays, weights / (1 - dropout), 0.0)
    else:
        weights = nn.functional.dropout(weights, dropout, dropout > 0)
    return torch.einsum("bnqk,bknh->bqnh", weights.to(v.dtype), v)


def packed_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: PackedMask,
    dropout: float = 0.0,
    scale: float | None = None,
    draws: Draws | None = None,
) -> torch.Tensor:
    """Attend within each example of packed rows, by exact rectangles; see `kernels.packed`.

    Arguments and result as `dense_attention`, with one length T; zero on padding.
    """
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    if draws is None:
        return block_attention(q, k, v, mask.table, dropout, scale)
    seeds = draws.seeds[ATTENTION]
    return block_attention(q, k, v, mask.table, dropout, scale, seeds, draws.part, draws.parts)


def flex_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: FlexMask, scale: float | None = None
) -> torch.Tensor:
    """Attend by FlexAttention over the tiles that are visible; zero on padding.

    For CUDA, inside a compiled block, where Inductor makes one kernel of it; anywhere else it is
    torch's slow reference, which has no gradient on a CPU.
    """
    from torch.nn.attention.flex_attention import flex_attention as attend_tiles

    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    attended = attend_tiles(q, k, v, block_mask=mask.block_mask, scale=scale)
    return attended.transpose(1, 2)


def varlen_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: VarlenMask,
    scale: float | None = None,
    kernel: VarlenKernel | None = None,
) -> torch.Tensor:
    """Attend by two calls of a variable-length kernel: Part A on Part A, Part B on both.

    The second is causal and aligned at the bottom right, as FlashAttention aligns it since 2.1 when
    there are fewer queries than keys, which is the rule for Part B exactly. For CUDA in bfloat16 or
    float16.

    Args:
        q: `[B, T, N, H]`; k and v alike.
        k: keys.
        v: values.
        mask: what each call gathers.
        scale: of the scores; 1 / sqrt(H) where not given.
        kernel: torch's, where not given.

    Returns:
        `[B, T, N, H]`; zero on padding.
    """
    attend = varlen_kernel if kernel is None else kernel
    shape = q.shape
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))  # [B * T, N, H]
    has_a, has_b = mask.present
    parts: list[torch.Tensor] = []  # results, and whose they are
    if has_a:
        qa, ka, va = (_gather(x, mask.part_a) for x in (q, k, v))
        part = attend(
            qa, ka, va, mask.a_bounds, mask.a_bounds, mask.length, mask.length,
            causal=False, scale=scale,
        )  # fmt: skip
        parts += [part, mask.part_a]
    if has_b:
        qb = _gather(q, mask.part_b)
        kb, vb = (_gather(x, mask.both) for x in (k, v))
        part = attend(
            qb, kb, vb, mask.b_bounds, mask.both_bounds, mask.length, mask.length,
            causal=True, scale=scale,
        )  # fmt: skip
        parts += [part, mask.part_b]
    if not parts:
        return q.new_zeros(shape)
    return cast("torch.Tensor", _ScatterRows.apply(q.shape[0], *parts)).view(shape)


class _GatherRows(torch.autograd.Function):
    """Take rows by an index that names none twice. So gradients are copied to their places, where
    those of `index_select` are added, one by one and atomically on a GPU."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(index)
        ctx.rows = x.shape[0]
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]  # torch's is of any arguments
        (index,) = ctx.saved_tensors
        return grad.new_zeros(ctx.rows, *grad.shape[1:]).index_copy_(0, index, grad), None


class _ScatterRows(torch.autograd.Function):
    """Put rows at their places by indices that name none twice; other rows are zero.

    Arguments are the number of rows, and then parts, each followed by its index.
    """

    @staticmethod
    def forward(ctx: Any, rows: int, *parts: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(*parts[1::2])
        placed = parts[0].new_zeros(rows, *parts[0].shape[1:])
        for part, index in zip(parts[::2], parts[1::2], strict=True):
            placed.index_copy_(0, index, part)
        return placed

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]  # as above
        grads: list[torch.Tensor | None] = [None]
        for index in ctx.saved_tensors:
            grads += [grad.index_select(0, index), None]
        return tuple(grads)


def _gather(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return cast("torch.Tensor", _GatherRows.apply(x, index))


class VarlenKernel(Protocol):
    """Attention over sequences of different lengths that lie end to end."""

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        q_bounds: torch.Tensor,
        k_bounds: torch.Tensor,
        most_q: int,
        most_k: int,
        *,
        causal: bool,
        scale: float | None,
    ) -> torch.Tensor:
        """Map `[q, N, H]`, `[k, N, H]`, `[k, N, H]` to `[q, N, H]`; no sequence is longer than
        the most that is named."""
        ...


def varlen_kernel(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    q_bounds: torch.Tensor,
    k_bounds: torch.Tensor,
    most_q: int,
    most_k: int,
    *,
    causal: bool,
    scale: float | None,
) -> torch.Tensor:
    """Call torch's variable-length FlashAttention."""
    from torch.nn.attention.varlen import varlen_attn

    window = (-1, 0) if causal else (-1, -1)
    attended = varlen_attn(
        q, k, v, q_bounds, k_bounds, most_q, most_k, scale=scale, window_size=window
    )
    return cast("torch.Tensor", attended)


def wide(x: torch.Tensor) -> torch.dtype:
    """Give the type that softmax is computed in: float32, or wider where the input is."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32
