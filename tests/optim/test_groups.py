import numpy as np
import pytest
import torch

from blankfill.config.model import ModelConfig
from blankfill.config.optimizer import OptimizerConfig
from blankfill.errors import CheckpointError
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights
from blankfill.optim.groups import build_optimizer
from optim.rounding import rounding_of_muon

SMALL = ModelConfig(
    vocab_size=64, hidden_size=16, num_layers=2, num_heads=2, ffn_size=24, max_position=32
)


def small_model():
    model = GLM(SMALL)
    init_weights(model, 1)
    for i, parameter in enumerate(model.parameters()):
        parameter.grad = torch.randn(
            parameter.shape, generator=torch.Generator().manual_seed(i), dtype=parameter.dtype
        )
    return model


def config(**changes):
    return OptimizerConfig(weight_decay=0.1, **changes)


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest():
    tensors = stepped(config(kind="muon")).tensors()
    by_muon = {name.split(".", 1)[1] for name in tensors if name.startswith("momentum_buffer.")}
    by_adamw = {name.split(".", 1)[1] for name in tensors if name.startswith("exp_avg.")}
    names = dict(small_model().named_parameters())
    assert by_muon == {n for n, p in names.items() if p.ndim == 2 and n.startswith("blocks.")}
    assert by_adamw == set(names) - by_muon


def test_queries_keys_values_and_the_halves_of_a_gate_are_matrices_of_their_own():
    names = [n for n, p in small_model().named_parameters() if p.ndim == 2 and ".0." in n]
    ends = {name.removeprefix("blocks.0.").removesuffix(".weight") for name in names}
    assert ends == {f"attention.{part}" for part in ("q", "k", "v", "out")} | {
        f"mlp.{part}" for part in ("up", "gate", "down")
    }


def stepped(cfg, model=None, **options):
    model = model or small_model()
    optimizer = build_optimizer(model, cfg, lr=1e-2, **options)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_first_step_of_muon_is_the_orthogonal_factor_of_the_gradient(dtype):
    # With U S V^T the singular value decomposition of the gradient, the exact update is
    # 0.2 sqrt(larger side) U V^T (Liu et al. 2025). Muon's polynomials end with singular values
    # between 0.73 and 1.27, and leave singular vectors alone; rounding comes on top.
    model = small_model()
    name = "blocks.0.attention.out.weight"
    parameter = dict(model.named_parameters())[name]
    before, gradient = parameter.detach().double().numpy().copy(), parameter.grad.double()
    stepped(config(kind="muon"), model, muon_dtype=dtype)
    after = parameter.detach().double().numpy()
    move = (before * (1 - 1e-2 * 0.1) - after) / (1e-2 * 0.2 * np.sqrt(max(before.shape)))
    u, _, vt = np.linalg.svd(gradient.numpy(), full_matrices=False)
    inner = u.T @ move @ vt.T
    bound = rounding_of_muon(gradient, dtype)
    bound += 1e-5  # of the float32 weights, about 0.05, where the step is 0.01 * 0.8 of `inner`
    values, allowed = np.diag(inner), np.diag(bound)
    assert (values > 0.73 - allowed).all()
    assert (values < 1.27 + allowed).all()
    off_diagonal = ~np.eye(len(inner), dtype=bool)
    assert (np.abs(inner) <= bound)[off_diagonal].all()
    assert np.median(bound) < 0.05  # an orthogonal factor could not be told from noise otherwise


def test_adamw_agrees_with_its_formula_in_float64():
    # The first step of AdamW moves by lr * g / (|g| + eps), after decay; float32 rounds at 1e-7.
    model = small_model()
    before = {n: p.detach().double().clone() for n, p in model.named_parameters()}
    grads = {n: p.grad.double().clone() for n, p in model.named_parameters()}
    stepped(config(), model)
    for name, parameter in model.named_parameters():
        decay = 0.1 if parameter.ndim >= 2 else 0.0
        expected = before[name] * (1 - 1e-2 * decay) - 1e-2 * grads[name].sign()
        torch.testing.assert_close(parameter.detach().double(), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_state_comes_back_from_its_tensors(optimizer):
    cfg = config(kind=optimizer)
    whole, parts = small_model(), small_model()
    first, second = stepped(cfg, whole), stepped(cfg, parts)
    again = build_optimizer(parts, cfg, lr=1e-2)
    again.load({name: value.clone() for name, value in second.tensors().items()})
    first.step()
    again.step()
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_state_before_the_first_step_is_none_again(optimizer):
    cfg = config(kind=optimizer)
    fresh = build_optimizer(small_model(), cfg, lr=1e-2)
    nothing = fresh.tensors()
    used = stepped(cfg)
    assert used.tensors()
    used.load(nothing)
    assert used.tensors() == nothing == {}


def test_state_of_another_optimizer_is_refused():
    tensors = stepped(config()).tensors()
    with pytest.raises(CheckpointError, match="momentum_buffer"):
        build_optimizer(small_model(), config(kind="muon"), lr=1e-2).load(tensors)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_embeddings_move_at_their_share_of_the_rate(optimizer):
    # AdamW's first step is the learning rate in every coordinate, so half of it is half the way.
    moved = []
    for share in (1.0, 0.5):
        model, cfg = small_model(), config(kind=optimizer, embedding_lr_ratio=share)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        made = build_optimizer(model, cfg, lr=1.0)
        made.set_lr(1e-2)
        made.step()
        moved.append({n: before[n] - p.detach() for n, p in model.named_parameters()})
    whole, half = moved
    for name in whole:
        share = 0.5 if name.startswith("embed.") else 1.0
        torch.testing.assert_close(half[name], share * whole[name], rtol=1e-4, atol=1e-7)
