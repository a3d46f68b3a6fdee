"""The commands of docs/export.md, typed as they stand; its Python where transformers is."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from blankfill.cli.main import main
from blankfill.generate import LanguageModel
from conftest import small_corpus

DOCS = Path(__file__).parents[2] / "docs"


def commands(name):
    text = (DOCS / name).read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [line for kind, block in found if not kind for line in block.splitlines()]


def python_block(name):
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / name).read_text("utf-8"), re.DOTALL)
    return block


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a corpus, a store and a short run, as the README leaves it."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "corpus").mkdir()
    text = "\n\n".join([*small_corpus(), *(f"word{i} other{i * 7}" for i in range(3000))])
    (folder / "corpus" / "a.txt").write_text(text, encoding="utf-8")
    here = os.getcwd()
    os.chdir(folder)
    try:
        for line in (
            "tokenizer train corpus/ --vocab-size 600 --out tok",
            "data build corpus/ --tokenizer tok --out store",
            "pretrain tiny --data store --out runs/mine --train.steps 1",
        ):
            assert main(shlex.split(line)) == 0
    finally:
        os.chdir(here)
    return folder


def test_both_languages_have_the_same_commands():
    assert commands("export.md") == commands("export.zh.md")
    assert len(commands("export.md")) >= 5
    assert python_block("export.md") == python_block("export.zh.md")


@pytest.mark.slow
def test_the_commands_of_the_document_run(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for line in commands("export.md"):
        line = line.replace("--vocab-size 2304", "--vocab-size 700")  # the corpus is small
        assert main(shlex.split(line)[1:]) == 0, line
        assert capsys.readouterr().out.strip(), line
    grown, on = (LanguageModel.load(folder / "runs" / name) for name in ("grown", "on"))
    assert on.tokenizer.fingerprint == grown.tokenizer.fingerprint
    assert on.cfg.model.vocab_size == grown.cfg.model.vocab_size == 704


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["BLANKFILL_HF4", "BLANKFILL_HF5"])
def test_the_python_of_the_document_runs_where_only_transformers_is(folder, variable, tmp_path):
    python = os.environ.get(variable)
    if not python:
        pytest.skip(f"{variable} does not name a Python that has transformers")
    out = tmp_path / "exported"
    assert main(["export", str(folder / "runs" / "mine"), "--to", "hf", "--out", str(out)]) == 0
    for code in (python_block("export.md"), python_of_readme(out)):
        done = subprocess.run(
            [python, "-I", "-c", code], cwd=tmp_path if "exported" in code else out,
            env={"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        assert "fox" in done.stdout


def python_of_readme(out):
    (block,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    return block
