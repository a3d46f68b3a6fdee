"""Dropout by address: a row's units are its own, however rows are computed."""

import numpy as np
import pytest
import torch

from blankfill.kernels import packed
from blankfill.model.attention import DenseMask, PackedMask, dense_attention, packed_attention
from blankfill.model.dropout import ATTENDED, ATTENTION, FED, Dropout, address_draws
from model.attention_cases import require_native

T, D, RATE = 48, 64, 0.3
ROWS = [7, 8, 9, 1_000_000_007]


def draws(rows, *, step=5, layer=1, seed=3):
    return address_draws(seed, step, rows, num_layers=2, length=T).layer(layer)


def taken(rows, site=FED, **address):
    """Tell which units go, `[B, T, D]`."""
    return Dropout(RATE)(torch.ones(len(rows), T, D), draws(rows, **address), site) == 0


def test_a_rows_units_do_not_depend_on_the_rows_beside_it():
    together = taken(ROWS)
    for k, row in enumerate(ROWS):
        assert torch.equal(taken([row])[0], together[k])
    assert torch.equal(taken(ROWS[::-1]).flip(0), together)


def test_wanted_positions_lose_what_they_lose_in_the_whole_row():
    wanted = torch.tensor([0, 5, T - 1, T, 2 * T + 3, 4 * T - 1])
    x = torch.randn(len(ROWS), T, D)
    whole = Dropout(RATE)(x, draws(ROWS), FED)
    picked = Dropout(RATE)(x.flatten(0, 1)[wanted], draws(ROWS), FED, wanted)
    assert torch.equal(picked, whole.flatten(0, 1)[wanted])


@pytest.mark.parametrize(
    "other", [{"step": 6}, {"layer": 0}, {"layer": 2}, {"seed": 4}, {"site": ATTENDED}]
)
def test_each_part_of_the_address_counts(other):
    plain, changed = taken(ROWS), taken(ROWS, **other)
    # Of independent draws a share of 0.09 goes in both; 12,288 units give a deviation of 0.0026.
    assert float((plain & changed).float().mean()) == pytest.approx(RATE**2, abs=0.013)


def test_every_row_position_and_unit_loses_its_share():
    gone = taken(range(64)).float()
    assert float(gone.mean()) == pytest.approx(RATE, abs=5 * 0.46 / gone.numel() ** 0.5)
    for dims, of in (((1, 2), T * D), ((0, 2), 64 * D), ((0, 1), 64 * T)):
        deviation = (RATE * (1 - RATE) / of) ** 0.5
        assert float((gone.mean(dims) - RATE).abs().max()) < 5 * deviation
    neighbours = [
        (gone[1:], gone[:-1]),
        (gone[:, 1:], gone[:, :-1]),
        (gone[..., 1:], gone[..., :-1]),
    ]
    for a, b in neighbours:
        assert float((a * b).mean()) == pytest.approx(RATE**2, abs=5 * 0.29 / a.numel() ** 0.5)


def test_what_stays_is_enlarged_and_has_the_gradient():
    x = torch.randn(2, T, D, requires_grad=True)
    y = Dropout(RATE)(x, draws(ROWS[:2]), FED)
    y.sum().backward()
    stays = ~taken(ROWS[:2])
    torch.testing.assert_close(y, x * stays / (1 - RATE))
    torch.testing.assert_close(x.grad, stays / (1 - RATE))


def test_evaluation_and_a_rate_of_zero_drop_nothing():
    x = torch.randn(1, T, D)
    assert torch.equal(Dropout(0.0)(x, draws(ROWS[:1]), FED), x)
    assert torch.equal(Dropout(RATE).eval()(x, draws(ROWS[:1]), FED), x)


BLOCKS = np.array([[0, 0, 20, 40], [1, 0, 3, 5], [1, 5, 30, 48], [3, 0, 0, 40]], np.int32)


@pytest.mark.parametrize("way", ["native", "plain", "dense"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_weights_of_a_row_do_not_depend_on_the_rows_beside_it(way, dtype, monkeypatch):
    if way == "native":
        require_native()
    else:
        monkeypatch.setattr(packed, "load_native", lambda: None)
    generator = torch.Generator().manual_seed(0)
    made = torch.randn(3, 4, T, 2, 8, generator=generator).to(dtype)

    def attend(rows):
        q, k, v = (x[rows].clone().requires_grad_() for x in made)
        blocks = np.concatenate([
            BLOCKS[BLOCKS[:, 0] == row] * [0, 1, 1, 1] + [at, 0, 0, 0]
            for at, row in enumerate(rows)
        ]).astype(np.int32)  # fmt: skip
        of_rows = draws([ROWS[row] for row in rows])
        kind = DenseMask.of if way == "dense" else PackedMask
        call = dense_attention if way == "dense" else packed_attention
        out = call(q, k, v, kind(blocks, (len(rows), T)), RATE, None, of_rows)
        return out.detach(), *torch.autograd.grad(out.float().square().sum(), (q, k, v))

    whole = attend([0, 1, 2, 3])
    for rows in ([1], [0, 3], [2, 3]):
        for part, of_all in zip(attend(rows), whole, strict=True):
            # Products of other shapes are rounded otherwise; a weight more or less is ten times it.
            near = 1e-6 if dtype == torch.float32 else 1e-2
            torch.testing.assert_close(part, of_all[rows], rtol=near, atol=near)
    before = torch.get_rng_state()
    attend([1])
    assert torch.equal(torch.get_rng_state(), before)  # torch's generator is not asked
    assert draws(ROWS).seeds[ATTENTION].unique().numel() == len(ROWS)


LONG = 230
LONG_BLOCKS = np.array([[0, 0, 130, 230], [1, 0, 9, 140], [1, 140, 150, 228]], np.int32)


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("way", ["native", "plain", "dense"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_parts_of_the_heads_lose_what_they_lose_among_all(way, dtype, parts, monkeypatch):
    if way == "native":
        require_native()
    else:
        monkeypatch.setattr(packed, "load_native", lambda: None)
    generator = torch.Generator().manual_seed(0)
    made = torch.randn(3, 2, LONG, 6, 8, generator=generator).to(dtype)
    of_rows = address_draws(3, 5, ROWS[:2], num_layers=2, length=LONG).layer(1)
    kind = DenseMask.of if way == "dense" else PackedMask
    call = dense_attention if way == "dense" else packed_attention

    def attend(part, parts):
        q, k, v = (x.chunk(parts, dim=2)[part].clone().requires_grad_() for x in made)
        mask = kind(LONG_BLOCKS, (2, LONG))
        out = call(q, k, v, mask, RATE, None, of_rows.in_parts(part, parts))
        return out.detach(), *torch.autograd.grad(out.float().square().sum(), (q, k, v))

    pieces = zip(*(attend(part, parts) for part in range(parts)), strict=True)
    for of_parts, whole in zip(pieces, attend(0, 1), strict=True):
        near = 1e-6 if dtype == torch.float32 else 1e-2
        torch.testing.assert_close(torch.cat(of_parts, dim=2), whole, rtol=near, atol=near)


def test_a_part_of_a_rows_positions_loses_what_it_loses_in_the_whole_row():
    x = torch.randn(len(ROWS), T, D)
    whole = Dropout(RATE)(x, draws(ROWS), FED)
    for part, piece in enumerate(x.chunk(3, dim=1)):
        found = Dropout(RATE)(piece, draws(ROWS).in_parts(part, 3), FED)
        assert torch.equal(found, whole.chunk(3, dim=1)[part])
    assert torch.equal(Dropout(RATE)(x, draws(ROWS).in_parts(2, 3), FED), whole)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler imports modules that warn
def test_a_compiled_graph_takes_the_same_units():
    wanted, x = torch.tensor([0, 5, T, 4 * T - 1]), torch.ones(len(ROWS), T, D)
    drop = Dropout(RATE)
    compiled = torch.compile(lambda *args: drop(*args), dynamic=False)
    for args in ((x, draws(ROWS), ATTENDED), (x.flatten(0, 1)[wanted], draws(ROWS), FED, wanted)):
        assert torch.equal(compiled(*args), drop(*args))
