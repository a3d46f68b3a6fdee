"""The README's own-text commands and the tutorial's, typed as they stand."""

import functools
import importlib
import shlex
import shutil

import pytest

from blankfill.api import evaluate
from blankfill.cli.main import main
from blankfill.config import presets
from blankfill.config.presets import preset
from blankfill.demo.corpus import generate
from blankfill.prepare import pace
from blankfill.prepare.pace import Pace
from docs_blocks import ROOT, blocks, commands


def test_both_readmes_have_the_same_commands():
    assert commands(ROOT / "README.md") == commands(ROOT / "README.zh.md")
    assert blocks(ROOT / "README.md", "python") == blocks(ROOT / "README.zh.md", "python")
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


def make_short(patch, words):
    """Let the minutes that a command names hold twenty steps, of a small model."""
    if "--minutes" not in words:
        return
    minutes = float(words[words.index("--minutes") + 1])
    small = preset("tiny").changed({
        "model.hidden_size": 64, "model.ffn_size": 96, "model.num_heads": 1, "model.num_layers": 2,
    })  # fmt: skip
    patch.setitem(presets.PRESETS, "tiny", lambda: small)
    slow = Pace(step_seconds=0.994 * 60 * minutes / 20, validation_seconds=minutes / 60)

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
            make_short(patch, words)
            assert main(words) == 0, line
        assert capsys.readouterr().out.strip(), line
    (lines,) = blocks(ROOT / "README.md", "python")
    assert len(lines.strip().splitlines()) <= 11  # ten lines and an empty one
    exec(compile(lines.replace("runs/demo", "runs/mine"), "README.md", "exec"), {})
    assert "surprise=" in capsys.readouterr().out
    assert main(["info", "store", "--json"]) == 0
    assert main(["pretrain", "tiny", "--data", "store", "--out", "runs/mine"]) == 2
    assert "--resume" in capsys.readouterr().err


@pytest.mark.slow
def test_the_tutorials_commands_run(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    few = functools.partial(evaluate, max_blanks=20)
    monkeypatch.setattr(importlib.import_module("blankfill.api.train"), "evaluate", few)
    tried = []
    for line in commands(ROOT / "docs/tutorial.md"):
        words = shlex.split(line)[1:]
        with monkeypatch.context() as patch:
            make_short(patch, words)
            assert main(words) == 0, line
        assert capsys.readouterr().out.strip(), line
        tried.append(words[0])
    assert tried == ["train", "train", "pretrain", "evaluate", "fill", "export", "info"]
