"""`blankfill evaluate`: one run or several, any stores, and what is found before it scores."""

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
from blankfill.runs import read_evaluation
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


SYSTEMS = {
    ("model", "both sides"), ("model", "left side"), ("trigram", "two tokens"),
    ("unigram", "nothing"),
}  # fmt: skip


def systems(result):
    (one,) = result.runs
    return {(s.system, s.reads) for report in one.blanks.languages for s in report.scores}


@pytest.mark.parametrize("held_out", [["valid"], ["valid", "valid2"], ["a", "b", "valid"]])
def test_a_run_with_a_mixture_for_each_store_is_evaluated_on_any_number_of_stores(
    trained, held_out
):
    result = evaluate(trained / "run", data=[trained / name for name in held_out], max_blanks=3)
    (one,) = result.runs
    assert systems(result) == SYSTEMS
    assert one.rows["loss_nats"] > 0
    assert one.notes == []
    assert one.blanks.ngram_tokens == one.blanks.training_tokens > 0
    assert read_evaluation(trained / "run").blanks == one.blanks


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
    (note,) = json.loads(printed.out)["runs"][0]["notes"]
    assert note.startswith("no n-gram models: ")
    assert str(folder / "b") in note
    assert "no n-gram models" in printed.err
    recorded = json.loads((folder / "run" / "evaluation.json").read_text())
    assert recorded["notes"] == [note]
    assert {s["system"] for s in recorded["blanks"]["languages"][0]["scores"]} == {"model"}


def never_loaded(monkeypatch):
    monkeypatch.setattr(
        "blankfill.generate.LanguageModel.load", lambda *_1, **_2: pytest.fail("loaded")
    )


def foreign_scores(run):
    (run / "evaluation.json").write_text('{"format": "another"}')


def cut_weights(run):
    (run / "checkpoints" / "step-00000001" / "model.safetensors").write_bytes(b"")


def other_vocabulary(run):
    path = run / "tokenizer" / "tokenizer.json"
    path.write_text(path.read_text().replace("fingerprint", "finger"))


@pytest.mark.parametrize(
    ("words", "damage", "said"),
    [
        (["--data", "nowhere"], None, "no token store at"),
        (["--data", "no-words"], None, "no blank can be drawn"),
        (["--data", "valid", "--weights", "ema"], None, "no moving average"),
        (["--data", "valid"], foreign_scores, "is not what `blankfill evaluate` writes"),
        (["--data", "valid"], cut_weights, "every checkpoint"),
        (["--data", "valid"], other_vocabulary, "tokenizer"),
        (["--data", "valid"], shutil.rmtree, "second"),
        (["--data", "valid", "--max-blanks", "0"], None, "max_blanks=0"),
    ],
)
def test_what_is_wrong_with_any_run_is_said_before_the_first_is_loaded(
    folder, tokenizer_folder, capsys, monkeypatch, words, damage, said
):
    make_store(folder, "no-words", tokenizer_folder, 0, ["alone", "...", "\u4eba"])
    (folder / "run" / "evaluation.json").unlink(missing_ok=True)
    shutil.copytree(folder / "run", folder / "second")
    if damage is not None:
        damage(folder / "second")
    never_loaded(monkeypatch)
    monkeypatch.chdir(folder)
    assert main(["evaluate", "run", "second", *words]) == 2
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert said in sentence
    assert not (folder / "run" / "evaluation.json").exists()


def test_rows_that_are_too_short_for_a_blank_are_said_before_a_model_is_loaded(
    folder, capsys, monkeypatch
):
    path = folder / "run" / "run.json"
    path.write_text(path.read_text().replace('"row_length": 64', '"row_length": 4'))
    never_loaded(monkeypatch)
    assert main(["evaluate", str(folder / "run"), "--data", str(folder / "valid")]) == 2
    assert "train.row_length" in capsys.readouterr().err


@pytest.fixture(scope="module")
def unlike(trained, tmp_path_factory):
    """A second run of the same text, of another tokenizer, objective and row length."""
    folder = tmp_path_factory.mktemp("unlike")
    (folder / "text.txt").write_text("\n\n".join(small_corpus(300, 4)), encoding="utf-8")
    train_tokenizer([folder / "text.txt"], folder / "tok2", vocab_size=450)
    for name, seed in (("a", 0), ("valid", 7)):
        make_store(folder, name, folder / "tok2", seed)
    cfg = CFG.changed({
        "objective.by_source": (), "objective.mask_ratio": 0.4, "objective.max_span_length": 3,
        "train.row_length": 48,
    })  # fmt: skip
    build_trainer(cfg, data=[folder / "a"], run=folder / "run", validation=[folder / "valid"],
                  check_blanks=BlankWatch).fit()  # fmt: skip
    return folder


def test_runs_of_other_objectives_and_tokenizers_are_asked_the_same(trained, unlike, capsys):
    own = evaluate(trained / "run", data=trained / "valid", max_blanks=9).runs[0]
    other = evaluate(unlike / "run", data=unlike / "valid", max_blanks=9).runs[0]
    assert own.blanks.law == other.blanks.law
    together = evaluate([trained / "run", unlike / "run"], data=trained / "valid", max_blanks=9)
    first, second = together.runs
    assert first == own
    # The other's store holds the same text: its blanks are the same, read here as text.
    assert second.blanks == other.blanks
    assert second.rows == {}
    assert "packed rows are not scored" in second.notes[0]
    assert [r.num_words for r in own.blanks.languages] == [
        r.num_words for r in other.blanks.languages
    ]
    assert [r.num_tokens for r in own.blanks.languages] != [
        r.num_tokens for r in other.blanks.languages
    ]
    words = ["evaluate", str(trained / "run"), str(unlike / "run"), "--data",
             str(trained / "valid"), "--max-blanks", "9"]  # fmt: skip
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert shown.count("both sides") == 2 * 2 * 2
    assert shown.count("packed rows") == 1


def test_a_run_that_is_named_twice_is_shown_twice(trained, capsys):
    run = str(trained / "run")
    assert main(["evaluate", run, run, "--data", str(trained / "valid"), "--max-blanks", "2"]) == 0
    assert capsys.readouterr().out.count("step 1\n") == 2


def test_a_run_that_cannot_be_written_is_scored_and_says_so_first(trained, monkeypatch, capsys):
    monkeypatch.setattr("os.access", lambda *_, **__: False)
    words = [str(trained / "run"), "--data", str(trained / "valid"), "--max-blanks", "2"]
    assert main(["evaluate", *words]) == 0
    assert "cannot be written" in capsys.readouterr().err.splitlines()[0]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_tables_say_what_each_row_was_told_and_the_error_of_its_scores(
    trained, capsys, monkeypatch, width
):
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["evaluate", str(trained / "run"), "--data", str(trained / "valid")]) == 0
    shown = capsys.readouterr().out
    for words in ("exact", "length given", "nats / character", "nats / token", "two tokens",
                  "left side", "\u00b1", "one standard error"):  # fmt: skip
        assert words in shown


def test_what_is_not_read_need_not_be_whole(folder):
    with (folder / "run" / "checkpoints" / "step-00000001" / "optimizer.safetensors").open(
        "r+b"
    ) as file:
        file.write(b"damaged")
    (one,) = evaluate(folder / "run", data=[folder / "valid"], max_blanks=2, baselines=False).runs
    assert one.step == 1
