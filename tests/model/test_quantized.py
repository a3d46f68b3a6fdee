"""Matrices of 8 and 4 bits: what they hold, what they multiply to, and whom a row hears."""

import logging

import numpy as np
import pytest
import torch

from blankfill.config.model import ModelConfig
from blankfill.model import GLM, init_weights, quantized
from blankfill.model.loss import target_loss
from blankfill.model.masks import DenseMask
from blankfill.model.quantized import (
    QuantizedMatrix,
    make_room,
    matrices_of,
    quantize,
    quantized_bytes,
    settle,
)
from blankfill.model.targets import Targets

BITS = [8, 4]
PRIVATE = {8: "_int_mm", 4: "_weight_int4pack_mm_for_cpu"}


def weights(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.02


def ready(matrix, bits):
    made = QuantizedMatrix.of(matrix, bits)
    made.settle(keep_codes=True)
    return made


@pytest.fixture
def untried():
    """Operators are tried anew, before and after."""
    for probe in (quantized._has_int8, quantized._has_int4):
        probe.cache_clear()
    yield
    for probe in (quantized._has_int8, quantized._has_int4):
        probe.cache_clear()


def test_a_weight_of_8_bits_is_within_half_a_step_of_what_it_was():
    matrix = weights(40, 96)
    made = QuantizedMatrix.of(matrix, 8)
    again = made.look_up(torch.arange(40))
    largest = matrix.abs().amax(dim=1)
    assert torch.allclose(made.scales, largest / 127)
    assert ((again - matrix).abs() <= made.scales[:, None] * 0.5001).all()
    assert made.codes.abs().amax() == 127


def test_4_bits_lose_no_more_than_the_whole_range_of_each_group_in_16_steps():
    matrix = weights(48, 128).double().numpy()
    groups = matrix.reshape(48, 4, 32)
    low, high = groups.min(-1, keepdims=True), groups.max(-1, keepdims=True)
    step = (high - low) / 15
    plain = np.round((groups - low) / step) * step + low
    made = QuantizedMatrix.of(torch.from_numpy(matrix), 4).look_up(torch.arange(48))
    error = ((made.double().numpy().reshape(48, 4, 32) - groups) ** 2).sum(-1)
    # Steps are kept in bfloat16, whose rounding a group may lose by; over all they gain.
    assert error.sum() < ((plain - groups) ** 2).sum()


def test_two_codes_of_4_bits_share_a_byte_the_even_column_in_the_high_half():
    made = QuantizedMatrix.of(weights(16, 32), 4)
    codes, (step, middle) = made.codes[3], made.scales[3, 0].float().tolist()
    row = made.look_up(torch.tensor([3]))[0].tolist()
    for column, byte in enumerate(codes.repeat_interleave(2).tolist()):
        code = byte & 15 if column % 2 else byte >> 4
        assert row[column] == pytest.approx((code - 8) * step + middle, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("bits", BITS)
def test_a_row_of_zeros_is_a_row_of_zeros(bits):
    matrix = weights(16, 32)
    matrix[5] = 0
    made = ready(matrix, bits)
    assert made(torch.randn(2, 32)).isfinite().all()
    # The least step that there is, above 0, is what is left of it.
    assert made.look_up(torch.tensor([5])).abs().max() < 1e-36
    assert made(torch.randn(2, 32))[:, 5].abs().max() < 1e-34
    assert (made(torch.zeros(2, 32)) == 0).all()


@pytest.mark.parametrize("shape", [(96,), (3, 96), (2, 5, 96)])
def test_a_product_of_8_bits_is_that_of_whole_numbers(shape):
    matrix, bias = weights(37, 96), torch.randn(37)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    made = ready(matrix, 8)
    rows = x.reshape(-1, 96).numpy().astype(np.float64)
    scale = np.abs(rows).max(1, keepdims=True) / 127
    sums = np.round(rows / scale).astype(np.int64) @ made.codes.numpy().astype(np.int64).T
    exact = sums * scale * made.scales.double().numpy() + bias.double().numpy()
    found = made(x, bias)
    assert found.shape == (*shape[:-1], 37)
    assert found.dtype == torch.float32
    # A number in the middle between two codes may be rounded either way: none is here.
    assert np.allclose(found.reshape(-1, 37).numpy(), exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", [16, 37, 64, 150])
def test_a_product_of_4_bits_is_that_of_the_unpacked_matrix(rows):
    made = ready(weights(rows, 96), 4)
    x, bias = torch.randn(5, 96), torch.randn(rows)
    exact = x.bfloat16().double() @ made.look_up(torch.arange(rows)).double().T + bias.double()
    apart = (made(x, bias).double() - exact).abs()
    assert float(apart.max()) < 2**-7 * float(exact.abs().max())  # bfloat16 has eight bits


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shape", [(64, 64), (200, 160)])
def test_a_neighbour_changes_no_bit_of_a_row(bits, shape):
    made, bias = ready(weights(*shape), bits), torch.randn(shape[0])
    own = torch.randn(shape[1])
    alone = made(own[None], bias)[0]
    for count in (2, 3, 4, 5, 8, 17, 33, 70):
        batch = 1000 * torch.randn(count, shape[1])
        for place in (0, count // 2, count - 1):
            batch[place] = own
            assert torch.equal(made(batch, bias)[place], alone)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("what", ["gone", "wrong", "refuses"])
def test_without_torch_s_operator_products_are_computed_plainly(
    bits, what, untried, monkeypatch, caplog
):
    x, matrix = torch.randn(6, 64), weights(48, 64)
    fast = ready(matrix, bits)(x)
    real = getattr(torch, PRIVATE[bits])

    def refuse(*_):
        raise RuntimeError("not compiled in\nwith a second line")

    if what == "gone":
        monkeypatch.delattr(torch, PRIVATE[bits])
    else:
        other = refuse if what == "refuses" else lambda *args: real(*args) * 2
        monkeypatch.setattr(torch, PRIVATE[bits], other)
    for probe in (quantized._has_int8, quantized._has_int4):
        probe.cache_clear()
    with caplog.at_level(logging.WARNING):
        plain = ready(matrix, bits)
        found = plain(x)
        plain(x)
    (note,) = caplog.records
    assert PRIVATE[bits] in note.message
    assert "\n" not in note.message
    # At 4 bits torch's operator rounds its result to bfloat16.
    bound = 1e-5 if bits == 8 else 2**-7
    assert float((found - fast).abs().max()) < bound * float(fast.abs().max())


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_what_is_no_number_stays_so_and_in_its_row(bits, odd):
    x = torch.randn(3, 64)
    x[1, 7] = odd
    finite = ready(weights(48, 64), bits)(x).isfinite()
    assert finite[[0, 2]].all()
    assert not finite[1].any()


@pytest.mark.parametrize("bits", BITS)
def test_the_bytes_that_are_told_are_those_of_the_tensors(bits):
    made = QuantizedMatrix(70, 96, bits)
    held = sum(tensor.numel() * tensor.itemsize for tensor in made.state_dict().values())
    assert quantized_bytes(70, 96, bits) == held


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("z_loss", [0.0, 0.01])
def test_the_loss_is_the_cross_entropy_of_the_quantised_logits(bits, z_loss):
    made, hidden = ready(weights(96, 64), bits), torch.randn(9, 64)
    ids, scale = torch.randint(96, (9,)), torch.rand(9)
    found = target_loss(hidden, made, Targets(torch.arange(9), ids, scale), z_loss)
    logits = made(hidden).double()
    nats = torch.nn.functional.cross_entropy(logits, ids, reduction="none")
    total = ((nats + z_loss * logits.logsumexp(-1) ** 2) * scale.double()).sum()
    assert torch.allclose(found.nats.double(), nats, rtol=1e-5)
    assert float(found.total) == pytest.approx(float(total), rel=1e-5)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("options", [
    {}, {"tie_head": False}, {"positions": "learned_2d"}, {"shrink_head": True},
])  # fmt: skip
def test_a_model_is_quantised_in_place_and_filled_again_from_its_tensors(bits, options):
    cfg = ModelConfig(
        vocab_size=64, hidden_size=32, num_layers=2, num_heads=2, ffn_size=64, max_position=32,
        embedding_gradient_shrink=0.1 if options.get("shrink_head") else 1.0, **options,
    )  # fmt: skip
    model = GLM(cfg).eval()
    init_weights(model, 0)
    names = matrices_of(model)
    quantize(model, bits)
    assert not matrices_of(model)
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert {f"{name}.{part}" for name in names for part in ("codes", "scales")} <= kept.keys()
    with torch.device("meta"):
        other = GLM(cfg).eval()
    make_room(other, bits)
    other = other.to_empty(device="cpu")
    other.load_state_dict(kept)
    tokens, positions = torch.arange(8, 20)[None], torch.arange(12).expand(1, 2, 12)
    mask = DenseMask(torch.ones(1, 12, 12, dtype=torch.bool))
    with torch.inference_mode():
        settle(model)
        settle(other)
        ours, theirs = (each.logits(each(tokens, positions, mask)) for each in (model, other))
    assert torch.equal(ours, theirs)
    assert ours.isfinite().all()
