"""The commands of docs/training.md, typed as they stand."""

import shlex

import pytest

from blankfill.cli.main import main
from blankfill.demo.corpus import generate
from docs_blocks import DOCS, commands


def test_both_languages_have_the_same_commands():
    assert commands(DOCS / "training.md") == commands(DOCS / "training.zh.md")
    assert len(commands(DOCS / "training.md")) == 13


@pytest.mark.slow
def test_the_commands_run(tmp_path, monkeypatch, capsys):
    corpus = generate(3, num_train=700, num_valid=20)
    folders = {"corpus": corpus.train, "held-out": corpus.valid["en"], "law": corpus.valid["zh"]}
    for folder, documents in folders.items():
        (tmp_path / folder).mkdir()
        for number, document in enumerate(documents):
            (tmp_path / folder / f"{number}.txt").write_text(document.text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for line in commands(DOCS / "training.md"):
        line = line.replace("train corpus/ --minutes 60", "train corpus/ --minutes 2")
        assert main(shlex.split(line)[1:]) == 0, line
        assert capsys.readouterr().out.strip(), line
    assert (tmp_path / "runs/mine/checkpoints/step-00000030").is_dir()
    assert (tmp_path / "runs/law/checkpoints/step-00000020").is_dir()
