"""The loss beside torch's own cross-entropy on every position."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from blankfill.config.model import ModelConfig
from blankfill.engine.device import precision_context
from blankfill.model.attention import pick
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights
from blankfill.model.loss import target_loss
from blankfill.model.masks import PackedMask
from blankfill.model.targets import IGNORE_INDEX, Targets

CFG = ModelConfig(vocab_size=97, hidden_size=32, num_layers=2, num_heads=2, ffn_size=48)


def draw(dtype=torch.float64, share=0.4):
    generator = torch.Generator().manual_seed(0)
    model = GLM(CFG)
    init_weights(model, 0)
    with torch.no_grad():
        model.embed.word.weight.mul_(10)
    hidden = torch.randn(2, 50, 32, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 97, (2, 50), generator=generator)
    chosen = torch.rand(2, 50, generator=generator) < share
    weights = torch.rand(2, 50, generator=generator)
    targets = targets.masked_fill(~chosen, IGNORE_INDEX)
    return model.to(dtype), hidden.to(dtype).requires_grad_(), targets, weights


def blank_loss(model, hidden, targets, weights=None, z_loss=0.0):
    """The loss of hidden states of all positions."""
    made = Targets.of(targets, weights)
    return target_loss(pick(hidden, made.index), model.head_weight, made, z_loss)


def by_torch(model, hidden, targets, weights, z_loss):
    logits = model.logits(hidden).flatten(0, 1).double()
    each = functional.cross_entropy(logits, targets.flatten(), reduction="none")
    chosen = targets.flatten() != IGNORE_INDEX
    each = (each + z_loss * logits.logsumexp(-1) ** 2) * chosen
    return (each * (1 if weights is None else weights.flatten())).sum()


# Float64 leaves rounding alone; float32 sums 32 and 97 terms of size 10.
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("z_loss", [0.0, 0.01])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_loss_and_gradients_are_torchs(dtype, rtol, z_loss, weighted, rows, monkeypatch):
    monkeypatch.setattr("blankfill.model.loss.MIN_CHUNK_ROWS", rows)
    monkeypatch.setattr("blankfill.model.loss.CHUNK_ELEMENTS", 0)
    model, hidden, targets, weights = draw(dtype)
    weights = weights if weighted else None
    inputs = (hidden, model.embed.word.weight)
    ours, _ = blank_loss(model, hidden, targets, weights, z_loss)
    # A factor on the loss, as the mean over targets is.
    grads = torch.autograd.grad(ours * 0.3, inputs)
    expected = by_torch(model, hidden, targets, weights, z_loss)
    theirs = torch.autograd.grad(expected * 0.3, inputs)
    torch.testing.assert_close(ours.double(), expected, rtol=rtol, atol=0)
    for a, b in zip(grads, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * float(b.abs().max()))


def test_each_nll_leaves_weights_and_z_loss_out():
    model, hidden, targets, weights = draw()
    nll = blank_loss(model, hidden, targets, weights, 0.5)[1]
    logits = model.logits(hidden)[targets != IGNORE_INDEX]
    each = functional.cross_entropy(logits, targets[targets != IGNORE_INDEX], reduction="none")
    torch.testing.assert_close(nll, each, rtol=1e-10, atol=1e-12)


def test_an_impossible_target_costs_what_its_logit_says():
    # Its probability, exp(-400), is zero in float32; its loss is not.
    model, hidden, targets, _ = draw(torch.float32)
    with torch.no_grad():
        hidden[:] = 0
        hidden[..., 0] = 1
        model.embed.word.weight[:] = 0
        model.embed.word.weight[5, 0] = 400
    targets[:] = 3
    nll = blank_loss(model, hidden, targets)[1]
    assert torch.equal(nll, torch.full((100,), 400.0))


def test_no_target_is_no_loss_and_no_gradient():
    model, hidden, targets, _ = draw()
    loss, nll = blank_loss(model, hidden, torch.full_like(targets, IGNORE_INDEX))
    grads = torch.autograd.grad(loss, (hidden, model.embed.word.weight))
    assert float(loss.detach()) == 0
    assert not len(nll)
    assert not any(g.any() for g in grads)


def test_a_graph_that_is_kept_is_gone_through_again():
    model, hidden, targets, _ = draw()
    loss, _ = blank_loss(model, hidden, targets)
    of_both = (hidden, model.embed.word.weight)
    first = torch.autograd.grad(2 * loss, of_both, retain_graph=True)
    for again in (True, False):
        for found, expected in zip(
            torch.autograd.grad(loss, of_both, retain_graph=again), first, strict=True
        ):
            assert torch.equal(2 * found, expected)
    with pytest.raises(RuntimeError, match="second time"):  # torch's own: it is gone
        loss.backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_loss_is_float32_and_close(dtype):
    model, hidden, targets, weights = draw(torch.float32)
    exact = by_torch(model, hidden, targets, weights, 0.0)
    with precision_context(dtype):
        loss, nll = blank_loss(model, hidden, targets, weights)
    assert (loss.dtype, nll.dtype) == (torch.float32, torch.float32)
    # Logits of size 10 rounded to 8 bits are 0.03 off, either way; forty of them are averaged.
    torch.testing.assert_close(loss.double(), exact, rtol=0.005, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_model_learns_in_every_precision(dtype):
    generator = torch.Generator().manual_seed(0)
    model = GLM(CFG)
    init_weights(model, 0)
    tokens = torch.randint(0, 97, (4, 24), generator=generator)
    targets = tokens.roll(3, dims=1).masked_fill(torch.arange(24) < 8, IGNORE_INDEX)
    positions = torch.arange(24).expand(4, 2, 24)
    blocks = [[row, 0, 8, 24] for row in range(4)]
    mask = PackedMask(torch.tensor(blocks, dtype=torch.int32).numpy(), (4, 24))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    scale = 1024.0 if dtype == torch.float16 else 1.0  # small gradients must not vanish in float16
    means = []
    for _ in range(40):
        with precision_context(dtype):
            loss, nll = model(tokens, positions, mask, targets=Targets.of(targets))
        (loss * (scale / len(nll))).backward()
        for parameter in model.parameters():
            parameter.grad /= scale
            assert parameter.grad.dtype == torch.float32
        optimizer.step()
        optimizer.zero_grad()
        means.append(float(nll.mean()))
    assert means[0] == pytest.approx(4.57, abs=0.6)  # log 97, from random weights
    assert means[-1] < 0.3 * means[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"block": "pre_ln"},
        {"block": "deepnorm", "qk_norm": True},
        {"block": "deepnorm_paper", "positions": "learned_2d"},
        {"block": "post_ln", "activation": "gelu", "tie_head": False},
        {"block": "sandwich", "pb_relax": 32.0, "num_layers": 1},
    ],
)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_last_block_at_targets_alone_gives_the_loss_of_all_positions(changes, share, weighted):
    cfg = dataclasses.replace(CFG, max_position=64, **changes)
    model = GLM(cfg)
    init_weights(model, 0)
    model = model.double()
    _, _, targets, weights = draw(share=share)
    tokens = torch.arange(100).view(2, 50) % 97
    positions = torch.arange(50).expand(2, 2, 50)
    blocks = np.array([[0, 0, 20, 40], [0, 40, 41, 50], [1, 0, 30, 30], [1, 30, 30, 50]], np.int32)
    rest = (tokens, positions, PackedMask(blocks, (2, 50)))
    weights = weights if weighted else None
    whole = blank_loss(model, model(*rest), targets, weights, 0.01)
    grads = torch.autograd.grad(whole[0], [*model.parameters()], allow_unused=True)
    spared = model(*rest, targets=Targets.of(targets, weights), z_loss=0.01)
    # Float64: the same sums in products of other heights.
    torch.testing.assert_close(spared, whole, rtol=1e-10, atol=1e-12)
    found = torch.autograd.grad(spared[0], [*model.parameters()], allow_unused=True)
    torch.testing.assert_close(found, grads, rtol=1e-8, atol=1e-10)
