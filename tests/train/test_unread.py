"""Without waiting for a device: numbers are read when they are logged, and nothing is lost by it.

The engine does on this CPU what it does on a GPU; what is read is counted.
"""

import json

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from blankfill.engine import engine as engine_module
from blankfill.engine.local import must_read_each_step
from blankfill.errors import TrainingError
from blankfill.metrics import read_metrics
from blankfill.runs import newest_checkpoint
from train.conftest import CFG, same, weights

CFG = CFG.changed({"train.steps": 12, "train.log_every": 4, "train.attention": "dense"})
READS = {"_local_scalar_dense", "is_nonzero", "nonzero", "item"}
"""Operations of torch that wait for a device."""


class Reads(TorchDispatchMode):
    """Counts what a step reads: single values, and numbers that are read together."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.together, self.values = 0, 0
        read = engine_module.read_together

        def counted(tensors):
            self.together += 1
            return read(tensors)

        monkeypatch.setattr(engine_module, "read_together", counted)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.values += func.overloadpacket.__name__ in READS
        return func(*args, **(kwargs or {}))


def spoil(trainer, index, value=float("nan")):
    """Make the loss of one step not finite, and with it its gradient, as an overflow would."""
    plain = trainer.engine.forward_backward

    def spoiled(batches, total_weight, *, step):
        if step == index:
            return plain(batches, value, step=step)
        return plain(batches, total_weight, step=step)

    trainer.engine.forward_backward = spoiled


@pytest.fixture
def ahead(make_trainer, tmp_path):
    """A function that makes a trainer that does not wait."""

    def make(name, cfg=CFG):
        return make_trainer(tmp_path / name, cfg, reads_each_step=False, dtype=torch.float32)

    return make


@pytest.mark.usefixtures(
    "tensor_operations"
)  # the forms in C read, on the CPU, what they are given
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_nothing_is_read_between_logging_steps(kind, ahead, monkeypatch):
    trainer = ahead("run", CFG.changed({"optimizer.kind": kind, "optimizer.ema_decay": 0.9}))
    seen = []
    with trainer.open_loader() as loader, Reads(monkeypatch) as reads:
        for _ in range(12):
            trainer.step(loader)
            seen.append((reads.together, reads.values))
    together = [number for number, _ in seen]
    assert together == [0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12]
    assert [values for _, values in seen] == [0] * 12


def test_a_value_that_is_read_is_counted(monkeypatch):
    with Reads(monkeypatch) as reads:
        assert torch.ones(3).sum().item() == 3
        assert float(torch.ones(())) == 1
        assert torch.ones(()) == 1
    assert reads.values >= 3


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_run_that_does_not_wait_is_the_same_run(kind, ahead, make_trainer, tmp_path):
    cfg = CFG.changed({"optimizer.kind": kind, "optimizer.ema_decay": 0.9})
    runs = [make_trainer(tmp_path / "waits", cfg, dtype=torch.float32), ahead("ahead", cfg)]
    for run in runs:
        run.fit()
    assert same(*runs)
    rows = [read_metrics(run.run) for run in runs]
    timed = {"positions_per_second", "targets_per_second", "flops_per_second_model",
             "flops_per_second_dense", "peak_flops_per_second", "mfu"}  # fmt: skip
    kept = [[{k: v for k, v in row.items() if k not in timed} for row in of] for of in rows]
    assert kept[0] == kept[1]
    assert [row["step"] for row in kept[1]] == [4, 8, 12]
    states = [newest_checkpoint(run.run).state.training for run in runs]
    assert states[0].guard == states[1].guard
    averages = [run.engine.ema for run in runs]
    for name, value in averages[0].items():
        # The share that moves is a product on the device: one more rounding.
        torch.testing.assert_close(averages[1][name], value, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("index", [0, 5])
def test_a_step_that_is_not_finite_moves_nothing(kind, index, ahead):
    cfg = CFG.changed({"optimizer.kind": kind, "optimizer.ema_decay": 0.9})
    trainer, twin = ahead("run", cfg), ahead("twin", cfg.changed({"train.skip_steps": str(index)}))
    spoil(trainer, index)
    for run in (trainer, twin):
        with run.open_loader() as loader:
            for _ in range(7):
                run._settle = lambda: None  # what the guard makes of it is tested below
                run.step(loader)
    assert same(trainer, twin)
    for name, value in trainer.engine.tensors()["optimizer"].items():
        assert torch.equal(value, twin.engine.tensors()["optimizer"][name]), name
    for name, value in trainer.engine.ema.items():
        assert torch.equal(value, twin.engine.ema[name]), name


def test_the_guard_names_the_step_and_the_run_ends_with_its_work_saved(ahead):
    trainer = ahead("run")
    spoil(trainer, 5)
    with pytest.raises(TrainingError, match=r"^step 5: not finite: .* dropped; seen at step 8; "):
        trainer.fit()
    page = json.loads((trainer.run / "incidents" / "step-00000005.json").read_text())
    assert page["loss_nats"] == "nan"
    assert page["gradient_norms"] == {}
    assert page["examples_in_batch"] > 0
    saved = newest_checkpoint(trainer.run)
    assert saved.step == 8
    assert len(saved.state.training.guard.losses) == 7  # all but the one that was dropped
    again = ahead("again")
    again.restore(saved)
    assert again.fit()


def test_a_spike_is_told_of_its_own_step_and_the_run_goes_on(ahead, caplog):
    cfg = CFG.changed({"guard.spike_window": 2, "guard.spike_threshold": 1.0})
    trainer = ahead("run", cfg)
    spoil(trainer, 6, 1.0)  # losses are a sum over the targets in place of their mean
    assert trainer.fit()
    assert "step 6: loss spike" in caplog.text
    assert (trainer.run / "incidents" / "step-00000006.md").exists()


def test_weights_that_are_not_finite_end_the_run_unsaved(ahead):
    trainer = ahead("run")
    with trainer.open_loader() as loader:
        trainer.step(loader)
    before = weights(trainer)
    next(iter(trainer.engine.model.parameters())).data[0, 0] = float("inf")
    with pytest.raises(TrainingError, match="weights not finite"):
        trainer.fit()
    assert not (trainer.run / "checkpoints").exists()
    assert len(before) == len(weights(trainer))


@pytest.mark.parametrize(("device", "dtype", "policy", "reads"), [
    ("cpu", torch.float32, "log", True),
    ("cuda", torch.bfloat16, "log", False),
    ("cuda", torch.float32, "log", False),
    ("cuda", torch.float16, "log", True),
    ("cuda", torch.bfloat16, "skip", True),
    ("cuda", torch.bfloat16, "rollback", True),
    ("cuda", torch.bfloat16, "stop", True),
])  # fmt: skip
def test_each_step_is_read_where_something_depends_on_it(device, dtype, policy, reads):
    cfg = CFG.changed({"guard.on_spike": policy})
    assert must_read_each_step(cfg, torch.device(device), dtype) == reads
