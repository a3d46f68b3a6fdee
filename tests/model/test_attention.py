"""Every way of attention beside the rule itself, `objective.mask.visible`."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.flop_counter import FlopCounterMode

from blankfill.config.model import ModelConfig
from blankfill.engine.compiled import mark_varying
from blankfill.engine.device import choose_attention
from blankfill.errors import ConfigError
from blankfill.kernels import packed
from blankfill.kernels.native import load_native
from blankfill.kernels.rectangles import rectangles
from blankfill.metrics.flops import training_flops, visible_area
from blankfill.model.attention import (
    dense_attention,
    flex_attention,
    packed_attention,
    varlen_attention,
)  # fmt: skip
from blankfill.model.block import build_block
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights
from blankfill.model.masks import (
    DenseMask,
    FlexMask,
    PackedMask,
    VarlenMask,
    build_mask,
    tile_pairs,
)  # fmt: skip
from blankfill.model.rope import rotation_of
from blankfill.model.targets import Targets
from blankfill.objective.mask import visible

T = 300
BLOCKS = {
    "ragged": [[0, 0, 37, 50], [0, 50, 60, 199], [0, 199, 280, 300], [1, 0, 130, 180]],
    "one token": [[0, 0, 1, 1], [0, 1, 1, 2], [0, 2, 3, 4], [1, 299, 299, 300]],
    "empty part b": [[0, 0, 20, 20], [1, 0, 300, 300]],
    "empty part a": [[0, 0, 0, 170], [0, 170, 170, 171]],
    "long part b": [
        [0, 0, 10, 300], [1, 0, 64, 128], [1, 128, 140, 205], [1, 205, 206, 300], [2, 0, 1, 257],
    ],
    "rows of only padding": [[1, 5, 9, 14]],
    "nothing": [],
}  # fmt: skip


def table(name):
    return np.array(BLOCKS[name], np.int32).reshape(-1, 4)


def rule(blocks, rows=3):
    """The square of every row by `visible()`, and where there are examples."""
    segment = np.full((rows, T), -1, np.int32)
    is_part_b = np.zeros((rows, T), bool)
    for number, (row, start, part_b, end) in enumerate(blocks.tolist()):
        segment[row, start:end] = number
        is_part_b[row, part_b:end] = True
    seen = np.stack([visible(s, b) for s, b in zip(segment, is_part_b, strict=True)])
    return torch.from_numpy(seen), torch.from_numpy(segment >= 0)


def draw(dtype, rows=3, heads=2, size=8):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(rows, T, heads, size, generator=generator, dtype=torch.float64)
        .to(dtype).requires_grad_()
        for _ in range(4)
    ]  # fmt: skip


def plain(q, k, v, seen, real):
    """Attention as it is defined, in the precision of the inputs; zero on padding."""
    scores = torch.einsum("bqnh,bknh->bnqk", q, k) / math.sqrt(q.shape[-1])
    weights = scores.masked_fill(~seen[:, None], -math.inf).softmax(-1)
    return torch.einsum("bnqk,bknh->bqnh", weights, v) * real[:, :, None, None]


def standin(q, k, v, q_bounds, k_bounds, _longest_q, _longest_k, *, causal, scale):
    """A variable-length kernel by its definition, causal at the bottom right."""
    parts = []
    for i in range(len(q_bounds) - 1):
        a, b = q_bounds[i : i + 2].tolist()
        c, d = k_bounds[i : i + 2].tolist()
        seen = torch.ones(b - a, d - c, dtype=torch.bool)
        seen = seen.tril(d - c - (b - a)) if causal else seen
        scores = torch.einsum("qnh,knh->nqk", q[a:b], k[c:d]) * (scale or q.shape[-1] ** -0.5)
        weights = scores.masked_fill(~seen, -math.inf).softmax(-1)
        parts.append(torch.einsum("nqk,knh->qnh", weights, v[c:d]))
    return torch.cat(parts)


WAYS = {
    "blocks": lambda q, k, v, b: packed_attention(q, k, v, PackedMask(b, (3, T))),
    "dense": lambda q, k, v, b: dense_attention(q, k, v, DenseMask.of(b, (3, T))),
    "varlen": lambda q, k, v, b: varlen_attention(
        q, k, v, VarlenMask.of(b, (3, T), "cpu"), kernel=standin
    ),
}


def require_native():
    if load_native() is None:
        pytest.skip("no C compiler here, or no sgemm in torch's library")


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("way", WAYS)
# Sums of up to 300 terms in another order, values near 1.
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_value_and_gradients_are_those_of_the_rule(name, way, dtype, atol):
    blocks = table(name)
    if way == "varlen" and not len(blocks):
        pytest.skip("its result does not depend on the inputs, and has no gradient")
    seen, real = rule(blocks)
    *qkv, weight = draw(dtype)
    weight = weight.detach() * real[:, :, None, None]
    expected = plain(*qkv, seen, real)
    expected_grads = torch.autograd.grad(expected, qkv, weight)
    value = WAYS[way](*qkv, blocks)
    grads = torch.autograd.grad(value, qkv, weight)
    if way != "blocks":
        value = value * real[:, :, None, None]
    torch.testing.assert_close(value, expected, rtol=0, atol=atol)
    for ours, theirs in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


@pytest.mark.parametrize("name", BLOCKS)
def test_the_masks_are_the_rule(name):
    blocks = table(name)
    seen, real = rule(blocks)
    both = real[:, :, None] & real[:, None, :]
    assert torch.equal(DenseMask.of(blocks, (3, T)).visible & both, seen & both)
    tiles = torch.nn.functional.pad(seen & both, (0, 384 - T, 0, 384 - T))
    counts = tiles.view(3, 3, 128, 3, 128).sum((2, 4)).numpy()
    assert np.array_equal(tile_pairs(blocks, (3, T)), counts)
    mask = FlexMask.of(blocks, (3, T), "cpu").block_mask
    row, query, key = torch.meshgrid(*(torch.arange(n) for n in (3, T, T)), indexing="ij")
    assert torch.equal(mask.mask_mod(row, torch.tensor(0), query, key), seen & both)
    # Tiles listed for computing, partly or whole, are those with a visible pair.
    assert torch.equal(mask.to_dense()[:, 0].bool(), torch.from_numpy(counts > 0))
    whole = torch.from_numpy((counts == 128 * 128).sum(-1))
    assert torch.equal(mask.full_kv_num_blocks[:, 0].long(), whole)


LISTS = [
    f"{full}{side}_{what}"
    for full in ("", "full_") for side in ("kv", "q") for what in ("num_blocks", "indices")
]  # fmt: skip


def as_the_kernels_read(tiles):
    """Each row's list by torch's kernels for CUDA, which step over rows by the stride of heads:
    `sparse_hz_offset * stride_kv_num_blks_h` (torch/_inductor/kernel/flex/templates, 2.11)."""
    _, heads, *strides = tiles.stride()
    return tiles.as_strided((tiles.shape[0], *tiles.shape[2:]), (heads, *strides))


@pytest.mark.parametrize("name", BLOCKS)
def test_each_row_is_given_its_own_tiles(name):
    made = FlexMask.of(table(name), (3, T), "cpu").block_mask
    for tiles in (getattr(made, which) for which in LISTS):
        assert torch.equal(as_the_kernels_read(tiles), tiles[:, 0])


@pytest.mark.parametrize("name", [name for name in BLOCKS if name != "nothing"])
def test_no_sequence_without_queries_goes_to_a_kernel(name):
    blocks = table(name)
    mask = VarlenMask.of(blocks, (3, T), "cpu")
    for index, bounds in (
        (mask.part_a, mask.a_bounds), (mask.part_b, mask.b_bounds), (mask.both, mask.both_bounds),
    ):  # fmt: skip
        lengths = bounds.diff()
        assert bounds[0] == 0
        assert bounds[-1] == len(index)
        assert (lengths > 0).all()
        assert (lengths <= mask.length).all()
    assert mask.asked == (len(mask.part_a) > 0, len(mask.part_b) > 0)
    assert len(mask.b_bounds) == len(mask.both_bounds)
    assert len(mask.a_bounds) == 1 + (blocks[:, 2] > blocks[:, 1]).sum()
    assert len(mask.b_bounds) == 1 + (blocks[:, 3] > blocks[:, 2]).sum()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_forward_is_the_rule():
    blocks = table("ragged")
    seen, real = rule(blocks)
    q, k, v, _ = (x.detach() for x in draw(torch.float32))
    value = flex_attention(q, k, v, FlexMask.of(blocks, (3, T), "cpu"))
    torch.testing.assert_close(
        value * real[:, :, None, None], plain(q, k, v, seen, real), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("name", ["ragged", "long part b"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("native", [load_native, lambda: None])
def test_half_precision_is_within_the_dense_paths_own_error(dtype, native, name, monkeypatch):
    monkeypatch.setattr(packed, "load_native", native)
    blocks = table(name)
    seen, real = rule(blocks)
    *wide, weight = draw(torch.float64)
    weight = weight.detach() * real[:, :, None, None]
    exact = plain(*wide, seen, real)
    exact = [exact, *torch.autograd.grad(exact, wide, weight)]
    errors = []
    for way in ("blocks", "dense"):
        qkv = [x.detach().to(dtype).requires_grad_() for x in wide]
        value = WAYS[way](*qkv, blocks)
        made = [value, *torch.autograd.grad(value, qkv, weight.to(dtype))]
        made[0] = made[0] * real[:, :, None, None]
        errors.append([(a - b).abs().max() for a, b in zip(made, exact, strict=True)])
    # The rounding of either path is a few units in the last place; neither may be the double.
    assert all(ours <= 2 * dense for ours, dense in zip(*errors, strict=True))


def test_the_operator_keeps_torchs_contract():
    q, k, v, _ = draw(torch.float64, rows=2)
    mask = PackedMask(np.array([[0, 0, 3, 8], [1, 2, 4, 4]], np.int32), (2, T))
    args = (q, k, v, mask.table, 0.0, 0.3)
    # Not "aot_dispatch_dynamic": it compares the end of the buffer, which nobody writes or reads.
    torch.library.opcheck(
        torch.ops.blankfill.block_attention.default, args,
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )  # fmt: skip


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


def dropped(shape, blocks, buffer):
    """What dropout took, `[B, N, T, T]`, by the signs of the kept weights; and their indices."""
    rows, heads, length = shape
    gone = torch.zeros(rows, heads, length, length, dtype=torch.bool)
    index = torch.zeros(gone.shape, dtype=torch.int64)
    at = 0
    for first, query, end, _ in rectangles(blocks.tolist(), length):
        row, base = divmod(first, length)
        size = (heads, end - query, end - first)
        where = (row, slice(None), slice(query - row * length, end - row * length),
                 slice(base, base + end - first))  # fmt: skip
        here = torch.arange(at, at + math.prod(size)).view(size)
        index[where], gone[where] = here, buffer[here] < 0
        at += math.prod(size)
    return gone, index


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


CFG = ModelConfig(vocab_size=64, hidden_size=16, num_layers=1, num_heads=2, ffn_size=24)


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


def test_the_formula_counts_what_a_packed_training_pass_multiplies():
    blocks = table("ragged")
    model = GLM(CFG)
    init_weights(model, 0)
    targets = torch.full((3, T), -100)
    targets[:, ::7] = 3
    with FlopCounterMode(display=False) as counter:
        tokens = torch.zeros(3, T, dtype=torch.long)
        positions, mask = torch.zeros(3, 2, T, dtype=torch.long), PackedMask(blocks, (3, T))
        model(tokens, positions, mask, targets=Targets.of(targets)).total.backward()
    formula = training_flops(CFG, blocks, int((targets >= 0).sum()), (3, T)).model
    assert counter.get_total_flops() == pytest.approx(formula, rel=0.01)


@pytest.mark.parametrize("name", ["ragged", "long part b"])
def test_the_operators_products_are_those_that_it_is_counted_with(name):
    blocks = table(name)
    mask = PackedMask(blocks, (3, T))
    q, k, v, grad = (x.detach() for x in draw(torch.float64))
    with FlopCounterMode(display=False) as counter:  # the kernels, below the operators
        _, buffer = packed._forward._init_fn(q, k, v, mask.table, 0.0, 0.3)
        packed._backward._init_fn(grad, q, k, v, buffer, mask.table, 0.0, 0.3)
    assert counter.get_total_flops() == 3 * 2 * 2 * 2 * 8 * visible_area(blocks)


@pytest.mark.parametrize(
    ("wanted", "device", "dtype", "dropout", "chosen"),
    [
        ("auto", "cpu", torch.float32, 0.1, "blocks"),
        ("dense", "cpu", torch.float32, 0.0, "dense"),
        ("auto", "cuda", torch.bfloat16, 0.0, "varlen"),
        ("auto", "cuda", torch.float32, 0.0, "flex"),
        ("auto", "cuda", torch.bfloat16, 0.1, "blocks"),
    ],
)
def test_auto_takes_what_the_device_can(wanted, device, dtype, dropout, chosen):
    assert choose_attention(wanted, device, dtype, dropout=dropout) == chosen


@pytest.mark.parametrize(
    ("wanted", "device", "dropout", "says"),
    [
        ("flex", "cpu", 0.0, "CUDA only"),
        ("varlen", "cuda", 0.0, "bfloat16 or float16"),
        ("flex", "cuda", 0.1, "dropout"),
    ],
)
def test_what_the_device_cannot_is_refused_in_words(wanted, device, dropout, says):
    with pytest.raises(ConfigError, match=says):
        choose_attention(wanted, device, torch.float32, dropout=dropout)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:TensorFloat32")  # the compiler's advice
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("dense", "ragged"),
        *(
            (kind, name)
            for kind in ("blocks", "varlen", "flex")
            for name in BLOCKS
            if name != "nothing"
        ),
    ],
)
def test_cuda_ways_are_the_rule(kind, name):
    blocks = table(name)
    seen, real = rule(blocks)
    *wide, weight = draw(torch.float64, size=64)
    weight = weight.detach() * real[:, :, None, None]
    exact = plain(*wide, seen, real)
    exact = [exact, *torch.autograd.grad(exact, wide, weight)]
    from blankfill.model.attention import attend

    call = torch.compile(attend) if kind == "flex" else attend
    qkv = [x.detach().cuda().bfloat16().requires_grad_() for x in wide]
    value = call(*qkv, build_mask(blocks, (3, T), kind, "cuda"))
    value = value * real[:, :, None, None].cuda()
    made = [value, *torch.autograd.grad(value, qkv, weight.cuda().bfloat16())]
    for ours, theirs in zip(made, exact, strict=True):
        # bfloat16 keeps 8 bits: values near 1 after sums of a few hundred.
        torch.testing.assert_close(ours.cpu().double(), theirs, rtol=0.02, atol=0.05)
