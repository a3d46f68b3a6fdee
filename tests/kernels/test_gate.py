"""GeGLU's gate that is compiled from C beside the tensor operations of `model/mlp.py`."""

import pytest
import torch
from torch.nn import functional

from blankfill.config.model import ModelConfig
from blankfill.kernels import gate as module
from blankfill.kernels.gate import geglu_in_c
from blankfill.kernels.native import load_native
from blankfill.model.mlp import build_mlp
from kernels.native_forms import FORMS, native_form
from model.attention_cases import require_native

UNIT = torch.finfo(torch.bfloat16).eps / 2


def draw(shape=(3, 5, 37)):
    """Values to both ends of what the activation bends, and beyond."""
    generator = torch.Generator().manual_seed(0)
    made = [4 * torch.randn(shape, generator=generator) for _ in range(3)]
    return [x.bfloat16().requires_grad_() for x in made]


@pytest.mark.parametrize("form", FORMS)
def test_value_and_gradients_are_rounded_once(form, monkeypatch):
    monkeypatch.setattr(module, "load_native", lambda: native_form(form))
    up, gate, grad = draw()
    grad = grad.detach()
    value = geglu_in_c(up, gate)
    made = [value.detach(), *torch.autograd.grad(value, (up, gate), grad)]
    wide = [x.detach().double().requires_grad_() for x in (up, gate)]
    exact = wide[0] * functional.gelu(wide[1])
    exact = [exact.detach(), *torch.autograd.grad(exact, wide, grad.double())]
    # The integral of the normal distribution is good to 2e-7, times what it is multiplied by.
    sizes = [up * gate, grad * gate, grad * up * (1 + gate.abs())]
    for ours, theirs, size in zip(made, exact, sizes, strict=True):
        bound = UNIT * theirs.abs() + 3e-7 * size.detach().double().abs()
        assert ((ours.double() - theirs).abs() <= bound).all()


def test_ends_of_the_scale_and_what_is_not_a_number():
    require_native()
    gate = torch.tensor([0.0, -0.0, 1e30, -1e30, float("inf"), float("nan"), 2.0]).bfloat16()
    up = torch.ones_like(gate)
    value = geglu_in_c(up, gate)
    expected = functional.gelu(gate.double()).bfloat16()
    assert torch.equal(value[:5], expected[:5])
    assert value.isnan().tolist() == [False] * 5 + [True, False]


def test_nothing_is_nothing():
    require_native()
    assert geglu_in_c(*(x[:0] for x in draw()[:2])).shape == (0, 5, 37)


@pytest.mark.parametrize(("activation", "dtype"), [
    ("geglu", torch.float32), ("geglu", torch.float16), ("swiglu", torch.bfloat16),
])  # fmt: skip
def test_other_layers_take_the_tensor_operations(activation, dtype, monkeypatch):
    monkeypatch.setattr(module, "load_native", None)
    cfg = ModelConfig(hidden_size=16, ffn_size=24, num_heads=2, activation=activation)
    assert build_mlp(cfg).to(dtype)(torch.ones(2, 16, dtype=dtype)).shape == (2, 16)


def test_the_layer_takes_it_and_is_as_good_as_by_tensor_operations(monkeypatch):
    require_native()
    torch.manual_seed(0)
    layer = build_mlp(ModelConfig(hidden_size=16, ffn_size=24, num_heads=2))
    x = torch.randn(50, 16)
    exact = layer.double()(x.double())
    layer.float()
    errors = []
    for native in (load_native, lambda: None):
        monkeypatch.setattr(module, "load_native", native)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            errors.append(float((layer(x).double() - exact).detach().norm()))
    assert errors[0] <= 1.1 * errors[1]
    assert errors[0] != errors[1]
