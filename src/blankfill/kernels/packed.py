"""Attention inside each example of packed rows, as one operator with its own backward.

An example is a few rectangles (`kernels.rectangles`): Part A's queries see all of Part A's keys;
Part B's see Part A's and, causally, Part B's, strip by strip. Only these are multiplied, directly
in the memory of the rows, so nothing is padded, gathered or scattered, and the cost of a position
depends on its example and not on the length of the row. The rule that this follows, and is tested
against, is `objective.mask.visible`.

`torch.library` knows the operator, its shapes and its gradient, so `torch.compile` keeps a block in
one graph, the same for every batch, and `torch.utils.flop_counter` counts it.

Shapes: B rows, T positions, N heads, H head size, K examples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from blankfill.kernels.native import TYPES, Native, load_native
from blankfill.kernels.rectangles import STRIP, count_pairs, rectangles

__all__ = ["block_attention", "in_c"]

WIDE = frozenset({torch.float32, torch.float64})
"""Types whose softmax is computed in the same type; for the others it is computed in float32."""


def block_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    table: torch.Tensor,
    dropout: float,
    scale: float,
    seeds: torch.Tensor | None = None,
    part: int = 0,
    parts: int = 1,
) -> torch.Tensor:
    """Attend within each example.

    Args:
        q: `[B, T, N, H]`; k and v alike.
        k: keys.
        v: values.
        table: `[K, 4]` int32 on the CPU, of each example: row, first position, first of Part B,
            end; empty examples are skipped.
        dropout: rate on the attention weights.
        scale: of the scores; applied to them in the precision of the softmax.
        seeds: `[B]` int64 on the CPU; each row's dropout is drawn from its own. From torch's
            generator where not given.
        part: which of equal parts of the heads these are: dropout is that of all of them.
        parts: how many parts there are.

    Returns:
        `[B, T, N, H]`; zero where there is no example. Softmax is computed in float32, or float64
        where the inputs are.
    """
    # The operator's first call loads torch's compiler, seconds of it, and where nothing is
    # differentiated it tells nobody anything.
    plain = not torch.compiler.is_compiling() and torch.is_inference_mode_enabled()
    attend = _compute if plain else _forward
    return attend(q, k, v, table, dropout, scale, seeds, part, parts)[0]


def in_c(device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether the compiled form is there and computes in such a type, on such a device."""
    fits = dtype in TYPES and device.type == "cpu"
    return fits and load_native() is not None


def _compute(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, table: torch.Tensor, dropout: float,
    scale: float, seeds: torch.Tensor | None = None, part: int = 0, parts: int = 1,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Return the result, and the softmax weights of all rectangles; those that dropout takes, as
    their negatives."""
    out = torch.zeros_like(q, memory_format=torch.contiguous_format)
    buffer = q.new_empty(_room(q, table))
    views = [_by_head(x) for x in (q, k, v, out)]
    native = _native(views, table)
    for of_row, room, seed in _by_seed(table, buffer, q.shape[2], seeds if dropout else None):
        if native:
            native.forward(of_row, views, room, scale, q.shape[1], dropout, seed, part, parts)
        else:
            _attend(of_row, views, room, scale, q.shape, dropout, seed, part, parts)
    return out, buffer


_forward = torch.library.custom_op("blankfill::block_attention", _compute, mutates_args=())


def _by_seed(
    table: torch.Tensor, buffer: torch.Tensor, num_heads: int, seeds: torch.Tensor | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor, int | None]]:
    """Give what is drawn from one seed: examples, their room in the buffer, and the seed."""
    if seeds is None:
        yield table, buffer, None
        return
    assert bool((table[1:, 0] >= table[:-1, 0]).all()), "examples come in the order of their rows"
    at = 0
    for row, seed in enumerate(seeds.tolist()):
        part = table[table[:, 0] == row]
        if len(part):
            yield part, buffer[at:], seed
            at += num_heads * _area(part)


def _attend(
    table: torch.Tensor, views: list[torch.Tensor], buffer: torch.Tensor, scale: float,
    shape: torch.Size, dropout: float, seed: int | None, part: int, parts: int,
) -> None:  # fmt: skip
    """Fill the weights and the last of `views`: q, k, v and the result, each `[N, B * T, H]`."""
    queries, keys, values, results = views
    wide = queries.dtype in WIDE
    draw = None if seed is None else torch.Generator(queries.device).manual_seed(seed)
    blocked = _blocked(buffer)
    for first, query, end, causal, weights in _walk(table, shape, buffer):
        key_columns = keys[:, first:end].transpose(1, 2)
        alpha = scale if wide else 1.0
        torch.baddbmm(weights, queries[:, query:end], key_columns, beta=0, alpha=alpha, out=weights)
        if causal:
            weights[:, :, -causal:] += blocked[:causal, :causal]
        if wide:
            torch.softmax(weights, -1, out=weights)
        else:
            weights.copy_(torch.softmax(weights.float().mul_(scale), -1))
        if dropout:
            stays = weights.new_empty(parts * len(weights), *weights.shape[1:])
            stays.bernoulli_(1 - dropout, generator=draw)  # of all heads, wherever they are
            weights *= stays.chunk(parts)[part].mul_(2).sub_(1)
        left = _after_dropout(weights, dropout)
        torch.bmm(left, values[:, first:end], out=results[:, query:end])


@torch.library.custom_op("blankfill::block_attention_backward", mutates_args=())
def _backward(
    grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, buffer: torch.Tensor,
    table: torch.Tensor, dropout: float, scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    grads, queries, keys, values = views = [_by_head(x) for x in (grad, q, k, v)]
    native = _native(views, table)
    # Several rectangles add to a key's gradients: for half precision they add in float32.
    wide = q.dtype if native or q.dtype in WIDE else torch.float32
    made = [
        torch.zeros_like(q, memory_format=torch.contiguous_format, dtype=dtype)
        for dtype in (q.dtype, wide, wide)
    ]
    grad_q, grad_k, grad_v = grads_made = [_by_head(x) for x in made]
    if native:
        native.backward(table, views, buffer, grads_made, scale, q.shape[1], dropout)
        return made[0], made[1], made[2]
    walk = list(_walk(table, q.shape, buffer))
    largest = max((weights.numel() for *_, weights in walk), default=0)
    scratch = q.new_empty(largest)
    for first, query, end, _, weights in walk:
        own, seen = slice(query, end), slice(first, end)
        scores = scratch[: weights.numel()].view_as(weights)
        left = _after_dropout(weights, dropout)
        _add_product_(grad_v[:, seen], left.transpose(1, 2), grads[:, own])
        torch.bmm(grads[:, own], values[:, seen].transpose(1, 2), out=scores)
        if dropout:
            scores.mul_(weights > 0).mul_(1 / (1 - dropout))
        _softmax_backward_(scores, weights.abs() if dropout else weights)
        torch.baddbmm(
            grad_q[:, own], scores, keys[:, seen], beta=0, alpha=scale, out=grad_q[:, own]
        )
        _add_product_(grad_k[:, seen], scores.transpose(1, 2), queries[:, own], scale)
    return made[0], made[1].to(q.dtype), made[2].to(q.dtype)


def _native(views: list[torch.Tensor], table: torch.Tensor) -> Native | None:
    """Give the compiled form, where it is there and knows this case."""
    dtype = views[0].dtype
    fits = len(table) and all(
        in_c(x.device, dtype) and x.dtype == dtype and x.stride(2) == 1 and x.numel() for x in views
    )
    return load_native() if fits else None


def _walk(
    table: torch.Tensor, shape: torch.Size, buffer: torch.Tensor
) -> Iterator[tuple[int, int, int, int, torch.Tensor]]:
    """Go through the rectangles, each with its `[N, queries, keys]` in the buffer."""
    num_heads = shape[2]
    at = 0
    for first, query, end, causal in rectangles(table.tolist(), shape[1]):
        size = (num_heads, end - query, end - first)
        used = math.prod(size)
        weights = buffer[at : at + used].view(size)
        yield first, query, end, causal, weights
        at += used


def _by_head(x: torch.Tensor) -> torch.Tensor:
    """See `[B, T, N, H]` as `[N, B * T, H]`; a copy only where rows do not lie evenly."""
    return x.reshape(-1, *x.shape[2:]).transpose(0, 1)


def _room(q: torch.Tensor, table: torch.Tensor) -> int:
    """Count the buffer's elements, of each head at least the pairs of all rectangles.

    Rounded up, so that the memory of another batch fits again.
    """
    pairs = 1 << max(_area(table) - 1, 0).bit_length()
    return q.shape[2] * pairs


def _blocked(like: torch.Tensor) -> torch.Tensor:
    """Minus infinity right of the diagonal, as large as a strip."""
    return like.new_full((STRIP, STRIP), -math.inf).triu_(1)


def _after_dropout(weights: torch.Tensor, dropout: float) -> torch.Tensor:
    """Give what dropout leaves of the weights."""
    return weights.clamp(min=0).mul_(1 / (1 - dropout)) if dropout else weights


def _add_product_(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor, alpha: float = 1) -> None:
    """Add `alpha a b` to a total of the factors' type or of a wider one, in place."""
    if total.dtype == a.dtype:
        torch.baddbmm(total, a, b, alpha=alpha, out=total)
    else:
        total.add_(torch.bmm(a, b), alpha=alpha)


def _softmax_backward_(grad: torch.Tensor, weights: torch.Tensor) -> None:
    """Turn the gradient of the weights into that of the scores, in place."""
    if grad.dtype in WIDE:
        torch.ops.aten._softmax_backward_data.out(grad, weights, -1, grad.dtype, grad_input=grad)
    else:
        wide = weights.float()
        grad.copy_(torch._softmax_backward_data(grad.float(), wide, -1, torch.float32))  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]  # the only fused form there is


@_forward.register_fake
def _(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, table: torch.Tensor, dropout: float,
    scale: float, seeds: torch.Tensor | None = None, part: int = 0, parts: int = 1,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    if q.device.type == "meta":  # the table is still a real one
        room: int | torch.SymInt = _room(q, table)
    else:  # a compiler is not told the size: it would make a graph for each
        room = torch.library.get_ctx().new_dynamic_size()
    return torch.empty_like(q, memory_format=torch.contiguous_format), q.new_empty(room)


@_backward.register_fake
def _(
    grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, buffer: torch.Tensor,
    table: torch.Tensor, dropout: float, scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    made = [torch.empty_like(q, memory_format=torch.contiguous_format) for _ in range(3)]
    return made[0], made[1], made[2]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    q, k, v, table, dropout, scale, *_ = inputs
    ctx.save_for_backward(q, k, v, output[1], table)
    ctx.dropout, ctx.scale = dropout, scale
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, grad: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:
    q, k, v, buffer, table = ctx.saved_tensors
    grads = torch.ops.blankfill.block_attention_backward(
        grad, q, k, v, buffer, table, ctx.dropout, ctx.scale
    )
    return (*grads, None, None, None, None, None, None)


_forward.register_autograd(_differentiate, setup_context=_keep)


@register_flop_formula(torch.ops.blankfill.block_attention, get_raw=True)
def _count_forward(q: torch.Tensor, *args: Any, **_: Any) -> int:
    return 2 * _count_product(q, args[2])


@register_flop_formula(torch.ops.blankfill.block_attention_backward, get_raw=True)
def _count_backward(grad: torch.Tensor, *args: Any, **_: Any) -> int:
    return 4 * _count_product(grad, args[4])


def _count_product(q: torch.Tensor, table: torch.Tensor) -> int:
    """Count one product over all rectangles, of scores or of values."""
    return 2 * q.shape[2] * q.shape[3] * _area(table)


def _area(table: torch.Tensor) -> int:
    """Count the (query, key) pairs of all rectangles."""
    return int(count_pairs(table.long()).sum())
