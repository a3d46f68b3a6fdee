"""The best checkpoint: saved when a validation is the lowest so far, kept, and remembered."""

import logging
import math
import re

import pytest

from blankfill.metrics import RateMeter, meters
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


def test_a_validation_says_its_share_of_the_time_once_there_is_other_time(make, caplog):
    caplog.set_level(logging.INFO)
    losses = {0: 1.0, 2: 5.0, 4: 3.0, 6: 3.5, 8: 4.5, 10: 3.25, 12: 4.0}
    assert make(losses).fit()
    first, *later = [line for line in caplog.messages if "validation loss" in line]
    assert re.fullmatch(r"step 0: validation loss 1\.0000 nats; \d+\.\d s", first)
    assert all(re.search(r"\d\.\d s, \d+\.\d % of the time so far$", line) for line in later)
    assert len(later) == 6


def test_who_stops_a_run_is_told_how_long_a_long_step_takes(make_trainer, tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path / "run")
    assert trainer._at_hand() == "the first step, however long it takes"
    now = iter([0.0, 2.0, 64.0, 66.0])
    monkeypatch.setattr(meters.time, "monotonic", lambda: next(now))
    trainer._rates = RateMeter()
    trainer._rates.add(1, 1)
    assert trainer._at_hand() == "this step"
    trainer._rates.add(1, 1)
    assert trainer._at_hand() == "this step, which takes about 32 s"
    seen = []
    trainer._validate = lambda _: seen.append(trainer._at_hand())
    trainer._run_validation(None)
    assert seen == ["this validation"]
    assert trainer._at_hand() != "this validation"
