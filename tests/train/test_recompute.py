"""What is computed again in the backward pass changes memory and time, and no bit."""

import dataclasses

import pytest
import torch

from blankfill.engine.engine import Portion
from blankfill.engine.local import LocalEngine
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights
from train.conftest import CFG

DROPPING = CFG.changed({"model.dropout": 0.2, "model.block": "sandwich"})


def changed(cfg, what, way="blocks"):
    return cfg.changed({"train.recompute": what, "train.attention": way})


def run_of(make_trainer, folder, cfg, steps=2, **options):
    """Train some steps; give losses, norms and weights."""
    trainer = make_trainer(folder, cfg, **{"dtype": torch.float32, **options})
    with trainer.open_loader() as loader:
        infos = [trainer.step(loader) for _ in range(steps)]
    made = trainer.engine.model.state_dict()
    return [(info.loss_nats, info.grad_norm) for info in infos], made


def assert_equal(found, expected):
    assert found[0] == expected[0]
    assert found[1].keys() == expected[1].keys()  # names stay
    for name, value in expected[1].items():
        assert torch.equal(found[1][name], value), name


@pytest.mark.parametrize("way", ["blocks", "dense"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_computed_again_is_the_same_bit_for_bit_dropout_included(
    make_trainer, tmp_path, way, dtype
):
    expected = run_of(make_trainer, tmp_path / "none", changed(DROPPING, "none", way), dtype=dtype)
    for what in ("selective", "full"):
        cfg = changed(DROPPING, what, way)
        assert_equal(run_of(make_trainer, tmp_path / what, cfg, dtype=dtype), expected)


def kept_bytes(cfg, batch):
    """Count the bytes that the forward pass of a batch keeps for the backward pass."""
    model = GLM(cfg.model)
    init_weights(model, 1)
    engine = LocalEngine(cfg, model, dtype=torch.float32)
    made = engine.transfer(batch, Portion(first=0, num_rows=4, size=4))
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss, _ = engine.model(made.tokens, made.positions, made.mask, targets=made.targets)
    assert loss.requires_grad
    return sum(seen.values())


def test_less_is_kept_the_more_is_computed_again(rows):
    wide = dataclasses.replace(CFG, model=dataclasses.replace(CFG.model, num_layers=6))
    none, selective, full = (
        kept_bytes(changed(wide, what), rows(4)) for what in ("none", "selective", "full")
    )
    assert selective < 0.95 * none
    assert full < 0.4 * none


def test_evaluation_computes_nothing_twice(rows):
    cfg = changed(CFG, "full")
    model = GLM(cfg.model)
    init_weights(model, 1)
    engine = LocalEngine(cfg, model, dtype=torch.float32)
    made = engine.transfer(rows(2), Portion(first=0, num_rows=2, size=2))
    calls = []
    model.blocks["0"].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    with engine.evaluation() as lent:
        lent(made.tokens, made.positions, made.mask, targets=made.targets)
    assert len(calls) == 1
    loss, _ = model(made.tokens, made.positions, made.mask, targets=made.targets)
    loss.backward()
    assert len(calls) == 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler imports modules that warn
@pytest.mark.parametrize("what", ["selective", "full"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_compiled_blocks_compute_again_what_they_did(make_trainer, tmp_path, what, dropout):
    base = CFG.changed({"model.dropout": dropout})
    # Compiled blocks that compute again draw their dropout by rows.
    expected = run_of(
        make_trainer, tmp_path / "none", changed(base, "none"), compiled=True, dropout_by_row=True
    )
    found = run_of(make_trainer, tmp_path / what, changed(base, what), compiled=True)
    for (loss, norm), (other, other_norm) in zip(found[0], expected[0], strict=True):
        # Two graphs of one sum: the compiler may fuse its terms differently.
        assert loss == pytest.approx(other, rel=1e-6)
        assert norm == pytest.approx(other_norm, rel=1e-5)
