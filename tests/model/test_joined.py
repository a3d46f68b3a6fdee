"""Layers of one input as one product: the same numbers, names and values, of a model in use."""

import copy

import pytest
import torch

from blankfill.config.model import ModelConfig
from blankfill.generate.loading import make_ready
from blankfill.model import GLM, init_weights
from blankfill.model.linear import Joined, Linear
from blankfill.model.masks import DenseMask
from blankfill.model.quantized import quantize, settle
from blankfill.model.targets import Targets


def build(bits=None, **options):
    cfg = ModelConfig(
        vocab_size=64, hidden_size=32, num_layers=2, num_heads=2, ffn_size=64, max_position=32,
        **options,
    )  # fmt: skip
    model = GLM(cfg).eval()
    init_weights(model, 0)
    if bits is not None:
        quantize(model, bits)
    return model


def answers(model, dtype=torch.float32):
    """Logits of a batch, and the losses of some of its positions."""
    tokens, positions = torch.arange(8, 32).view(2, 12), torch.arange(12).expand(2, 2, 12)
    mask = DenseMask(torch.ones(2, 12, 12, dtype=torch.bool))
    targets = Targets(torch.tensor([3, 7, 20]), torch.tensor([1, 2, 3]))
    hidden = model(tokens, positions, mask)
    assert hidden.dtype == dtype
    return model.logits(hidden), model(tokens, positions, mask, targets=targets).nats


@pytest.mark.parametrize("bits", [None, 8, 4])
@pytest.mark.parametrize("activation", ["geglu", "gelu"])
def test_a_model_made_ready_computes_what_it_did(bits, activation):
    apart, ready = (build(bits, activation=activation) for _ in range(2))
    with torch.inference_mode():
        settle(apart)
        make_ready(ready)
        for one, other in zip(answers(apart), answers(ready), strict=True):
            # Codes are summed alike wherever they lie; floats up to rounding.
            assert torch.equal(one, other) if bits else torch.allclose(one, other, atol=1e-5)


def test_names_and_values_stay_and_no_memory_is_added():
    model = build()
    before = copy.deepcopy(model.state_dict())
    make_ready(model)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    attention = model.blocks["0"].attention
    storages = {x.weight.untyped_storage().data_ptr() for x in (attention.q, attention.v)}
    assert len(storages) == 1


@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_parts_keep_no_memory_of_their_own(bits):
    model = make_ready(build(bits))
    parts = [model.blocks["0"].attention.q.weight, model.blocks["0"].attention.v.weight]
    held = [part.codes.untyped_storage().data_ptr() for part in parts if part.codes.numel()]
    assert len(set(held)) <= 1
    assert model(torch.zeros(1, 3).long(), torch.zeros(1, 2, 3).long(), DenseMask(
        torch.ones(1, 3, 3, dtype=torch.bool)
    )).isfinite().all()  # fmt: skip


def test_a_gradient_reaches_each_layer():
    model = make_ready(build())
    answers(model)[0].sum().backward()
    assert all(parameter.grad is not None for parameter in model.blocks.parameters())


def test_values_that_were_moved_or_changed_are_what_counts():
    model = make_ready(build())
    with torch.no_grad():
        first = answers(model)[0]
        model.blocks["0"].attention.q.weight.mul_(3)  # in the memory of the whole
        changed = answers(model)[0]
        assert not torch.allclose(first, changed)
        wide = copy.deepcopy(model).double()  # elsewhere
        assert torch.allclose(answers(wide, torch.float64)[0].float(), changed, atol=1e-5)
        model.blocks["0"].attention.q.weight.data = torch.zeros(32, 32)
        assert not torch.allclose(answers(model)[0], changed)


def test_layers_of_different_widths_are_joined():
    layers, x = [Linear(16, 8), Linear(16, 24)], torch.randn(3, 16)
    with torch.no_grad():
        apart = torch.cat([layer(x) for layer in layers], dim=-1)
        joined = Joined(*layers)
        assert joined.serves
        assert torch.allclose(joined(x), apart, atol=1e-6)
    assert not joined.serves
