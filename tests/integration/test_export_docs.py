"""The commands of docs/export.md, typed as they stand; its Python where transformers is."""

import json
import os
import shlex
import subprocess

import pytest
import torch

from blankfill.cli.main import main
from blankfill.generate import LanguageModel, fill_tokens
from blankfill.generate import scores as generate_scores
from conftest import small_corpus
from docs_blocks import DOCS, blocks


def commands(name):
    return [line for block in blocks(DOCS / name) for line in block.splitlines()]


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
    use, scorer = blocks(DOCS / "export.md", "python")
    assert [use, scorer] == blocks(DOCS / "export.zh.md", "python")
    assert scorer.count("\n    def ") == 3


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
    use, *more = blocks(out / "README.md", "python")
    assert len(use.strip().splitlines()) <= 9
    # What stands in place of a pipeline goes on with the names of the lines above it.
    in_place = "\n".join([use, *more])
    documented = blocks(DOCS / "export.md", "python")[0]
    for code, place in ((documented, tmp_path), (use, out), (in_place, out)):
        assert "fox" in run_alone(python, code, place)


SCORING = """
import json
from lm_eval import simple_evaluate

questions, answers = json.load(open("asked.json"))
scores = [[Blanks().score(q, a)[0] for a in answers] for q in questions]
documents = [
    {"q": q, "a": answers, "y": max(range(len(row)), key=row.__getitem__)}
    for q, row in zip(questions, scores)
]
open("asked.jsonl", "w").write("\\n".join(map(json.dumps, documents)))
task = {
    "task": "mini", "dataset_path": "json", "output_type": "multiple_choice", "test_split": "test",
    "dataset_kwargs": {"data_files": {"test": "asked.jsonl"}}, "target_delimiter": "",
    "doc_to_text": "{{q}}", "doc_to_choice": "{{a}}", "doc_to_target": "y",
    "metric_list": [{"metric": "acc"}],
}
found = simple_evaluate(model=Blanks(), tasks=[task])
print(json.dumps([scores, found["results"]["mini"]["acc,none"]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["BLANKFILL_HF4", "BLANKFILL_HF5"])
def test_the_scorer_of_the_document_gives_the_probabilities_of_the_run(
    folder, variable, tmp_path, monkeypatch
):
    python = os.environ.get(variable)
    if not python:
        pytest.skip(f"{variable} does not name a Python that has transformers")
    if subprocess.run([python, "-I", "-c", "import lm_eval"], capture_output=True).returncode:
        pytest.skip(f"{variable} has no lm-eval")
    out = tmp_path / "exported"
    assert main(["export", str(folder / "runs" / "mine"), "--to", "hf", "--out", str(out)]) == 0
    questions, answers = (
        ["the old fox", "a young dog", "books"],
        [" reads books", " sees", " water"],
    )
    (tmp_path / "asked.json").write_text(json.dumps([questions, answers]), encoding="utf-8")
    scorer = blocks(DOCS / "export.md", "python")[1]
    scores, accuracy = json.loads(run_alone(python, scorer + SCORING, tmp_path).splitlines()[-1])
    assert accuracy == 1.0  # lm-eval chooses what has the highest score, as this list was made
    lm = LanguageModel.load(folder / "runs" / "mine")
    eop = lm.ids.eop
    # The loss counts what may never be written as well, so that its numbers are the training's.
    none = torch.zeros(lm.cfg.model.vocab_size, dtype=torch.bool)
    monkeypatch.setattr(generate_scores, "banned_tokens", lambda _lm: none)
    for question, row in zip(questions, scores, strict=True):
        for answer, score in zip(answers, row, strict=True):
            prompt = lm.tokenizer.encode_with_blanks(question + "[MASK]")
            forced = [[[*lm.tokenizer.encode(answer).tolist(), eop]]]
            (filled,) = fill_tokens(lm, [prompt], forced=forced)
            assert score == pytest.approx(filled.blanks[0].logprob, abs=1e-3)


def run_alone(python, code, folder):
    """Run code by another Python, which does not know blankfill, and give what it prints."""
    done = subprocess.run(
        [python, "-I", "-c", code], cwd=folder, capture_output=True, text=True, check=False,
        env={
            "HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
            "HF_DATASETS_OFFLINE": "1", "PATH": os.environ.get("PATH", ""),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
