"""The commands of docs/evaluation.md, run as they stand."""

import json
import shlex

import pytest

from blankfill.api import data_build
from blankfill.cli.main import main
from conftest import small_corpus
from docs_blocks import DOCS, commands
from interop.runs import make_run
from task_items import ITEMS, write_items

PAGE = DOCS / "evaluation.md"


@pytest.fixture
def home(tmp_path, tokenizer_folder, monkeypatch):
    """A folder with all that the page names."""
    for name in ("mine", "other"):
        make_run(tmp_path / "runs" / name, tokenizer_folder)
    for name, seed in (("store", 1), ("store-valid", 7)):
        text = tmp_path / f"{name}.jsonl"
        lines = [json.dumps({"text": each}) for each in small_corpus(30, seed)]
        text.write_text("\n".join(lines))
        data_build(text, tokenizer=tokenizer_folder, out=tmp_path / name)
    english = [*ITEMS][: [*ITEMS].index("c3")]
    for name in ITEMS:
        write_items(tmp_path / "eval" / ("en" if name in english else "zh"), name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_run_in_order(home, capsys):
    found = commands(PAGE)
    assert len(found) >= 7
    for command in found:
        words = shlex.split(command)[1:]
        if "--harness" in words:
            continue  # an extra, which tests/evaluate/test_harness.py skips without
        assert main(words) == 0, command
        told = capsys.readouterr().out
        assert "tasks, protocol" in told or "nats / character" in told or "p, Holm" in told
