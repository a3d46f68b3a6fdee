"""Every way of attention beside the rule itself, `objective.mask.visible`."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from blankfill.engine.device import choose_attention
from blankfill.errors import ConfigError
from blankfill.kernels import packed
from blankfill.kernels.native import load_native
from blankfill.metrics.flops import training_flops, visible_area
from blankfill.model.attention import (
    flex_attention,
)  # fmt: skip
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
from blankfill.model.targets import Targets
from model.attention_cases import BLOCKS, CFG, WAYS, T, draw, plain, rule, table


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
    assert mask.present == (len(mask.part_a) > 0, len(mask.part_b) > 0)
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
