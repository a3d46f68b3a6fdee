"""Dropout of attention weights, in C and in plain operators."""

import math

import numpy as np
import pytest
import torch

from blankfill.kernels import packed
from blankfill.model.attention import packed_attention
from blankfill.model.masks import PackedMask
from model.attention_cases import T, draw, dropped, require_native, rule, table


def test_dropout_drops_its_share_and_its_gradient_is_of_what_is_left():
    blocks = np.array([[0, 0, 200, 300]], np.int32)
    mask = PackedMask(blocks, (1, T))
    q, k, v, weight = (x[:1] for x in draw(torch.float64))
    ones = torch.ones_like(v)
    torch.manual_seed(0)
    kept = packed_attention(q, k, ones, mask, 0.25)
    # Each entry is a mean of kept weights / 0.75: 600 of them average to 1 within 2 %.
    assert float(kept.detach().mean()) == pytest.approx(1, abs=0.02)
    assert not torch.allclose(kept, ones)

    def again(q, k, v):
        torch.manual_seed(0)
        return (packed_attention(q, k, v, mask, 0.25) * weight).sum()

    grads = torch.autograd.grad(again(q, k, v), (q, k, v))
    direction = [torch.randn_like(x) for x in (q, k, v)]
    step = 1e-5
    moved = [
        again(*(x + sign * step * d for x, d in zip((q, k, v), direction, strict=True)))
        for sign in (1, -1)
    ]
    slope = sum((g * d).sum() for g, d in zip(grads, direction, strict=True))
    # A central difference in float64: its error is near 1e-9 of the value.
    torch.testing.assert_close((moved[0] - moved[1]) / (2 * step), slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["ragged", "long part b", "one token"])
@pytest.mark.parametrize("native", [True, False])
def test_with_dropout_value_and_gradients_are_those_of_what_it_leaves(name, native, monkeypatch):
    if native:
        require_native()
    else:
        monkeypatch.setattr(packed, "load_native", lambda: None)
    blocks, rate = table(name), 0.3
    seen, real = rule(blocks)
    *qkv, weight = draw(torch.float32)
    weight = weight.detach() * real[:, :, None, None]
    torch.manual_seed(0)
    args = (torch.from_numpy(blocks), rate, 8**-0.5)
    value, buffer = torch.ops.blankfill.block_attention(*qkv, *args)
    made = [value.detach(), *torch.autograd.grad(value, qkv, weight)]
    gone, _ = dropped((3, 2, T), blocks, buffer.detach())

    wide = [x.detach().double().requires_grad_() for x in qkv]
    q, k, v = wide
    scores = torch.einsum("bqnh,bknh->bnqk", q, k) / math.sqrt(8)
    weights = scores.masked_fill(~seen[:, None], -math.inf).softmax(-1)
    left = weights.masked_fill(gone, 0) / (1 - rate)
    exact = torch.einsum("bnqk,bknh->bqnh", left, v) * real[:, :, None, None]
    exact = [exact.detach(), *torch.autograd.grad(exact, wide, weight.double())]
    for ours, theirs in zip(made, exact, strict=True):
        # Float32 sums of up to 300 terms near 1.
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=2e-5)
    share = float(gone.sum() / (seen & real[:, :, None]).sum() / 2)
    if name != "one token":  # 20,000 pairs and more: their share has a deviation of 0.003
        assert share == pytest.approx(rate, abs=0.015)
