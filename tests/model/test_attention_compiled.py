"""Attention under torch.compile: one graph for every batch."""

import math
from itertools import pairwise

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from blankfill.engine.compiled import mark_varying
from blankfill.model.attention import varlen_attention
from blankfill.model.block import build_block
from blankfill.model.masks import PackedMask, VarlenMask
from blankfill.model.rope import rotation_of
from model.attention_cases import CFG, T, draw, standin, table


@pytest.mark.filterwarnings("ignore")  # Inductor imports modules that warn of themselves
def test_a_compiled_block_is_one_graph_for_every_batch_and_the_same_block():
    torch.manual_seed(0)
    torch._dynamo.reset()
    block = build_block(CFG, 0).double()
    counted = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(block, fullgraph=True, dynamic=False, backend=counted)
    positions = torch.arange(T).expand(3, 2, T)
    rotation = rotation_of(positions, CFG.head_size, 2, torch.float64)
    for name in ("ragged", "one token"):
        x = torch.randn(3, T, 16, dtype=torch.float64, requires_grad=True)
        mask = PackedMask(table(name), (3, T))
        mark_varying(mask)
        results = []
        for call in (block, compiled):
            value = call(x, rotation, mask)
            grads = torch.autograd.grad(value.sin().sum(), [x, *block.parameters()])
            results.append([value, *grads])
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-10)
    assert counted.frame_count == 1


@torch.library.custom_op("blankfill_tests::varlen", mutates_args=())
def kernel(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, q_bounds: torch.Tensor,
    k_bounds: torch.Tensor, causal: bool, scale: float,
) -> torch.Tensor:  # fmt: skip
    """The stand-in as one operator, which is what a compiler sees of a kernel."""
    return standin(q, k, v, q_bounds, k_bounds, 0, 0, causal=causal, scale=scale)


@kernel.register_fake
def _(q, *_):
    return torch.empty_like(q)


@torch.library.custom_op("blankfill_tests::varlen_backward", mutates_args=())
def kernel_gradient(
    grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, q_bounds: torch.Tensor,
    k_bounds: torch.Tensor, causal: bool, scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    parts = []
    for (a, b), (c, d) in zip(
        pairwise(q_bounds.tolist()), pairwise(k_bounds.tolist()), strict=True
    ):
        scores = torch.einsum("qnh,knh->nqk", q[a:b], k[c:d]) * scale
        seen = torch.ones(b - a, d - c, dtype=torch.bool)
        seen = seen.tril(d - c - (b - a)) if causal else seen
        weights = scores.masked_fill(~seen, -math.inf).softmax(-1)
        of_weights = torch.einsum("qnh,knh->nqk", grad[a:b], v[c:d]) * weights
        of_scores = scale * (of_weights - weights * of_weights.sum(-1, keepdim=True))
        parts.append(
            [
                torch.einsum("nqk,knh->qnh", of_scores, k[c:d]),
                torch.einsum("nqk,qnh->knh", of_scores, q[a:b]),
                torch.einsum("nqk,qnh->knh", weights, grad[a:b]),
            ]
        )
    grads = [torch.cat(of_each) for of_each in zip(*parts, strict=True)]
    return grads[0], grads[1], grads[2]


@kernel_gradient.register_fake
def _(_grad, q, k, v, *_):
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def keep(ctx, inputs, output):
    *tensors, ctx.causal, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


kernel.register_autograd(
    lambda ctx, grad: (*kernel_gradient(grad, *ctx.saved_tensors, ctx.causal, ctx.scale),
                       None, None, None, None),
    setup_context=keep,
)  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # Inductor imports modules that warn of themselves
def test_varlen_is_one_graph_for_every_batch_and_the_same_attention():
    torch._dynamo.reset()
    counted = CompileCounterWithBackend("aot_eager")
    lengths = set()

    def call(q, k, v, mask):
        def use(q, k, v, a, b, most_q, most_k, *, causal, scale):
            return kernel(q, k, v, a, b, causal, scale)

        return varlen_attention(q, k, v, mask, 0.3, use)

    compiled = torch.compile(call, fullgraph=True, dynamic=False, backend=counted)
    for name in ("ragged", "one token", "long part b"):
        *qkv, weight = draw(torch.float64)
        results = []
        forms = (lambda *args: varlen_attention(*args, 0.3, standin), compiled)
        for form in forms:
            mask = VarlenMask.of(table(name), (3, T), "cpu")
            mark_varying(mask, None)
            value = form(*qkv, mask)
            results.append([value, *torch.autograd.grad(value, qkv, weight.detach())])
        lengths.add(tuple(len(x) for x in mask.varying))
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-10)
    assert len(lengths) == 3
    assert counted.frame_count == 1
