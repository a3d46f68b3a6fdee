"""The rotation that is compiled from C beside the tensor operations of `model/rope.py`."""

import pytest
import torch

from blankfill.kernels import rotation
from blankfill.model.rope import rotate, rotation_of
from kernels.native_forms import FORMS, native_form
from model.attention_cases import require_native


def draw(dtype, parts, size, shape=(3, 20), heads=4, spread=3):
    """Heads as they lie beside others in a wider tensor, positions, and a gradient."""
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(*shape, spread * heads, size, generator=generator).to(dtype)
    positions = torch.randint(0, 500, (shape[0], 2, shape[1]), generator=generator)
    grad = torch.randn(*shape, heads, size, generator=generator).to(dtype)
    return (
        wide[:, :, heads : 2 * heads].requires_grad_() if spread > 1 else wide.requires_grad_(),
        rotation_of(positions, size, parts, torch.float32),
        grad,
    )


def there_and_back(x, turn, grad):
    value = rotate(x, turn)
    return [value.detach(), *torch.autograd.grad(value, x, grad)]


@pytest.mark.parametrize(("parts", "size"), [(1, 8), (1, 64), (2, 8), (2, 36), (2, 64), (2, 144)])
@pytest.mark.parametrize("spread", [1, 3])
@pytest.mark.parametrize("form", FORMS)
def test_float32_has_the_bits_of_the_tensor_operations(parts, size, spread, form, monkeypatch):
    monkeypatch.setattr(rotation, "load_native", lambda: native_form(form))
    x, turn, grad = draw(torch.float32, parts, size, spread=spread)
    ours = there_and_back(x, turn, grad)
    monkeypatch.setattr(rotation, "load_native", lambda: None)
    assert all(torch.equal(a, b) for a, b in zip(ours, there_and_back(x, turn, grad), strict=True))


@pytest.mark.parametrize(("parts", "size"), [(1, 8), (2, 36), (2, 64)])
@pytest.mark.parametrize("form", FORMS)
def test_bfloat16_is_rounded_once(parts, size, form, monkeypatch):
    monkeypatch.setattr(rotation, "load_native", lambda: native_form(form))
    x, turn, grad = draw(torch.bfloat16, parts, size)
    ours = there_and_back(x, turn, grad)
    wide = x.detach().double().requires_grad_()
    exact = there_and_back(wide, turn, grad.double())
    for made, wanted in zip(ours, exact, strict=True):
        # Half a unit of bfloat16, and float32's rounding of two products and a sum.
        bound = torch.finfo(torch.bfloat16).eps / 2 * wanted.abs() + 1e-6
        assert ((made.double() - wanted).abs() <= bound).all()


def test_any_number_of_threads_gives_the_same_bits():
    require_native()
    before, results = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(there_and_back(*draw(torch.bfloat16, 2, 64)))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (0, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_that_lie_in_any_way_are_rotated(shape, dtype):
    x, turn, grad = draw(dtype, 2, 8, shape=shape)
    turned = x.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    ours, theirs = there_and_back(x, turn, grad), there_and_back(turned, turn, grad)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_types_take_the_tensor_operations(dtype, monkeypatch):
    monkeypatch.setattr(rotation, "load_native", None)
    x, turn, _ = draw(dtype, 2, 8)
    assert rotate(x, turn).dtype == dtype


def test_under_torchs_compiler_it_is_tensor_operations(monkeypatch):
    monkeypatch.setattr(rotation, "load_native", None)
    x, turn, _ = draw(torch.float32, 2, 8)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert rotate(x, turn).shape == x.shape
