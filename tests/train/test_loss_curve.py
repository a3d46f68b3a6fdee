"""A recorded loss curve: what a run computes may not change without a word.

Two tiny runs are trained for 20 steps and compared with what they gave when the curve was recorded,
in `tests/golden/loss_curve.json`. Only tensor operations of torch take part, in float32 and on one
thread. Another processor or another build of torch sums in another order: with torch's vector
instructions limited to AVX2 and to none, with MKL held to its oldest code, and with the forms in C,
losses moved by up to 2e-7 of their size and gradient norms by up to 3e-7 (EPYC, torch 2.13). The
tolerances are ten times that.

After a change that is meant, `BLANKFILL_RECORD=1 pytest tests/train/test_loss_curve.py` records the
curve anew.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from blankfill.config.model import ModelConfig
from blankfill.config.objective import ObjectiveConfig
from blankfill.config.optimizer import OptimizerConfig
from blankfill.config.run import RunConfig
from blankfill.config.schedule import ScheduleConfig
from blankfill.config.train import TrainConfig
from blankfill.engine import device
from conftest import MemoryStore

FILE = Path(__file__).parents[1] / "golden" / "loss_curve.json"
TOLERANCE = {"loss_nats": 2e-6, "grad_norm": 3e-6, "learning_rate": 1e-12}
"""Relative; a learning rate is arithmetic of Python."""

# What is not named here is the default, so that a default that changes is seen as well.
TRAIN = TrainConfig(steps=20, row_length=96, batch_rows=4, micro_batch_rows=2)
SIZES = {"vocab_size": 200, "hidden_size": 32, "num_layers": 2, "num_heads": 2, "ffn_size": 48}
RUNS = {
    "default": RunConfig(
        model=ModelConfig(**SIZES), train=TRAIN,
        schedule=ScheduleConfig(warmup_steps=4, peak_lr=1e-2),
    ),
    "other": RunConfig(
        model=ModelConfig(**SIZES, block="pre_ln", activation="gelu", positions="learned_2d"),
        objective=ObjectiveConfig(
            short_rate=0.4, sentence_rate=0.2, document_rate=0.2, causal_rate=0.2,
        ),
        optimizer=OptimizerConfig(kind="muon", weight_decay=0.05, max_grad_norm=0.5),
        train=TrainConfig(
            steps=20, row_length=96, batch_rows=4, micro_batch_rows=2, z_loss=1e-3, seed=3
        ),
        schedule=ScheduleConfig(kind="wsd", warmup_steps=2, peak_lr=1e-2, cooldown_steps=8),
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def same_on_every_processor(tensor_operations, monkeypatch):
    """Leave out the forms in C and Muon's bfloat16, which not every processor has."""
    monkeypatch.setattr(device, "lowest_precision", lambda _: torch.float32)


@pytest.fixture
def curve(make_trainer, tmp_path):
    """A function that trains a run and gives its numbers, step by step."""

    def train(cfg):
        trainer = make_trainer(tmp_path / "run", cfg, store=counting(), dtype=torch.float32)
        with trainer.open_loader() as loader:
            steps = [trainer.step(loader) for _ in range(cfg.train.steps)]
        return {
            "loss_nats": [step.loss_nats for step in steps],
            "grad_norm": [step.grad_norm for step in steps],
            "learning_rate": [step.lr for step in steps],
        }

    return train


def counting():
    """Documents that count up in steps of their own, which a model learns within a few steps."""
    rng = np.random.default_rng(0)
    return MemoryStore([
        (rng.integers(192) + rng.integers(1, 6) * np.arange(n)) % 192 + 8
        for n in [5, 17, 30, 44, 120, 9, 60, 33] * 6
    ])  # fmt: skip


def differs(found, recorded):
    """Say which numbers differ by more than their tolerance, and by how much at most."""
    return {
        name: float(np.max(np.abs(np.array(found[name]) / np.array(recorded[name]) - 1)))
        for name, tolerance in TOLERANCE.items()
        if not np.allclose(found[name], recorded[name], rtol=tolerance, atol=0)
    }


@pytest.mark.parametrize("name", RUNS)
def test_a_run_has_the_losses_that_were_recorded(name, curve):
    found = curve(RUNS[name])
    kept = json.loads(FILE.read_text()) if FILE.exists() else {}
    if os.environ.get("BLANKFILL_RECORD"):
        FILE.write_text(json.dumps(kept | {name: found}, indent=1) + "\n")
        pytest.skip("recorded")
    assert found["loss_nats"][-1] < 0.9 * found["loss_nats"][0]  # it learns, so that all matters
    assert differs(found, kept[name]) == {}


@pytest.mark.parametrize("change", [
    {"objective.mean_span_length": 3.05},
    {"train.seed": 2},
    {"model.norm_eps": 2e-5},
    {"model.embedding_gradient_shrink": 0.999},
    {"optimizer.beta1": 0.9001},
    {"optimizer.beta2": 0.9501},
    {"optimizer.eps": 1e-6},
    {"optimizer.weight_decay": 0.101},
    {"optimizer.max_grad_norm": 0.999},
    {"schedule.min_lr_ratio": 0.1001},
], ids=str)  # fmt: skip
def test_a_small_change_of_the_recipe_is_seen(change, curve):
    recorded = json.loads(FILE.read_text())["default"]
    assert "loss_nats" in differs(curve(RUNS["default"].changed(change)), recorded)
