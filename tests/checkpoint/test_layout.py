import errno
import json

import pytest
import torch

from blankfill.checkpoint import (
    list_checkpoints,
    load_tensors,
    newest_checkpoint,
    read_run,
    save_checkpoint,
    write,
)
from blankfill.errors import CheckpointError

WEIGHTS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}


def save(run, step, keep=2):
    return save_checkpoint(run, step, WEIGHTS, {"step.a": torch.tensor(1.0)}, {}, keep=keep)


def test_what_was_saved_comes_back_bit_equal(tmp_path):
    save(tmp_path, 7)
    newest = newest_checkpoint(tmp_path)
    loaded = load_tensors(newest.path / "model.safetensors")
    assert newest.step == 7
    assert all(torch.equal(loaded[name], WEIGHTS[name]) for name in WEIGHTS)


def test_only_the_newest_checkpoints_stay(tmp_path):
    for step in (1, 2, 30, 4000):
        save(tmp_path, step)
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step-00000030", "step-00004000"]


def test_a_damaged_newest_checkpoint_is_named_and_passed_over(tmp_path, caplog):
    save(tmp_path, 1)
    damaged = save(tmp_path, 2) / "model.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    assert newest_checkpoint(tmp_path).step == 1
    assert "step-00000002" in caplog.text


def test_a_truncated_state_is_passed_over(tmp_path):
    save(tmp_path, 1)
    state = save(tmp_path, 2) / "state.json"
    state.write_text(state.read_text()[:20])
    assert newest_checkpoint(tmp_path).step == 1


def test_all_damaged_is_one_sentence(tmp_path):
    (save(tmp_path, 1) / "optimizer.safetensors").unlink()
    with pytest.raises(CheckpointError, match="damaged"):
        newest_checkpoint(tmp_path)


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(write, "_flush", full)
    with pytest.raises(CheckpointError, match="disk is full"):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert newest_checkpoint(tmp_path).step == 1
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


def test_a_crash_between_write_and_rename_leaves_nothing_that_counts(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def crash(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(write.os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert newest_checkpoint(tmp_path).step == 1


def test_a_folder_without_run_json_is_not_a_run(tmp_path):
    with pytest.raises(CheckpointError, match=r"run\.json"):
        read_run(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"version": 99})])
def test_a_damaged_run_json_is_one_sentence(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"run\.json"):
        read_run(tmp_path)
