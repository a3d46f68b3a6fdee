"""`pretrain --config`: another run like one, or some fields of a file, below typed options."""

import json
import re
import shutil

import pytest

from api.conftest import begin
from blankfill import api
from blankfill.cli.main import main
from blankfill.errors import BlankfillError
from blankfill.runs import read_run


def like(*options):
    return main(["pretrain", *map(str, options)])


@pytest.mark.parametrize("name", ["r", "r/run.json", "r/checkpoints/step-00000003", "saved.json"])
def test_another_run_like_one_has_its_configuration_and_its_data(here, name):
    data = ("--data", "a:0.25", "b:0.75", "--validation", "b")
    assert begin(*data, "--out", "r", "--model.vocab-size", 555) == 0
    shutil.copy("r/run.json", "saved.json")
    assert like("--config", name, "--out", "twin") == 0
    assert like("--config", name, "--out", "other", "--seed", 2, "--data", "a") == 0
    first, twin, other = (read_run(here / run) for run in ("r", "twin", "other"))
    assert (twin.config, twin.data, twin.validation) == (first.config, first.data, first.validation)
    assert twin.preset == other.preset == "tiny"
    assert other.config == first.config.changed({"train.seed": 2})
    assert [entry.path for entry in other.data] == [str(here / "a")]
    weights = [
        here / run / "checkpoints" / "step-00000003" / "model.safetensors"
        for run in ("r", "twin", "other")
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes() != weights[2].read_bytes()


def test_a_run_like_one_that_began_from_weights_begins_from_them(here, capsys):
    assert begin("--data", "a", "--out", "base", "--checkpoint.every", 1) == 0
    assert begin("--data", "a", "--init", "base", "--init-checkpoint", 2, "--out", "r") == 0
    assert like("--config", "r", "--out", "twin") == 0
    assert read_run(here / "twin").init == read_run(here / "r").init
    shutil.rmtree("base")
    assert like("--config", "r", "--out", "third") == 2
    assert "the weights that r began from, are not there any more" in capsys.readouterr().err
    assert not (here / "third").exists()


def test_preset_then_file_then_typed(here):
    (here / "mine.json").write_text(json.dumps({
        "preset": "demo",
        "train": {"steps": 2, "threads": 1, "batch_rows": 4, "micro_batch_rows": 2},
        "schedule.peak_lr": 0.003,
    }))  # fmt: skip
    assert like("--config", "mine.json", "--data", "a", "--out", "r", "--train.batch-rows", 6) == 0
    record = read_run(here / "r")
    assert record.preset == "demo"
    assert record.config.model.hidden_size == 288
    assert (record.config.train.steps, record.config.train.batch_rows) == (2, 6)
    assert record.config.schedule.peak_lr == 0.003
    result = api.pretrain(
        "demo", config="mine.json", data="a", out="python", changes={"train.batch_rows": 6}
    )
    assert result.steps == 2
    assert read_run(here / "python").config == record.config


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is no configuration: it is empty"),
        ("[1]", "it holds a list, not an object"),
        ("{", "is not JSON"),
        ('{"train": 3}', "'train' is not a section of a run with its fields"),
        ('{"trian": {"steps": 3}}', "'trian' is not a section"),
        ('{"train": {"stesp": 3}}', r"a run has no field 'train\.stesp'"),
        ('{"train": {"steps": "many"}}', r"train\.steps='many' must be"),
        ('{"train": {"compile": "maybe"}}', r"train\.compile='maybe' is not one of"),
        ('{"train": {"wandb": 3}}', r"train\.wandb=3 is not of type str"),
        ('{"validation.every": "often"}', r"every='often' is neither a number nor auto"),
        ('{"preset": 3}', "its 'preset' is 3, not the name"),
        ('{"preset": "nano"}', "there is no preset 'nano'"),
        ('{"preset": "demo"}', "is of the preset demo, not tiny"),
        ('{"config": 3}', "its 'config' is 3, not an object"),
        ('{"format": "blankfill run", "version": 1}', "was written by an earlier blankfill"),
        ('{"format": "blankfill run", "version": 2}', "is damaged, or another's"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_configuration_is_one_sentence(here, content, said, capsys):
    (here / "mine.json").write_text(content)
    words = ["pretrain", "--config", "mine.json", "--data", "a", "--out", "r"]
    assert main([*words, *([] if "nano" in content else ["tiny"])]) == 2
    error = capsys.readouterr().err.strip()
    assert re.search(said, error), error
    assert len(error.splitlines()) == 1
    assert not (here / "r").exists()


def test_what_contradicts_itself_or_lacks_something_is_refused(here, capsys):
    assert begin("--data", "a", "--out", "r") == 0
    cases = {
        ("small", "--config", "r", "--out", "x"): "--config r is of the preset tiny, not small",
        ("--config", "nothing", "--out", "x"): "there is no such file or folder",
        ("--config", "a", "--out", "x"): "a is not a run",
        ("--config", "r"): "pretrain lacks --out",
        ("--config", "r", "--out", "r"): "already holds a run",
        ("--config", "r", "--out", "x", "--minutes", 1, "--steps", 9): "both choose the steps",
    }
    for words, said in cases.items():
        assert like(*words) == 2
        assert said in capsys.readouterr().err, words
    assert not (here / "x").exists()
    (here / "empty.json").write_text("{}")
    with pytest.raises(BlankfillError, match="lacks a preset"):
        api.pretrain(config="empty.json", data="a", out="x")
    (here / "a").rename("elsewhere")
    assert like("--config", "r", "--out", "x") == 2
    assert "--data NEW" in capsys.readouterr().err
    assert like("--config", "r", "--out", "x", "--data", "elsewhere") == 0


def test_a_command_with_a_file_goes_on_when_it_is_repeated(here):
    (here / "mine.json").write_text(json.dumps({"train": {"steps": 2, "threads": 1}}))
    words = ["tiny", "--config", "mine.json", "--data", "a", "--out", "r", "--resume"]
    assert like(*words, "--checkpoint.every", 1) == 0
    assert like(*words) == 0
    assert like(*words, "--steps", 3) == 2
    assert like(*words, "--steps", 3, "--allow-change", "steps") == 0
