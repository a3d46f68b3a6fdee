"""The best checkpoint: saved when a validation is the lowest so far, kept, and remembered."""

import math

import pytest

from blankfill.runs import best_validation, list_checkpoints, newest_checkpoint
from blankfill.train.validate import Validation
from train.conftest import CFG, stop_at

KEPT = CFG.changed({
    "validation.every": 2, "checkpoint.keep_best": True, "checkpoint.keep": 1,
    "checkpoint.every": 5,
})  # fmt: skip
"""Validated at 2, 4, .. 12, and saved, as far as `every` goes, at 5, 10 and 12."""


@pytest.fixture
def make(make_trainer, tmp_path):
    """A function that makes a trainer whose held-out losses are the given ones, by step."""

    def build(losses, cfg=KEPT):
        held_out = iter(losses.items())

        def validate(_):
            step, loss = next(held_out)
            assert step == trainer.index
            return Validation(values={"validation_loss_nats": loss})

        trainer = make_trainer(tmp_path / "run", cfg, validate=validate)
        return trainer

    return build


def steps(run):
    return [int(path.name.removeprefix("step-")) for path in list_checkpoints(run)]


def test_the_best_step_is_saved_although_no_checkpoint_was_due_there(make, tmp_path):
    losses = {0: 1.0, 2: 5.0, 4: 3.0, 6: 3.5, 8: math.nan, 10: 3.25, 12: 4.0}
    assert make(losses).fit()
    assert steps(tmp_path / "run") == [4, 12]
    assert best_validation(tmp_path / "run").loss_nats == 3.0


def test_without_keep_best_the_best_step_is_remembered_and_not_saved(make, tmp_path):
    losses = {0: 1.0, 2: 5.0, 4: 3.0, 6: 3.5, 8: 4.5, 10: 3.25, 12: 4.0}
    assert make(losses, KEPT.changed({"checkpoint.keep_best": False})).fit()
    assert steps(tmp_path / "run") == [12]
    assert best_validation(tmp_path / "run").step == 4


def test_a_resumed_run_knows_the_best_step_of_before(make, tmp_path):
    stop_at(make({0: 1.0, 2: 5.0, 4: 3.0, 6: 3.5}), 7)
    second = make({8: 3.25, 10: 2.5, 12: 2.75})
    second.restore(newest_checkpoint(tmp_path / "run"))
    assert second.best.step == 4
    assert second.fit()
    assert steps(tmp_path / "run") == [10, 12]
