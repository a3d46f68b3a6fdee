"""The README's own-text commands, typed as they stand, in both languages of the README."""

import shlex
import shutil

import pytest

from blankfill.cli.main import main
from blankfill.config import presets
from blankfill.config.presets import preset
from blankfill.demo.corpus import generate
from blankfill.prepare import pace
from blankfill.prepare.pace import Pace
from docs_blocks import ROOT, commands


def test_both_readmes_have_the_same_commands():
    assert commands(ROOT / "README.md") == commands(ROOT / "README.zh.md")
    assert len(commands(ROOT / "README.md")) >= 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a small corpus of both languages."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "corpus").mkdir()
    corpus = generate(3, num_train=700, num_valid=2)
    for number, document in enumerate(corpus.train):
        path = folder / "corpus" / f"{number % 40:03}.txt"
        with path.open("a", encoding="utf-8") as file:
            file.write(document.text + "\n\n")
    return folder


def make_an_hour_short(patch):
    """Let an hour hold twenty steps, of a small model."""
    small = preset("tiny").changed({
        "model.hidden_size": 64, "model.ffn_size": 96, "model.num_heads": 1, "model.num_layers": 2,
    })  # fmt: skip
    patch.setitem(presets.PRESETS, "tiny", lambda: small)
    slow = Pace(step_seconds=179.0, validation_seconds=1.0)

    def measure(cfg, build, run, **_):
        build(cfg.changed({"train.steps": 1}), run.with_name("measured"))
        shutil.rmtree(run.with_name("measured"))
        return slow

    patch.setattr(pace, "measure_pace", measure)


def test_the_readmes_commands_run(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for line in commands(ROOT / "README.md"):
        words = shlex.split(line)[1:]
        if words[0] == "demo":
            continue
        with monkeypatch.context() as patch:
            if words[0] == "train":
                make_an_hour_short(patch)
            assert main(words) == 0, line
        assert capsys.readouterr().out.strip(), line
    assert main(["info", "store", "--json"]) == 0
    assert main(["pretrain", "tiny", "--data", "store", "--out", "runs/mine"]) == 2
    assert "--resume" in capsys.readouterr().err
