"""`--checkpoint` of every verb that reads a run, and a checkpoint's folder in place of a run's."""

import json

import pytest
import torch

from blankfill import api
from blankfill.cli.main import main
from blankfill.errors import BlankfillError
from blankfill.runs import best_validation
from conftest import small_corpus

STEPS = 4
SIZES = {
    "model.hidden-size": 32, "model.num-layers": 1, "model.num-heads": 2, "model.ffn-size": 48,
    "train.row-length": 64, "train.batch-rows": 2, "train.micro-batch-rows": 2,
    "train.threads": 1, "train.embedding-init": "random", "validation.blanks": 2,
    "validation.show-fills": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory, tokenizer_folder):
    """A store, and a run whose every step is validated and saved."""
    before = torch.get_num_threads()
    folder = tmp_path_factory.mktemp("checkpoints")
    (folder / "text.txt").write_text("\n\n".join(small_corpus(60)), encoding="utf-8")
    store = str(folder / "store")
    api.data_build(folder / "text.txt", tokenizer=tokenizer_folder, out=store)
    words = ["pretrain", "tiny", "--data", store, "--validation", store, "--out", str(folder / "r"),
             "--train.steps", STEPS, "--validation.every", 1, "--checkpoint.every", 1,
             "--checkpoint.keep", 9, "--checkpoint.keep-best"]  # fmt: skip
    for name, value in SIZES.items():
        words += [f"--{name}", value]
    assert main([str(word) for word in words]) == 0
    torch.set_num_threads(before)
    return folder


TEXT = "the old [MASK] reads books."
VERBS = {
    "fill": lambda run, _, to: ["fill", run, TEXT, "--max-new-tokens", "2"],
    "generate": lambda run, _, to: ["generate", run, "the old", "--max-new-tokens", "2"],
    "score": lambda run, _, to: ["score", run, TEXT, "fox"],
    "rank": lambda run, _, to: ["rank", run, TEXT, "fox", "dog"],
    "evaluate": lambda run, folder, to: [
        "evaluate", run, "--data", f"{folder}/store", "--max-blanks", "2", "--no-baselines",
    ],
    "export": lambda run, _, to: ["export", run, "--to", "hf", "--out", f"{to}/exported"],
}  # fmt: skip
"""The words of a verb that reads a run."""


def step_of(capsys, words):
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    return (result["runs"][0] if words[0] == "evaluate" else result)["step"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_takes_the_checkpoint_that_is_named(verb, world, tmp_path, capsys):
    run = str(world / "r")
    assert step_of(capsys, [*VERBS[verb](run, world, tmp_path), "--checkpoint", "2"]) == 2


@pytest.mark.parametrize("verb", ["fill", "evaluate"])
def test_every_way_of_naming_a_checkpoint_gives_its_step(verb, world, tmp_path, capsys):
    run = str(world / "r")
    words = VERBS[verb](run, world, tmp_path)
    best = best_validation(world / "r").step
    assert step_of(capsys, words) == STEPS
    assert step_of(capsys, [*words, "--checkpoint", "last"]) == STEPS
    assert step_of(capsys, [*words, "--checkpoint=best"]) == best
    folder = f"{run}/checkpoints/step-00000003"
    assert step_of(capsys, VERBS[verb](folder, world, tmp_path)) == 3


def test_a_verb_names_the_run_of_a_checkpoint_s_folder(world):
    folder = world / "r" / "checkpoints" / "step-00000002"
    assert api.fill(folder, TEXT, max_new_tokens=2).run == str(world / "r")
    api.evaluate(folder, data=world / "store", max_blanks=2, baselines=False)
    assert json.loads((world / "r" / "evaluation.json").read_text())["step"] == 2


@pytest.mark.parametrize("wrong", ["9", "first", "-1"])
@pytest.mark.parametrize("verb", [*VERBS, "info"])
def test_a_checkpoint_that_is_not_there_is_one_sentence(verb, wrong, world, tmp_path, capsys):
    run = str(world / "r")
    words = ["info", run] if verb == "info" else VERBS[verb](run, world, tmp_path)
    assert main([*words, f"--checkpoint={wrong}"]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert "the checkpoints of steps 1, 2, 3" in error[-1]
    assert not list(tmp_path.iterdir())


def test_info_says_of_a_checkpoint_how_good_it_is(world, capsys):
    facts = api.info(world / "r", checkpoint="best").facts
    best = best_validation(world / "r")
    assert facts["steps done"] == best.step
    assert facts["validation loss (nats)"] == round(best.loss_nats, 4)
    assert facts["checkpoints of steps"] == "1, 2, 3, 4"
    folder = world / "r" / "checkpoints" / "step-00000002"
    assert api.info(folder).facts["validation loss (nats)"] >= round(best.loss_nats, 4)
    for path in (folder, world / "store", "tiny"):
        with pytest.raises(
            BlankfillError, match=r"step 2, and checkpoint 3|leave out --checkpoint"
        ):
            api.info(path, checkpoint=3)


def test_a_report_of_a_checkpoint_is_one_of_its_run(world, tmp_path):
    folder = world / "r" / "checkpoints" / "step-00000002"
    assert api.report(folder, out=tmp_path / "report.html").runs == ["r"]


@pytest.mark.parametrize(
    ("init", "options", "step"),
    [("r", [], STEPS), ("r", ["--init-checkpoint", "2"], 2),
     ("r/checkpoints/step-00000001", [], 1)],
)  # fmt: skip
def test_a_run_begins_from_the_checkpoint_that_is_named(world, tmp_path, init, options, step):
    before = torch.get_num_threads()
    words = ["pretrain", "tiny", "--data", f"{world}/store", "--init", f"{world}/{init}", *options,
             "--out", f"{tmp_path}/next", "--train.steps", "1"]  # fmt: skip
    for name, value in SIZES.items():
        words += [f"--{name}", str(value)]
    assert main(words) == 0
    torch.set_num_threads(before)
    began = json.loads((tmp_path / "next" / "run.json").read_text())["init"]
    assert (began["step"], began["path"]) == (step, str(world / "r"))


def test_the_checkpoint_to_begin_from_needs_a_run_and_has_to_be_there(world, tmp_path, capsys):
    words = ["pretrain", "tiny", "--data", f"{world}/store", "--out", f"{tmp_path}/next"]
    assert main([*words, "--init-checkpoint", "2"]) == 2
    assert "needs --init" in capsys.readouterr().err
    assert main([*words, "--init", f"{world}/r", "--init-checkpoint", "7"]) == 2
    assert "no checkpoint of step 7; it has" in capsys.readouterr().err
    assert not (tmp_path / "next").exists()


def test_a_resized_run_and_an_import_take_the_named_checkpoint(world, tokenizer_folder, tmp_path):
    grown = api.resize(
        world / "r", tokenizer=tokenizer_folder, out=tmp_path / "grown", checkpoint=1
    )
    assert json.loads((tmp_path / "grown" / "run.json").read_text())["resized"]["step"] == 1
    assert grown.run == str(world / "r")
    folder = world / "r" / "checkpoints" / "step-00000002"
    api.import_(folder, tokenizer=tokenizer_folder, out=tmp_path / "imported")
    files = [path / "model.safetensors" for path in (
        folder, tmp_path / "imported" / "checkpoints" / "step-00000000")]  # fmt: skip
    from blankfill.runs import load_tensors

    theirs, ours = (load_tensors(path) for path in files)
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
