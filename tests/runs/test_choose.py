"""A checkpoint of a run is named by `last`, `best`, its step, or its own folder."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from blankfill.config.run import RunConfig
from blankfill.errors import CheckpointError, ConfigError
from blankfill.runs import (
    BestValidation,
    choose_checkpoint,
    list_checkpoints,
    locate,
    save_checkpoint,
    set_aside,
    write_run,
)
from conftest import run_record
from runs.test_folder import TRAINING

WEIGHTS = {"model": {"a": torch.ones(2)}}


def make_run(folder, losses, *, best=None, keep=99, keep_best=False):
    """A run with a checkpoint at each step, and the held-out loss that each of them has had."""
    folder.mkdir()
    write_run(folder, run_record(RunConfig()))
    for step, loss in losses.items():
        training = replace(
            TRAINING, validation_loss_nats=loss, best=best and BestValidation(**best)
        )
        save_checkpoint(folder, step, WEIGHTS, training, keep=keep, keep_best=keep_best)
    return folder


@pytest.fixture
def run(tmp_path):
    losses = {10: 3.0, 20: 2.5, 30: None}
    return make_run(tmp_path / "run", losses, best={"step": 20, "loss_nats": 2.5})


def step(path, checkpoint=None):
    place = locate(path, checkpoint)
    return choose_checkpoint(place.run, place.checkpoint).step


@pytest.mark.parametrize(
    ("name", "expected"),
    [(None, 30), ("last", 30), ("best", 20), (10, 10), ("10", 10), (np.int64(20), 20),
     ("step-20", 20), ("step-00000010", 10)],
)  # fmt: skip
def test_a_checkpoint_is_last_best_or_a_step(run, name, expected):
    assert step(run, name) == expected


@pytest.mark.parametrize("folder", ["step-00000010", "step-10", "step-00000010/"])
def test_a_checkpoint_s_own_folder_names_it_and_its_run(run, folder, monkeypatch):
    assert locate(run / "checkpoints" / folder).run == run
    assert step(run / "checkpoints" / folder) == 10
    monkeypatch.chdir(run.parent)
    relative = locate(run.relative_to(run.parent) / "checkpoints" / folder)
    assert str(relative.run) == "run"


def test_a_link_to_a_checkpoint_and_the_folder_it_is_read_in_name_it_too(run, monkeypatch):
    (run.parent / "chosen").symlink_to(run / "checkpoints" / "step-00000020")
    assert step(run.parent / "chosen") == 20
    monkeypatch.chdir(run / "checkpoints" / "step-00000010")
    assert step(type(run)()) == 10


@pytest.mark.parametrize("name", ["first", "", "-1", -1, "1.5", 1.5, True, "1e2", "step-", "best "])
def test_any_other_name_is_refused_with_those_that_there_are(run, name):
    with pytest.raises(ConfigError, match=r"is not last, best or a step.*10, 20 \(best\), 30 \(la"):
        step(run, name)


@pytest.mark.parametrize("name", [11, 0, "0", 10**9])
def test_a_step_that_is_not_there_is_refused_with_those_that_are(run, name):
    with pytest.raises(CheckpointError, match=rf"no checkpoint of step {name}; it has .*10, 20"):
        step(run, name)
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 12; it has"):
        step(run / "checkpoints" / "step-00000012")


def test_two_names_that_agree_are_one_and_two_that_differ_are_refused(run):
    folder = run / "checkpoints" / "step-00000020"
    assert step(folder, "best") == step(folder, 20) == 20
    for other, of in (("last", 30), (10, 10)):
        with pytest.raises(ConfigError, match=rf"of step 20, and checkpoint {other} is .*{of}"):
            step(folder, other)


def test_the_best_one_that_was_not_kept_is_said_to_be_so(tmp_path):
    run = make_run(tmp_path / "run", {30: 2.8, 40: 2.7}, best={"step": 25, "loss_nats": 2.25})
    with pytest.raises(CheckpointError, match=r"best at step 25 \(2\.2500 nats.*not kept.*30, 40"):
        step(run, "best")


def test_a_run_that_was_never_validated_has_no_best_one(tmp_path):
    run = make_run(tmp_path / "run", {1: None, 2: None})
    with pytest.raises(CheckpointError, match=r"knows of a validation.*1, 2 \(last\)"):
        step(run, "best")


def test_the_best_one_of_a_run_that_did_not_write_it_down_is_the_lowest_there_is(tmp_path):
    run = make_run(tmp_path / "run", {0: 1.0, 1: 3.0, 2: 2.0, 3: None})
    assert step(run, "best") == 2


def test_the_best_one_stays_on_disk_where_that_is_asked_for(tmp_path):
    losses = {10: 3.0, 20: 2.5, 30: 2.7, 40: None, 50: 2.6}
    best = {"step": 20, "loss_nats": 2.5}
    run = make_run(tmp_path / "run", losses, best=best, keep=1, keep_best=True)
    assert [path.name[-2:] for path in list_checkpoints(run)] == ["20", "50"]
    assert step(run, "best") == 20


def test_a_damaged_one_is_passed_over_where_the_last_is_asked_for_and_refused_by_name(run, caplog):
    (run / "checkpoints" / "step-00000030" / "model.safetensors").write_bytes(b"")
    assert step(run) == 20
    with pytest.raises(CheckpointError, match=r"step-00000030 is damaged.*it has .*10, 20"):
        step(run, 30)
    set_aside(run, 20)
    with pytest.raises(CheckpointError, match=r"of step 30 any more.*damaged"):
        step(run, 30)


def test_only_what_is_read_of_a_named_one_has_to_be_whole(run):
    (run / "checkpoints" / "step-00000020" / "model.safetensors").write_bytes(b"")
    assert choose_checkpoint(run, "best", parts=[]).step == 20


def test_a_run_without_a_checkpoint_says_so(tmp_path):
    run = make_run(tmp_path / "run", {})
    for name in (None, "best", 5):
        with pytest.raises(CheckpointError, match="no checkpoint yet"):
            step(run, name)


def test_many_checkpoints_are_not_all_listed(tmp_path):
    best = {"step": 3, "loss_nats": 1.0}
    run = make_run(tmp_path / "run", dict.fromkeys(range(1, 31), 2.0), best=best)
    with pytest.raises(CheckpointError, match=r"3 \(best\), 23, .*30 \(last\), and 21 earlier"):
        step(run, 77)


def test_a_folder_of_checkpoints_and_a_checkpoint_without_its_run_are_told_apart(run, tmp_path):
    with pytest.raises(CheckpointError, match="holds the checkpoints of a run; name the run"):
        locate(run / "checkpoints")
    (run / "checkpoints" / "step-00000010").rename(tmp_path / "step-00000010")
    with pytest.raises(CheckpointError, match="a checkpoint outside its run"):
        locate(tmp_path / "step-00000010")
