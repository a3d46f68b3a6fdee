"""Matrices in 16 bits: the products are those of the widened matrix."""

import pytest
import torch
from torch.nn import functional

from blankfill.model import linear
from blankfill.model.linear import Linear, product

HALF = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("pieces", [1, 2, 7])
@pytest.mark.parametrize("shape", [(16,), (3, 16), (2, 5, 16)])
def test_a_narrow_matrix_multiplies_as_if_it_were_widened(dtype, pieces, shape, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x, bias = torch.randn(shape, generator=generator), torch.randn(14, generator=generator)
    matrix = torch.randn(14, 16, generator=generator).to(dtype)
    monkeypatch.setattr(linear, "PIECE_ELEMENTS", 14 * 16 // pieces)
    exact = functional.linear(x.double(), matrix.double(), bias.double())
    made = product(x, matrix, bias)
    assert made.dtype == torch.float32
    # Sixteen products in float32: nothing of the eight or eleven bits of a half is to be seen.
    assert torch.allclose(made.double(), exact, rtol=0, atol=1e-5)
    assert torch.allclose(product(x, matrix).double(), exact - bias.double(), rtol=0, atol=1e-5)


def test_under_autocast_the_device_multiplies_in_the_type_that_was_asked_for():
    x, matrix = torch.randn(3, 16), torch.randn(8, 16, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert product(x, matrix).dtype == torch.bfloat16


def test_a_matrix_of_its_input_s_type_takes_the_ordinary_way():
    layer, x = Linear(16, 8), torch.randn(3, 16)
    assert torch.equal(layer(x), functional.linear(x, layer.weight, layer.bias))
    wide = layer.double()
    assert wide(x.double()).dtype == torch.float64
