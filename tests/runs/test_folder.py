import errno
import shutil
import subprocess
from dataclasses import replace

import pytest
import torch

from blankfill import atomic
from blankfill.errors import CheckpointError
from blankfill.runs import (
    checkpoint_folder,
    list_checkpoints,
    load_tensors,
    newest_checkpoint,
    save_checkpoint,
    set_aside,
    sweep,
    write_state,
)
from blankfill.runs import save as saving
from blankfill.runs.record import CheckpointState, GuardState, LossSums, TrainingState
from blankfill.runs.tensors import write_tensors

TRAINING = TrainingState(
    row=8, anchors=((0, 0), (3, 7)), losses=LossSums(sources=2, groups=((0, 1, 1, 2.5, 3),)),
    guard=GuardState(losses=(1.0, 2.5), log_norms=(0.1,), skips_in_a_row=1),
    loss_scale=(8.0, 1.0, 2.0), validation_loss_nats=1.25,
)  # fmt: skip
WEIGHTS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}


def save(run, step, keep=2):
    parts = {"model": WEIGHTS, "optimizer": {"step.a": torch.tensor(1.0)}}
    return save_checkpoint(run, step, parts, keep=keep)


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


def test_multiples_and_the_best_stay_beside_the_newest(tmp_path):
    losses = {2: 3.0, 3: 1.5, 5: 2.0, 7: 2.5, 10: 1.9, 11: None, 12: 2.2}
    for step, loss in losses.items():
        training = replace(TRAINING, validation_loss_nats=loss)
        save_checkpoint(
            tmp_path, step, {"model": WEIGHTS}, training, keep=1, keep_every=5, keep_best=True
        )
    assert [int(p.name[5:]) for p in list_checkpoints(tmp_path)] == [3, 5, 10, 12]


def test_a_run_that_fell_back_never_drops_what_it_goes_on_from(tmp_path):
    save(tmp_path, 10)
    damaged = save(tmp_path, 20)
    (damaged / "model.safetensors").write_bytes(b"")
    save(tmp_path, 15, keep=1)
    assert [int(p.name[5:]) for p in list_checkpoints(tmp_path)] == [15, 20]
    assert newest_checkpoint(tmp_path).step == 15
    assert [p.name for p in set_aside(tmp_path, 15)] == ["damaged-step-00000020"]
    assert [int(p.name[5:]) for p in list_checkpoints(tmp_path)] == [15]


def test_a_checkpoint_of_the_same_step_is_replaced_whole(tmp_path):
    (save(tmp_path, 3) / "model.safetensors").write_bytes(b"damaged")
    save(tmp_path, 3)
    assert newest_checkpoint(tmp_path).step == 3
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]


def test_leftovers_of_a_killed_process_are_swept(tmp_path):
    save(tmp_path, 3)
    for name in (".step-00000004.77.tmp", ".old-step-00000002.77.tmp"):
        (tmp_path / "checkpoints" / name).mkdir()
        (tmp_path / "checkpoints" / name / "model.safetensors").write_bytes(b"half")
    (tmp_path / ".run.json.77.tmp").write_text("{")
    (tmp_path / ".tokenizer.77.tmp").mkdir()
    (tmp_path / ".report.html.78.tmp").write_text("somebody else is writing this")
    sweep(tmp_path)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]
    assert {p.name for p in tmp_path.iterdir()} == {"checkpoints", ".report.html.78.tmp"}


def test_a_disk_that_gives_back_something_else_is_noticed_before_an_older_one_goes(
    tmp_path, monkeypatch
):
    save(tmp_path, 1, keep=1)

    def flip(path):
        if path.name == "model.safetensors":
            content = bytearray(path.read_bytes())
            content[-3] ^= 4
            path.write_bytes(content)

    monkeypatch.setattr(saving, "_forget", flip)
    with pytest.raises(CheckpointError, match=r"read back differs.*step-00000001 is untouched"):
        save(tmp_path, 2, keep=1)
    assert newest_checkpoint(tmp_path).step == 1


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_real_disk_that_is_full_or_read_only_keeps_the_last_good_checkpoint(tmp_path, how):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        save(disk, 1)
        if how == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        large = {"a": torch.ones(400_000)}
        with pytest.raises(CheckpointError, match=rf"is {how}\); step-00000001 is untouched"):
            save_checkpoint(disk, 2, {"model": large}, keep=1)
        assert newest_checkpoint(disk).step == 1
        assert [p.name for p in (disk / "checkpoints").iterdir()] == ["step-00000001"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


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


def test_a_folder_that_holds_another_step_than_its_name_says_is_passed_over(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2).rename(tmp_path / "checkpoints" / "step-00000003")
    assert newest_checkpoint(tmp_path).step == 1


def test_all_damaged_is_one_sentence(tmp_path):
    (save(tmp_path, 1) / "optimizer.safetensors").unlink()
    with pytest.raises(CheckpointError, match="damaged"):
        newest_checkpoint(tmp_path)


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic, "flush", full)
    with pytest.raises(CheckpointError, match="disk is full"):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert newest_checkpoint(tmp_path).step == 1
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


def test_a_crash_between_write_and_rename_leaves_nothing_that_counts(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def crash(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(saving.os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert newest_checkpoint(tmp_path).step == 1


def spoil(path, how):
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-8])
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"\x55")


@pytest.mark.parametrize("how", ["gone", "cut", "flipped"])
@pytest.mark.parametrize(
    ("parts", "spoilt", "step"),
    [
        (["model"], "optimizer", 2), (["model"], "ema", 2), (["model"], "model", 1),
        (["ema"], "ema", 1), (["ema"], "model", 2), ([], "model", 2), (None, "ema", 1),
        (["model", "optimizer"], "optimizer", 1),
    ],
)  # fmt: skip
def test_only_the_parts_that_are_read_have_to_be_whole(tmp_path, how, parts, spoilt, step):
    all_parts = {"model": WEIGHTS, "optimizer": {"m": torch.zeros(2)}, "ema": WEIGHTS}
    for at in (1, 2):
        save_checkpoint(tmp_path, at, all_parts, keep=2)
    spoil(tmp_path / "checkpoints" / "step-00000002" / f"{spoilt}.safetensors", how)
    assert newest_checkpoint(tmp_path, parts).step == step


def test_weights_in_several_files_are_one_part(tmp_path):
    folder = checkpoint_folder(tmp_path, 1)
    folder.mkdir(parents=True)
    files = write_tensors(folder, "model", WEIGHTS, max_file_bytes=8).files
    assert len(files) == 2
    write_state(folder, CheckpointState(step=1, files=files))
    assert newest_checkpoint(tmp_path, ["model"]).step == 1
    spoil(folder / "model-00001-of-00002.safetensors", "flipped")
    with pytest.raises(CheckpointError, match="damaged"):
        newest_checkpoint(tmp_path, ["model"])


def test_a_file_that_git_lfs_did_not_download_is_called_that(tmp_path):
    (save(tmp_path, 1) / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
    )
    with pytest.raises(CheckpointError, match="git lfs pull"):
        newest_checkpoint(tmp_path)
