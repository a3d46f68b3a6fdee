"""The blocks of docs/python.md, run as they stand, in order."""

import pytest

from blankfill.demo.corpus import generate
from docs_blocks import DOCS, blocks


def test_both_languages_have_the_same_blocks():
    assert blocks(DOCS / "python.md", "python") == blocks(DOCS / "python.zh.md", "python")
    assert len(blocks(DOCS / "python.md", "python")) == 5


@pytest.mark.slow
def test_the_blocks_run(tmp_path, monkeypatch, capsys):
    corpus = generate(3, num_train=700, num_valid=2)
    (tmp_path / "corpus").mkdir()
    for number, document in enumerate(corpus.train):
        (tmp_path / "corpus" / f"{number:03}.txt").write_text(document.text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "docs"}
    shown = []
    for block in blocks(DOCS / "python.md", "python"):
        exec(compile(block, "docs/python.md", "exec"), names)
        shown.append(capsys.readouterr().out)
    built, trained, filled, scored, taken = shown
    assert "documents held out" in built
    assert trained.startswith("6 ")
    assert filled.startswith("LanguageModel('runs/mine', step 6, ")
    assert "The" in filled
    assert "model, which reads " in scored
    assert "[[1, 3]]" in taken
    assert "no blank" in taken
