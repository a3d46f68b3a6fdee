"""The attention that is compiled from C beside the plain one, and beside the rule in float64."""

import math

import numpy as np
import pytest
import torch

from blankfill.kernels import packed
from blankfill.kernels.native import load_native
from blankfill.model.attention import packed_attention
from blankfill.model.masks import PackedMask
from kernels.native_forms import FORMS, native_form
from model.attention_cases import BLOCKS, WAYS, T, draw, dropped, require_native, rule, table


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("form", FORMS)
def test_the_compiled_form_is_the_plain_one(name, form, monkeypatch):
    blocks = table(name)
    _, real = rule(blocks)
    results = []
    for native in (native_form(form), None):
        monkeypatch.setattr(packed, "load_native", lambda native=native: native)
        *qkv, weight = draw(torch.float32)
        value = WAYS["blocks"](*qkv, blocks)
        grads = torch.autograd.grad(value, qkv, weight.detach() * real[:, :, None, None])
        results.append([value, *grads])
    for ours, theirs in zip(*results, strict=True):
        # Sums of up to 300 terms near 1 in another order.
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def in_bfloat16(q, k, v, grad, seen, real, gone, rate):
    """The rule's value and gradients in float64, and how far rounding may move each number.

    What is rounded, by a unit of 2 ** -8, is each result; the weights W, which the backward pass
    takes as they were kept; what dropout leaves of them, L, once more; and the gradient of the
    scores, dS = L D - W (sum of L D) with D = G V^T. Then dV = L^T G, and scaled dQ = dS K and
    dK = dS^T Q. All other numbers are float32, whose rounding is lost in an absolute 1e-5.
    """
    q, k, v, grad = (x.detach().double() for x in (q, k, v, grad))
    scale, unit = q.shape[-1] ** -0.5, torch.finfo(torch.bfloat16).eps / 2
    scores = torch.einsum("bqnh,bknh->bnqk", q, k) * scale
    weights = scores.masked_fill(~seen[:, None], -math.inf).softmax(-1) * real[:, None, :, None]
    left = weights.masked_fill(gone, 0) / (1 - rate)
    product = torch.einsum("bqnh,bknh->bnqk", grad, v)
    total = (left * product).sum(-1, keepdim=True)
    of_scores = left * product - weights * total
    absolute = (left * product.abs()).sum(-1, keepdim=True)
    of_left = 2 * unit if rate else unit
    moved = of_left * (left * product.abs() + weights * (total.abs() + absolute))
    moved += unit * (of_scores.abs() + moved)
    exact = [
        torch.einsum("bnqk,bknh->bqnh", left, v),
        torch.einsum("bnqk,bknh->bqnh", of_scores, k) * scale,
        torch.einsum("bnqk,bqnh->bknh", of_scores, q) * scale,
        torch.einsum("bnqk,bqnh->bknh", left, grad),
    ]
    bounds = [
        unit * torch.einsum("bnqk,bknh->bqnh", left, v.abs()),
        torch.einsum("bnqk,bknh->bqnh", moved, k.abs()) * scale,
        torch.einsum("bnqk,bqnh->bknh", moved, q.abs()) * scale,
        of_left * torch.einsum("bnqk,bqnh->bknh", left, grad.abs()),
    ]
    return exact, [b + unit * (e.abs() + b) + 1e-5 for e, b in zip(exact, bounds, strict=True)]


@pytest.mark.parametrize(
    ("name", "size"),
    # Two vectors of 16 numbers and half a one; a pair; no whole pairs; whole vectors; many.
    [*((name, 40) for name in BLOCKS), *(("ragged", size) for size in (2, 7, 64, 144))],
)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("form", FORMS)
def test_the_compiled_form_rounds_bfloat16_where_it_says_and_nowhere_else(
    name, size, dropout, form, monkeypatch
):
    monkeypatch.setattr(packed, "load_native", lambda: native_form(form))
    blocks = table(name)
    seen, real = rule(blocks)
    *qkv, grad = draw(torch.bfloat16, size=size)
    grad = grad.detach() * real[:, :, None, None]
    args = (torch.from_numpy(blocks), dropout, size**-0.5)
    value, buffer = torch.ops.blankfill.block_attention(*qkv, *args)
    grads = torch.autograd.grad(value, qkv, grad)
    assert {x.dtype for x in (value, buffer, *grads)} == {torch.bfloat16}
    gone, _ = dropped((3, 2, T), blocks, buffer.detach())
    exact, bounds = in_bfloat16(*qkv, grad, seen, real, gone, dropout)
    for ours, theirs, bound in zip((value, *grads), exact, bounds, strict=True):
        assert ((ours.detach().double() - theirs).abs() <= bound).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_compiled_form_keeps_what_is_not_a_number_within_its_example(dtype):
    require_native()
    blocks = table("ragged")
    q, k, v, _ = (x.detach() for x in draw(dtype, size=40))
    k[0, 55] = math.nan  # in Part A of the second example
    value = WAYS["blocks"](q, k, v, blocks)
    hit = value.isnan().flatten(2).any(-1)
    assert hit[0, 50:199].all()
    assert int(hit.sum()) == 149


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_compiled_form_gives_the_same_bits_on_any_number_of_threads(dropout, dtype):
    require_native()
    blocks = table("ragged")
    results = []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        *qkv, weight = draw(dtype)
        value = packed_attention(*qkv, PackedMask(blocks, (3, T)), dropout)
        results.append([value, *torch.autograd.grad(value, qkv, weight.detach())])
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_what_is_compiled_is_said_of_the_type_and_the_device(dtype):
    compiled = dtype in (torch.float32, torch.bfloat16) and load_native() is not None
    assert packed.in_c(torch.device("cpu"), dtype) == compiled
    assert not packed.in_c(torch.device("cuda"), dtype)


def test_inputs_of_two_types_take_the_plain_form():
    q, k, v, _ = draw(torch.bfloat16)
    blocks = table("ragged")
    value = WAYS["blocks"](q, k, v, blocks)
    views = [x.detach().flatten(0, 1).transpose(0, 1) for x in (q, k.float(), v, value)]
    assert packed._native(views, torch.from_numpy(blocks)) is None


def test_without_a_compiler_there_is_no_compiled_form(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    load_native.cache_clear()
    try:
        assert load_native() is None
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    finally:
        load_native.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_compiled_forms_dropout_is_a_hash_of_the_seed_and_the_weights_place(dtype):
    require_native()
    blocks = table("long part b")
    q, k, v, _ = (x.detach() for x in draw(dtype))
    torch.manual_seed(5)
    _, buffer = torch.ops.blankfill.block_attention(q, k, v, torch.from_numpy(blocks), 0.3, 0.3)
    torch.manual_seed(5)
    seed = int(torch.randint(2**63 - 1, (), dtype=torch.int64))
    gone, index = dropped((3, 2, T), blocks, buffer)

    def mix(h):
        h = (h ^ h >> 16) * 0x85EBCA6B % 2**32
        h = (h ^ h >> 13) * 0xC2B2AE35 % 2**32
        return h ^ h >> 16

    low, high = seed % 2**32, seed >> 32
    hashed = mix((mix(index.numpy().astype(np.uint64) ^ low) + high) % 2**32)
    seen, real = rule(blocks)
    taken = torch.from_numpy(hashed < int(0.3 * 2**32))
    assert torch.equal(gone, taken & (seen & real[:, :, None])[:, None])
