"""A chunk of logits scored in C, beside the plain form and beside float64."""

import math

import pytest
import torch

from blankfill.kernels.native import load_native
from blankfill.model import loss
from kernels.native_forms import FORMS, native_form
from model.attention_cases import require_native
from model.test_loss import blank_loss, by_torch, draw, precision_context

TYPES = [torch.float32, torch.bfloat16]


def logits(rows, size, scale=3.0, dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(size)
    scores = (scale * torch.randn(rows, size, generator=generator)).to(dtype)
    return scores, torch.randint(0, size, (rows,), generator=generator)


def score(scores, targets, *, gradient=True, z_loss=0.0, form=None):
    scores, normalizer, nats = scores.clone(), *torch.empty(2, len(scores)).unbind()
    native_form(form).score_chunk(
        scores, targets, normalizer, nats, gradient=gradient, z_loss=z_loss
    )
    return scores, normalizer, nats


@pytest.mark.parametrize("size", [1, 2, 15, 97, 3000])
@pytest.mark.parametrize("z_loss", [0.0, 0.01])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", TYPES)
def test_a_chunk_is_scored_to_rounding(size, z_loss, form, dtype):
    require_native()
    scores, targets = logits(7, size, dtype=dtype)
    made, normalizer, nats = score(scores, targets, z_loss=z_loss, form=form)
    exact = scores.double()
    log_sum = exact.logsumexp(-1)
    own = exact.gather(1, targets[:, None])
    # A float32 sum of `size` terms, each good to 2e-7, then a logarithm and a difference.
    bound = 2e-7 + size * 2.0**-24 + 2.0**-22 * (log_sum.abs() + own[:, 0].abs())
    assert ((normalizer - log_sum).abs() <= bound).all()
    assert ((nats - (log_sum - own[:, 0])).abs() <= bound).all()
    grad = (exact - log_sum[:, None]).exp()
    grad.scatter_add_(1, targets[:, None], -1 / (1 + 2 * z_loss * log_sum[:, None]))
    # Rounded once to their type, from what float32 knows of a difference of numbers up to 1.
    unit = torch.finfo(dtype).eps / 2
    assert ((made.double() - grad).abs() <= unit * grad.abs() + 2 * bound[:, None]).all()


@pytest.mark.parametrize("dtype", TYPES)
def test_without_a_gradient_the_logits_stay_as_they_are(dtype):
    require_native()
    scores, targets = logits(5, 97, dtype=dtype)
    kept, *found = score(scores, targets, gradient=False)
    assert torch.equal(kept, scores)
    _, *again = score(scores, targets)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


@pytest.mark.parametrize("dtype", TYPES)
def test_the_impossible_and_what_is_not_a_number_stay_in_their_rows(dtype):
    require_native()
    scores, targets = logits(5, 97, dtype=dtype)
    scores[1], scores[1, 5], targets[1] = 0, 400, 3
    scores[2, 7], targets[2] = math.nan, 3
    scores[3, 8:] = -math.inf
    targets[3] = 3
    made, normalizer, nats = score(scores, targets)
    assert float(nats[1]) == float(normalizer[1]) == 400
    assert float(made[1, 3]) == -1
    assert nats.isnan().tolist() == [False, False, True, False, False]
    assert made.isnan().all(1).tolist() == [False, False, True, False, False]
    assert made[3, 8:].eq(0).all()


@pytest.mark.parametrize("target", [-1, 97])
def test_a_target_outside_of_the_vocabulary_is_refused(target):
    require_native()
    scores, targets = logits(5, 97)
    targets[4] = target
    with pytest.raises(IndexError, match="outside of the 97 columns"):
        score(scores, targets)


def test_an_empty_chunk_is_nothing():
    require_native()
    assert [len(x) for x in score(*logits(0, 97))] == [0, 0, 0]


@pytest.mark.parametrize("dtype", TYPES)
def test_a_chunk_has_the_same_bits_on_any_number_of_threads(dtype):
    require_native()
    before, results = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(score(*logits(9, 3000, dtype=dtype)))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
@pytest.mark.parametrize("rows", [7, 1000])
@pytest.mark.parametrize("dtype", TYPES)
def test_loss_and_gradients_are_no_worse_than_the_plain_forms(z_loss, rows, dtype, monkeypatch):
    require_native()
    monkeypatch.setattr(loss, "MIN_CHUNK_ROWS", rows)
    monkeypatch.setattr(loss, "CHUNK_ELEMENTS", 0)
    model, hidden, targets, weights = draw(torch.float32)
    inputs = (hidden, model.embed.word.weight)
    exact = by_torch(model.double(), hidden.double(), targets, weights.double(), z_loss)
    exact = [exact, *torch.autograd.grad(exact, inputs)]
    model.float()
    inputs = (hidden, model.embed.word.weight)
    errors = []
    for native in (load_native, lambda: None):
        monkeypatch.setattr(loss, "load_native", native)
        with precision_context(dtype):
            value, _ = blank_loss(model, hidden, targets, weights, z_loss)
        made = [value, *torch.autograd.grad(value, inputs)]
        errors.append([float((a - b).detach().norm()) for a, b in zip(made, exact, strict=True)])
    # Both round logits, gradients and products to the type; a tenth more or less is chance in
    # bfloat16. In float32 both are at the last bit, where chance is all there is.
    most = 1.1 if dtype == torch.bfloat16 else 2
    assert all(ours <= most * plain for ours, plain in zip(*errors, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_types_take_the_plain_form(dtype):
    way = loss._way_for(torch.empty(2, 97, dtype=dtype), torch.float32)
    assert type(way) is loss._ByTensors


def test_a_part_is_added_exactly():
    require_native()
    total, part = torch.randn(31, 7), torch.randn(31, 7).bfloat16()
    expected = total + part.float()
    load_native().add_part(total, part)
    assert torch.equal(total, expected)
