"""`pretrain --resume RUN`: the run's own record says everything, typed options are the changes."""

import shlex
import shutil

import pytest

from api.conftest import begin
from blankfill import api
from blankfill.cli.main import main
from blankfill.errors import BlankfillError
from blankfill.runs import newest_checkpoint, read_run


def resume(*options):
    return main(["pretrain", "--resume", *map(str, options)])


def steps_done(run="r"):
    from pathlib import Path

    return newest_checkpoint(Path(run)).step


def stopped_after(monkeypatch, step):
    """Let a signal come when the next run has done its step."""
    from blankfill.train.trainer import Trainer

    do = Trainer.step

    def stopping(trainer, loader):
        info = do(trainer, loader)
        if trainer.index == step:
            trainer._stop.set()
        return info

    monkeypatch.setattr(Trainer, "step", stopping)


def test_a_stopped_run_prints_the_command_that_goes_on_and_it_does(here, monkeypatch, capsys):
    run = "my runs/it's \u4e00"
    with monkeypatch.context() as patch:
        stopped_after(patch, 2)
        words = ("--data", "a:0.3", "b:0.6", "--validation", "b", "--out", run)
        assert begin(*words, "--schedule.peak-lr", 0.002) == 130
    printed = capsys.readouterr().out
    (command,) = [line for line in printed.splitlines() if "pretrain --resume" in line]
    words = shlex.split(command)
    assert words[-3:] == ["pretrain", "--resume", run]
    before = read_run(here / run)
    assert main(words[-3:]) == 0
    assert steps_done(run) == 3
    after = read_run(here / run)
    assert (after.config, after.data, after.validation) == (
        before.config, before.data, before.validation
    )  # fmt: skip
    assert (after.preset, after.changes) == ("tiny", ())


def test_the_run_goes_on_as_if_it_had_not_stopped(here, monkeypatch):
    words = ("--data", "a:0.3", "b:0.6", "--validation", "b", "--checkpoint.keep", 9)
    assert begin(*words, "--out", "whole") == 0
    with monkeypatch.context() as patch:
        stopped_after(patch, 2)
        begin(*words, "--out", "r")
    assert resume("r") == 0
    files = [f"{run}/checkpoints/step-00000003/model.safetensors" for run in ("whole", "r")]
    assert (here / files[0]).read_bytes() == (here / files[1]).read_bytes()


def test_typed_options_are_the_changes_and_need_no_other_name(here):
    assert begin("--data", "a", "--out", "r") == 0
    assert resume("r", "--steps", 5, "--schedule.peak-lr", 0.001, "--train.log-every", 2) == 0
    assert steps_done() == 5
    (change,) = read_run(here / "r").changes
    assert change.step == 3
    assert change.values == {
        "train.steps": 5, "schedule.peak_lr": 0.001, "train.log_every": 2
    }  # fmt: skip
    result = api.pretrain(resume=here / "r", changes={"train.steps": 6})
    assert (result.began_at, result.step, result.steps) == (5, 6, 6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model.num-layers", 2], "num_layers was 1, is 2.*cannot change in a run"),
        (["--train.seed", 7], "seed was 1, is 7"),
        (["--data", "b"], "training data was"),
        (["--steps", 2], "has done 3 steps already"),
        (["--minutes", 1], "--minutes chooses the steps of a run that begins; r has 3"),
        (["--out", "other"], "name two folders"),
        (["--init", "r"], "did not begin from another run"),
        (["--init-checkpoint", 1], "needs --init"),
        (["--replay", "b:0.3"], "--replay mixes stores into those of --data"),
        (["--validation.every", 1], "validation.every=1 needs held-out data"),
        (["--checkpoint.keep-best"], "checkpoint.keep_best=True needs held-out data"),
        (["--allow-change", "train.seed"], "not a field that may change"),
        (["--schedule.peak-lr", "nan"], "peak_lr=nan must be"),
    ],
)  # fmt: skip
def test_what_may_not_change_is_refused_and_nothing_is_written(here, options, said, capsys):
    assert begin("--data", "a", "--out", "r") == 0
    before = (here / "r" / "run.json").read_bytes()
    capsys.readouterr()
    assert resume("r", *options) == 2
    import re

    assert re.search(said, capsys.readouterr().err)
    assert (here / "r" / "run.json").read_bytes() == before
    assert not (here / "other").exists()


def test_another_preset_is_refused_and_the_same_one_may_be_said(here, capsys):
    assert begin("--data", "a", "--out", "r") == 0
    assert main(["pretrain", "small", "--resume", "r"]) == 2
    assert "r is of the preset tiny, not small" in capsys.readouterr().err
    assert main(["pretrain", "tiny", "--resume", "r"]) == 0
    assert main(["pretrain", "nano", "--resume", "r"]) == 2
    assert "there is no preset 'nano'" in capsys.readouterr().err


def test_the_repeated_command_is_compared_and_its_changes_are_named(here, capsys):
    words = ("--data", "a", "--out", "r", "--resume")
    assert begin(*words) == 0  # the first of several starts by one command
    assert begin(*words, "--train.steps", 4) == 2
    assert "--allow-change train.steps" in capsys.readouterr().err
    assert begin(*words, "--train.steps", 4, "--allow-change", "train.steps") == 0
    assert steps_done() == 4


def test_a_finished_run_says_so_and_how_to_go_on(here, capsys):
    assert begin("--data", "a", "--out", "r") == 0
    capsys.readouterr()
    assert resume("r") == 0
    said = capsys.readouterr().out
    assert "it had done all its steps" in said
    assert "pretrain --resume r --train.steps 6" in said


@pytest.mark.parametrize(
    ("options", "moved", "cure"),
    [
        (("--data", "a"), "a", ["--data", "NEW"]),
        (("--data", "a", "b"), "b", ["--data", "{here}/a", "NEW"]),
        (("--data", "a:0.25", "b:0.75"), "a", ["--data", "NEW:0.25", "{here}/b:0.75"]),
        (("--data", "a", "--replay", "b:0.3"), "b", ["--data", "{here}/a:0.7", "NEW:0.3"]),
        (("--data", "a", "--validation", "b"), "b", ["--validation", "NEW"]),
    ],
)  # fmt: skip
def test_data_that_moved_is_named_with_the_flag_that_cures_it(here, options, moved, cure, capsys):
    assert begin(*options, "--out", "r") == 0
    (here / moved).rename(here / "elsewhere")
    capsys.readouterr()
    assert resume("r", "--steps", 4) == 2
    said = capsys.readouterr().err.strip()
    flags = " ".join(word.format(here=here) for word in cure)
    assert said.endswith(f"say where it is now: {flags}")
    assert f"{here / moved}, " in said
    typed = [word.format(here=here).replace("NEW", "elsewhere") for word in cure]
    assert resume("r", *typed, "--steps", 4) == 0
    (change,) = read_run(here / "r").changes
    assert change.values == {"train.steps": 4}
    assert resume("r", "--steps", 5) == 0  # the new place is kept


def test_a_run_without_a_checkpoint_goes_on_from_its_beginning_and_its_weights(here, capsys):
    assert begin("--data", "a", "--out", "base") == 0
    assert begin("--data", "a", "--init", "base", "--out", "r") == 0
    shutil.rmtree(here / "r" / "checkpoints")
    (here / "base").rename(here / "moved")
    capsys.readouterr()
    assert resume("r") == 2
    assert "the weights that r began from, are not there any more" in capsys.readouterr().err
    assert resume("r", "--init", "moved") == 0
    shutil.rmtree(here / "r" / "checkpoints")
    assert resume("r") == 0
    assert steps_done() == 3


def test_a_checkpoint_s_folder_is_resumed_where_it_is_the_newest(here, capsys):
    assert begin("--data", "a", "--out", "r", "--checkpoint.every", 1, "--checkpoint.keep", 9) == 0
    assert resume("r/checkpoints/step-00000003", "--steps", 4) == 0
    capsys.readouterr()
    assert resume("r/checkpoints/step-00000002") == 2
    said = capsys.readouterr().err
    assert "goes on from its newest checkpoint, of step 4" in said
    assert "--init r/checkpoints/step-00000002 --out NEW" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--resume"], "--resume lacks the run"),
        (["--resume", "nothing"], "nothing is not a run"),
        (["--resume="], "--resume is empty"),
        (["--resume", "a"], "a is not a run"),
        (["--resume", "--out", "nothing"], "nothing is not a run"),
        ([], "pretrain lacks PRESET"),
        (["--out", "r"], "pretrain lacks PRESET"),
        (["tiny", "--out", "r"], "pretrain lacks --data"),
        (["tiny", "--data", "a"], "pretrain lacks --out"),
    ],
)  # fmt: skip
def test_what_is_lacking_is_one_sentence(here, words, said, capsys):
    assert main(["pretrain", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (here / "r").exists()


def test_an_imported_model_has_nothing_to_go_on_with(here, tokenizer_folder, capsys):
    assert begin("--data", "a", "--out", "r") == 0
    api.import_("r", tokenizer=tokenizer_folder, out="imported")
    capsys.readouterr()
    assert resume("imported") == 2
    assert "--init imported --data STORE --out NEW" in capsys.readouterr().err


def test_python_callers_get_the_same_sentences(here):
    with pytest.raises(BlankfillError, match="is not a run"):
        api.pretrain(resume="nothing")
    with pytest.raises(BlankfillError, match=r"a run has no field 'train\.stepz'"):
        api.pretrain("tiny", data="a", out="r", changes={"train.stepz": 3})
    with pytest.raises(BlankfillError, match=r"train\.compile='maybe' is not one of"):
        api.pretrain("tiny", data="a", out="r", changes={"train.compile": "maybe"})
    with pytest.raises(BlankfillError, match="lacks a preset"):
        api.pretrain(data="a", out="r")
    with pytest.raises(BlankfillError, match="no token store was named"):
        api.pretrain("tiny", out="r")
    assert not (here / "r").exists()
