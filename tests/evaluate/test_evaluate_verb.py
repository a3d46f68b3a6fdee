"""`blankfill evaluate` on runs of several stores, and where training stores have changed."""

import json
import shutil

import pytest

from blankfill.api import evaluate
from blankfill.cli.main import main
from blankfill.config.model import ModelConfig
from blankfill.config.objective import ObjectiveConfig
from blankfill.config.run import RunConfig
from blankfill.config.schedule import ScheduleConfig
from blankfill.config.train import TrainConfig
from blankfill.config.validation import ValidationConfig
from blankfill.data.ingest import build_store
from blankfill.evaluate.watch import BlankWatch
from blankfill.prepare import build_trainer
from blankfill.text.train_tokenizer import train_tokenizer
from conftest import small_corpus

CFG = RunConfig(
    model=ModelConfig(hidden_size=32, num_layers=1, num_heads=2, ffn_size=48, max_position=64),
    objective=ObjectiveConfig(by_source=("ours", "glm-base")),
    train=TrainConfig(steps=1, row_length=64, batch_rows=2, micro_batch_rows=2, threads=1),
    schedule=ScheduleConfig(warmup_steps=1),
    validation=ValidationConfig(every=1, blanks=2),
)  # fmt: skip


def make_store(folder, name, tokenizer, seed, texts=None):
    source = folder / f"{name}.jsonl"
    lines = [json.dumps({"text": text}) for text in texts or small_corpus(30, seed)]
    source.write_text("\n".join(lines), encoding="utf-8")
    build_store([source], tokenizer=tokenizer, out=folder / name)
    return folder / name


@pytest.fixture(scope="module")
def trained(tokenizer_folder, tmp_path_factory):
    """A folder with a run of two stores, these stores, and held-out ones."""
    folder = tmp_path_factory.mktemp("mixed")
    stores = [make_store(folder, name, tokenizer_folder, i) for i, name in enumerate("ab")]
    for name, seed in (("valid", 7), ("valid2", 8)):
        make_store(folder, name, tokenizer_folder, seed)
    build_trainer(
        CFG, data=stores, run=folder / "run", validation=[folder / "valid"],
        check_blanks=BlankWatch,
    ).fit()  # fmt: skip
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    """The same in a place that a test may change; the run knows its stores there."""
    for name in ("run", "a", "b", "valid"):
        shutil.copytree(trained / name, tmp_path / name)
    path = tmp_path / "run" / "run.json"
    path.write_text(path.read_text().replace(str(trained.resolve()), str(tmp_path.resolve())))
    return tmp_path


def systems(result):
    return {score.system for report in result.blanks.languages for score in report.scores}


@pytest.mark.parametrize("held_out", [["valid"], ["valid", "valid2"], ["a", "b", "valid"]])
def test_a_run_with_a_mixture_for_each_store_is_evaluated_on_any_number_of_stores(
    trained, held_out
):
    result = evaluate(trained / "run", data=[trained / name for name in held_out], max_blanks=3)
    assert systems(result) == {"model", "model without the right side", "trigram", "unigram"}
    assert result.rows["loss_nats"] > 0
    assert result.notes == []
    assert result.blanks.ngram_tokens == result.blanks.training_tokens > 0


def other_text(folder, tokenizer):
    shutil.rmtree(folder / "b")
    make_store(folder, "b", tokenizer, 99)


def other_tokenizer(folder, _tokenizer):
    shutil.rmtree(folder / "b")
    source = folder / "text.txt"
    source.write_text("\n\n".join(small_corpus(300, 4)), encoding="utf-8")
    train_tokenizer([source], folder / "tok2", vocab_size=450)
    make_store(folder, "b", folder / "tok2", 1)


def gone(folder, _tokenizer):
    shutil.rmtree(folder / "b")


def damaged(folder, _tokenizer):
    (folder / "b" / "tokens.bin").write_bytes(b"")


@pytest.mark.parametrize("change", [other_text, other_tokenizer, gone, damaged])
def test_training_text_that_is_not_there_any_more_leaves_the_n_gram_models_out_and_says_so(
    folder, tokenizer_folder, change, capsys, monkeypatch
):
    change(folder, tokenizer_folder)
    monkeypatch.chdir(folder / "valid")  # paths of the training text do not depend on where we are
    command = ["evaluate", "../run", "--data", "../valid", "--max-blanks", "3", "--json"]
    assert main(command) == 0
    printed = capsys.readouterr()
    (note,) = json.loads(printed.out)["notes"]
    assert note.startswith("no n-gram models: ")
    assert str(folder / "b") in note
    assert "no n-gram models" in printed.err
    recorded = json.loads((folder / "run" / "evaluation.json").read_text())
    assert recorded["notes"] == [note]
    assert {s["system"] for s in recorded["blanks"]["languages"][0]["scores"]} == {
        "model", "model without the right side",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("data", "said"), [("nowhere", "no token store at"), ("b", "another tokenizer")]
)
def test_what_cannot_be_evaluated_on_is_said_before_the_model_is_loaded(
    folder, tokenizer_folder, capsys, monkeypatch, data, said
):
    other_tokenizer(folder, tokenizer_folder)
    monkeypatch.setattr(
        "blankfill.generate.LanguageModel.load", lambda *_1, **_2: pytest.fail("loaded")
    )
    assert main(["evaluate", str(folder / "run"), "--data", str(folder / data)]) == 2
    assert said in capsys.readouterr().err


def test_what_is_not_read_need_not_be_whole(folder):
    with (folder / "run" / "checkpoints" / "step-00000001" / "optimizer.safetensors").open(
        "r+b"
    ) as file:
        file.write(b"damaged")
    assert (
        evaluate(folder / "run", data=[folder / "valid"], max_blanks=2, baselines=False).step == 1
    )
