"""Runs in folders: what goes on bit for bit, what may change, what is refused."""

import json
import logging
import shutil

import pytest
import torch

from blankfill.api.data import data_build
from blankfill.config.run import from_dict, to_dict
from blankfill.data.neighbours import count_neighbours
from blankfill.errors import CheckpointError, ConfigError
from blankfill.generate import LanguageModel
from blankfill.metrics import read_metrics
from blankfill.prepare import build_trainer, start
from blankfill.runs import list_checkpoints, newest_checkpoint, save
from conftest import small_corpus
from train.conftest import CFG, same, stop_at

RATES = ("positions_per_second", "targets_per_second", "flops_per_second_model",
         "flops_per_second_dense", "peak_flops_per_second", "mfu")  # fmt: skip


@pytest.fixture(scope="module")
def stores(tmp_path_factory, tokenizer_folder):
    folder = tmp_path_factory.mktemp("stores")
    for name, seed, documents in (("a", 0, 120), ("b", 1, 16)):
        text = "\n\n".join(small_corpus(documents, seed))
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
        data_build([folder / f"{name}.txt"], tokenizer=tokenizer_folder, out=folder / name)
    return folder


@pytest.fixture
def build(tmp_path, stores):
    """A function that builds the trainer of a run; options are changes of the recipe."""

    def make(run="run", *, store="a", resume=False, init=None, allow_change=(), changes=None):
        cfg = CFG.changed(changes or {})
        return build_trainer(
            cfg, data=[stores / store], run=tmp_path / run,
            validation=[stores / "b"] if cfg.validation.every else (),
            resume=resume, init=init, allow_change=allow_change,
        )  # fmt: skip

    return make


def curve(run):
    return [{k: v for k, v in row.items() if k not in RATES} for row in read_metrics(run)]


def test_stopping_between_two_lines_of_metrics_changes_no_line(build, tmp_path):
    recipe = {"train.log_every": 5, "validation.every": 4, "optimizer.ema_decay": 0.9,
              "checkpoint.keep_best": True}  # fmt: skip
    whole = build("whole", changes=recipe)
    whole.fit()
    stop_at(build("parts", changes=recipe), 7)
    second = build("parts", resume=True, changes=recipe)
    stop_at(second, 9)
    third = build("parts", resume=True, changes=recipe)
    assert third.index == 9
    third.fit()
    assert same(third, whole)
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    files = [list_checkpoints(tmp_path / name)[-1] for name in ("whole", "parts")]
    for name in ("model.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json"):
        assert (files[0] / name).read_bytes() == (files[1] / name).read_bytes()


def test_an_embedding_counted_from_the_text_is_counted_only_where_a_run_begins(
    build, monkeypatch, tmp_path
):
    counted = []

    def count(stores, vocab_size):
        counted.append(vocab_size)
        return count_neighbours(stores, vocab_size)

    monkeypatch.setattr(start, "count_neighbours", count)
    recipe = {"train.embedding_init": "neighbours", "optimizer.ema_decay": 0.9}
    random, whole = build("random"), build("whole", changes=recipe)
    first, plain = (t.engine.model.embed.word.weight for t in (whole, random))
    assert not torch.equal(first, plain)
    assert torch.equal(whole.engine.ema["embed.word.weight"], first)
    torch.testing.assert_close(first.square().mean(), plain.square().mean(), rtol=0.05, atol=0)
    whole.fit()
    killed = build("parts", changes=recipe)  # it wrote run.json and no checkpoint
    killed._lock.release()
    stop_at(build("parts", resume=True, changes=recipe), 5)
    assert len(counted) == 3
    second = build("parts", resume=True, changes=recipe)
    build("other", init=tmp_path / "whole", changes=recipe)
    assert len(counted) == 3
    second.fit()
    assert same(second, whole)


def test_a_batch_that_grows_goes_on_where_it_stood(build):
    ramp = {"train.micro_batch_rows": 1, "train.ramp_from_rows": 1, "train.ramp_rows": 20}
    whole = build("whole", changes=ramp)
    whole.fit()
    stop_at(build("parts", changes=ramp), 7)
    second = build("parts", resume=True, changes=ramp)
    second.fit()
    assert whole.row == second.row < 12 * 4
    assert same(second, whole)


def test_a_changed_recipe_is_refused_by_name_and_allowed_by_name(build, tmp_path):
    stop_at(build(), 5)
    with pytest.raises(
        ConfigError, match=r"was 0\.01, is 0\.002.*--allow-change schedule\.peak_lr"
    ):
        build(resume=True, changes={"schedule.peak_lr": 0.002})
    changes = {"schedule.peak_lr": 0.002, "train.steps": 20, "train.batch_rows": 8,
               "train.precision": "float32"}  # fmt: skip
    trainer = build(resume=True, allow_change=tuple(changes), changes=changes)
    assert (trainer.index, trainer.row) == (5, 20)
    trainer.fit()
    assert (trainer.index, trainer.row) == (20, 20 + 15 * 8)
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["changes"][0]["step"] == 5
    assert info["changes"][0]["values"]["schedule.peak_lr"] == 0.002


def test_what_does_not_touch_the_result_may_change_without_a_word(build):
    stop_at(build(), 5)
    assert (
        build(
            resume=True, changes={"train.log_every": 3, "checkpoint.keep": 9, "checkpoint.every": 2}
        ).index
        == 5
    )


def test_a_run_at_its_peak_may_grow_longer_without_a_word(build):
    stop_at(build(changes={"schedule.kind": "wsd", "schedule.cooldown_steps": 2}), 5)
    assert build(
        resume=True,
        changes={"schedule.kind": "wsd", "schedule.cooldown_steps": 2, "train.steps": 30},
    ).fit()


@pytest.mark.parametrize(
    ("option", "message"),
    [({"store": "b"}, r"training data was .*documents.*, is .*data cannot change in a run"),
     ({"changes": {"train.row_length": 32}},
      r"row_length was 64, is 32; train\.row_length cannot change"),
     ({"changes": {"train.seed": 2}}, r"seed was 1, is 2"),
     ({"allow_change": ("train.seed",)}, r"not a field that may change")],
)  # fmt: skip
def test_another_plan_of_rows_is_refused_with_the_difference(build, option, message):
    stop_at(build(), 3)
    with pytest.raises(ConfigError, match=message):
        build(resume=True, **option)


def test_other_text_in_place_of_the_held_out_store_is_said_and_kept(
    build, stores, tokenizer_folder, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    stop_at(build(changes={"validation.every": 4}), 4)
    text = "\n\n".join(small_corpus(12, 5))
    (tmp_path / "other.txt").write_text(text, encoding="utf-8")
    data_build([tmp_path / "other.txt"], tokenizer=tokenizer_folder, out=tmp_path / "other")
    again = build_trainer(
        CFG.changed({"validation.every": 4}),
        data=[stores / "a"], run=tmp_path / "run", validation=[tmp_path / "other"], resume=True,
    )  # fmt: skip
    assert again.index == 4
    again._lock.release()
    assert "from step 4 on, the held-out data was " in caplog.text
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["changes"] == [
        {"step": 4, "values": {"validation": [info["validation"][0]["fingerprint"]]}}
    ]


def test_other_text_in_place_of_the_training_store_is_refused(
    build, stores, tokenizer_folder, tmp_path
):
    shutil.copytree(stores / "a", tmp_path / "store")

    def at_the_same_path(**options):
        return build_trainer(CFG, data=[tmp_path / "store"], run=tmp_path / "run", **options)

    stop_at(at_the_same_path(), 2)
    shutil.rmtree(tmp_path / "store")
    shutil.copytree(stores / "b", tmp_path / "store")
    with pytest.raises(ConfigError, match="the training data was"):
        at_the_same_path(resume=True)


def test_a_damaged_newest_checkpoint_is_named_and_the_run_ends_the_same(build, tmp_path, caplog):
    whole = build("whole", changes={"checkpoint.every": 4})
    whole.fit()
    stop_at(build(changes={"checkpoint.every": 4}), 9)
    newest = list_checkpoints(tmp_path / "run")[-1]
    (newest / "optimizer.safetensors").write_bytes(b"")
    again = build(resume=True, changes={"checkpoint.every": 4})
    assert again.index == 8
    assert "step-00000009 is damaged" in caplog.text
    assert (newest.parent / "damaged-step-00000009").exists()
    again.fit()
    assert same(again, whole)


def test_a_run_starts_from_another_runs_weights_with_a_fresh_optimizer(build, tmp_path):
    first = build("first")
    first.fit()
    second = build("second", init=tmp_path / "first", changes={"schedule.peak_lr": 1e-3})
    assert same(second, first)
    assert second.index == 0
    assert not second.engine.optimizer.tensors()
    assert second.fit()
    info = json.loads((tmp_path / "second" / "run.json").read_text())
    assert info["init"]["step"] == 12


@pytest.mark.parametrize("fate", ["gone", "moved", "trained on", "not named"])
def test_a_run_with_a_checkpoint_needs_the_weights_that_it_began_from_no_more(
    build, tmp_path, fate
):
    first, second = tmp_path / "first", tmp_path / "second"
    build("first").fit()
    build("second", init=first).fit()
    began = json.loads((second / "run.json").read_text())["init"]
    init = {"moved": tmp_path / "moved", "not named": None}.get(fate, first)
    if fate == "trained on":
        build("first", resume=True, allow_change=["train.steps"], changes={"train.steps": 13}).fit()
    else:
        first.rename(tmp_path / "moved" if fate == "moved" else tmp_path / "gone")
    again = build(
        "second", resume=True, init=init, allow_change=["train.steps"], changes={"train.steps": 13}
    )
    assert again.index == 12
    assert again.fit()
    assert json.loads((second / "run.json").read_text())["init"] == began


def test_a_run_that_began_from_no_other_is_not_resumed_from_one(build, tmp_path):
    build("first").fit()
    build("second").fit()
    with pytest.raises(ConfigError, match="did not begin from another run"):
        build("second", resume=True, init=tmp_path / "first")


def test_fewer_steps_than_were_done_are_refused_and_as_many_are_none(build, tmp_path):
    build().fit()
    before = (tmp_path / "run" / "run.json").read_bytes()
    with pytest.raises(ConfigError, match=r"has done 12 steps.*name at least 12"):
        build(resume=True, allow_change=["train.steps"], changes={"train.steps": 5})
    assert (tmp_path / "run" / "run.json").read_bytes() == before
    again = build(resume=True)
    assert again.index == 12
    assert again.fit()


def test_a_new_run_replaces_no_file_of_its_names(build, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "train.log").write_text("of a shell")
    build().fit()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "samples.jsonl").write_text("mine")
    with pytest.raises(ConfigError, match=r"samples\.jsonl"):
        build("other")
    assert (tmp_path / "other" / "samples.jsonl").read_text() == "mine"


def test_a_store_that_is_read_only_gives_a_run_that_is_not(build, stores, tmp_path):
    shutil.copytree(stores / "a", tmp_path / "store")
    for path in (*(tmp_path / "store").rglob("*"), tmp_path / "store"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    build(store=tmp_path / "store")
    for path in (tmp_path / "run" / "tokenizer", *(tmp_path / "run" / "tokenizer").iterdir()):
        assert path.stat().st_mode & 0o200
    for path in (tmp_path / "store", *(tmp_path / "store").rglob("*")):
        path.chmod(0o755)


def test_weights_of_another_model_are_refused_as_a_start(build, tmp_path):
    build("first").fit()
    info = json.loads((tmp_path / "first" / "run.json").read_text())
    info["config"]["model"]["num_layers"] = 3
    (tmp_path / "first" / "run.json").write_text(json.dumps(info))
    with pytest.raises(ConfigError, match=r"model\.num_layers is 3 there and 2 here"):
        build("second", init=tmp_path / "first")


def test_averaged_weights_are_kept_and_loaded(build, tmp_path):
    trainer = build(changes={"optimizer.ema_decay": 0.5})
    trainer.fit()
    averaged = LanguageModel.load(tmp_path / "run", weights="ema").model.state_dict()
    last = LanguageModel.load(tmp_path / "run").model.state_dict()
    assert all((averaged[name] == value).all() for name, value in trainer.engine.ema.items())
    assert any((averaged[name] != last[name]).any() for name in last)
    build("none").fit()
    with pytest.raises(CheckpointError, match="no moving average"):
        LanguageModel.load(tmp_path / "none", weights="ema")


def test_two_trainers_of_one_run_are_refused(build):
    first = build()
    with pytest.raises(CheckpointError, match="another process"):
        build(resume=True)
    first.fit()
    assert build(resume=True).index == 12


@pytest.mark.parametrize("background", [True, False])
def test_a_failing_disk_is_told_once_and_training_goes_on_where_that_is_wanted(
    build, monkeypatch, caplog, tmp_path, background
):
    trainer = build(
        changes={
            "checkpoint.every": 2,
            "checkpoint.on_error": "go_on",
            "checkpoint.in_background": background,
        }
    )
    fail_until(monkeypatch, trainer, 9)
    with caplog.at_level(logging.INFO):
        assert trainer.fit()
    assert caplog.text.count("the disk is full") == 1
    assert caplog.text.count("checkpoints can be written again") == 1
    assert newest_checkpoint(tmp_path / "run").step == 12


def test_a_failing_disk_ends_the_run_with_its_last_good_checkpoint(build, monkeypatch, tmp_path):
    stop_at(build(changes={"checkpoint.every": 2}), 2)
    trainer = build(resume=True, changes={"checkpoint.every": 2})
    fail_until(monkeypatch, trainer, 99)
    with pytest.raises(CheckpointError, match=r"disk is full.*step-00000002 is untouched"):
        trainer.fit()
    monkeypatch.undo()
    assert newest_checkpoint(tmp_path / "run").step == 2


def fail_until(monkeypatch, trainer, step):
    """Let the disk be full while the trainer stands before a step."""
    write_tensors = save.write_tensors

    def full(folder, part, tensors):
        if trainer.index < step:
            raise OSError(28, "No space left on device")
        return write_tensors(folder, part, tensors)

    monkeypatch.setattr(save, "write_tensors", full)


def test_a_description_from_before_a_field_existed_is_of_its_default():
    values = to_dict(CFG)
    del values["guard"]["on_spike"]
    assert from_dict(type(CFG), values) == CFG
