"""`blankfill train`: the whole path in one command, stopped anywhere, and what it refuses."""

import dataclasses
import functools
import hashlib
import importlib
import inspect
import json
import os
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from blankfill.api import data_build, tokenizer_train, train_end, train_plan
from blankfill.api.train_folder import RECORD, Asked
from blankfill.api.train_text import read_text
from blankfill.cli.main import main
from blankfill.config import presets
from blankfill.config.model import ModelConfig
from blankfill.config.run import RunConfig
from blankfill.config.schedule import ScheduleConfig
from blankfill.config.train import TrainConfig
from blankfill.data.hold_out import fraction_of
from blankfill.data.store import TokenStore
from blankfill.demo.corpus import generate
from blankfill.errors import BlankfillError, ConfigError, DataError, OutputError
from blankfill.prepare import pace
from blankfill.prepare.pace import Pace
from blankfill.runs import list_checkpoints, read_run
from blankfill.text.options import TextOptions
from blankfill.text.vocabularies import load_tokenizer

train_api = importlib.import_module("blankfill.api.train")  # the package has the function
SMALL = RunConfig(
    model=ModelConfig(hidden_size=32, num_layers=1, num_heads=2, ffn_size=48, max_position=64),
    train=TrainConfig(
        row_length=64, batch_rows=2, micro_batch_rows=2, threads=1, embedding_init="neighbours"
    ),
    schedule=ScheduleConfig(kind="linear", peak_lr=1e-2, min_lr_ratio=0.0),
)
STEPS = 20


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A little more text than the least there may be, in two files."""
    folder = tmp_path_factory.mktemp("train") / "corpus"
    folder.mkdir()
    texts = [document.text for document in generate(3, num_train=250, num_valid=2).train]
    for name, part in (("a.jsonl", texts[::2]), ("b.jsonl", texts[1::2])):
        lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in part)
        (folder / name).write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A machine on which a minute is twenty steps of a tiny model."""
    monkeypatch.setitem(presets.PRESETS, "tiny", lambda: SMALL)

    def measure(cfg, build, run, *, seconds):
        folder = run.with_name("measured")
        build(cfg.changed({"train.steps": 1}), folder)
        shutil.rmtree(folder)
        return Pace(step_seconds=2.7, validation_seconds=1.0)

    monkeypatch.setattr(pace, "measure_pace", measure)
    few = functools.partial(train_api.evaluate, max_blanks=20)
    monkeypatch.setattr(train_api, "evaluate", few)


def train(corpus, out, **options):
    return train_api.train(corpus, out=out, **{"minutes": 1, "hold_out": 0.05} | options)


def weights(run):
    newest = list_checkpoints(run)[-1]
    return hashlib.sha256((newest / "model.safetensors").read_bytes()).hexdigest()


def refused(words, capsys):
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("blankfill: ")
    return last


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def stop(*_, **__):
    raise KeyboardInterrupt


def copy_of(run, tmp_path):
    return Path(shutil.copytree(run, tmp_path / "run"))


# -- the whole path -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(corpus, tmp_path_factory):
    """A run that was stopped before its first step."""
    run = tmp_path_factory.mktemp("prepared") / "runs/mine"
    with pytest.MonkeyPatch.context() as patch:
        quick.__wrapped__(patch)
        patch.setattr(train_api, "plan_training", stop)
        with pytest.raises(KeyboardInterrupt):
            train(corpus, run)
    return run


@pytest.fixture(scope="module")
def finished(corpus, prepared, tmp_path_factory):
    """A run that is complete, and what the command said of it."""
    run = copy_of(prepared, tmp_path_factory.mktemp("finished"))
    with pytest.MonkeyPatch.context() as patch:
        quick.__wrapped__(patch)
        return train(corpus, run), run


def test_one_command_makes_a_run_that_every_verb_opens(finished, capsys):
    result, run = finished
    assert result.finished
    assert (result.step, result.steps) == (STEPS, STEPS)
    assert result.expected.steps == STEPS
    assert result.expected.positions == STEPS * 2 * 64
    assert result.preset == "tiny"
    assert read_run(run).config.model.vocab_size >= result.vocab_size
    assert sum(result.documents.values()) == 500
    assert len(result.fills) == 3
    assert {fill.language for fill in result.fills} == {"en", "zh"}
    assert result.report == str(run / "report.html")
    assert result.evaluation is not None
    for command in ("info", "fill", "report", "tokenizer info", "data info"):
        what = {"fill": [run, "the [MASK] fox"], "tokenizer info": [run / "tokenizer"],
                "data info": [run / "data/store-held-out"],
                "report": [run, "--out", run / "report.html"]}  # fmt: skip
        words = [*command.split(), *what.get(command, [run])]
        assert main([str(word) for word in words]) == 0, command
    capsys.readouterr()


def test_passes_are_what_training_counts(finished):
    result, run = finished
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (last,) = (row for row in map(json.loads, lines) if row["step"] == STEPS and "epoch" in row)
    assert result.expected.passes == pytest.approx(last["epoch"], rel=0.05)


def test_the_commands_that_come_next_run_as_they_stand(finished, monkeypatch, capsys):
    result, run = finished
    monkeypatch.chdir(run.parent)
    assert len(result.next) == 3
    for command in result.next:
        name, *words = shlex.split(command)
        assert name == "blankfill"
        assert main(words) == 0, command
    assert read_run(run.with_name("run-longer")).init.step == result.best_step
    capsys.readouterr()


def test_a_finished_run_is_shown_again_and_nothing_is_done_again(finished, corpus, monkeypatch):
    result, run = finished
    before = weights(run)
    for name in ("tokenizer_train", "data_build", "plan_training", "pretrain", "evaluate"):
        monkeypatch.setattr(train_api, name, None)
    again = train(corpus, run)
    same = ("evaluation", "fills", "next", "step", "best_step", "vocab_size", "documents")
    assert all(getattr(again, name) == getattr(result, name) for name in same)
    assert weights(run) == before


@pytest.mark.parametrize(
    ("done", "content"),
    [(False, '{"format": "blankfill evaluation", "version": 1, "step": 20}'), (True, "")],
)
def test_an_evaluation_that_is_earlier_or_damaged_is_done_again(
    done, content, finished, corpus, tmp_path
):
    result, run = finished[0], copy_of(finished[1], tmp_path)
    if not done:
        record = json.loads((run / RECORD).read_text())
        del record["finished"]["evaluation"]
        (run / RECORD).write_text(json.dumps(record))
    if content:
        (run / "evaluation.json").write_text(content)
    else:
        (run / "evaluation.json").unlink()
    assert train(corpus, run).evaluation == result.evaluation


# -- stopped anywhere -----------------------------------------------------------------------------

STAGES = (
    "tokenizer_train", "data_build", "plan_training", "pretrain", "evaluate", "report",
    "fill_held_out",
)  # fmt: skip


def test_stopped_before_any_stage_the_same_command_goes_on(corpus, finished, tmp_path, monkeypatch):
    done = []
    for name in STAGES:
        function = getattr(train_api, name)

        def call(*args, _name=name, _function=function, **options):
            done.append(_name)
            return _function(*args, **options)

        monkeypatch.setattr(train_api, name, call)
    for stage in STAGES:
        with monkeypatch.context() as patch:
            patch.setattr(train_api, stage, stop)
            with pytest.raises(KeyboardInterrupt):
                train(corpus, tmp_path / "run")
    result = train(corpus, tmp_path / "run")
    # A plan is forgotten where nothing came of it; all else is done once.
    assert [done.count(name) for name in ("tokenizer_train", "data_build")] == [1, 1]
    assert [done.count(name) for name in ("pretrain", "evaluate", "fill_held_out")] == [1, 1, 1]
    assert weights(tmp_path / "run") == weights(finished[1])
    assert result.evaluation == finished[0].evaluation


def test_stopped_in_training_the_same_command_ends_with_the_same_weights(
    corpus, prepared, finished, tmp_path, monkeypatch, capsys
):
    from blankfill.train import Trainer

    run, step = copy_of(prepared, tmp_path), Trainer.step

    def stopping(self, loader):
        info = step(self, loader)
        if self.index == 7:
            self._stop.set()
        return info

    words = ["train", corpus, "--minutes", 1, "--hold-out", "5%", "--out", run]
    words = [str(word) for word in words]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stopping)
        assert main(words) == 130
    assert "stopped at step 7 of 20" in capsys.readouterr().out
    assert main(words) == 0
    assert weights(run) == weights(finished[1])
    capsys.readouterr()


def test_what_a_killed_process_leaves_is_no_hindrance(corpus, tmp_path, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    (run / f".{RECORD}.99999.tmp").write_text("half")
    (tmp_path / ".run.99999.tmp").mkdir()
    monkeypatch.setattr(train_api, "tokenizer_train", stop)
    with pytest.raises(KeyboardInterrupt):
        train(corpus, run)
    assert (run / RECORD).is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


# -- what has changed since -----------------------------------------------------------------------


@pytest.fixture
def copied(corpus, tmp_path):
    """The text in a folder that a test may change."""
    folder = tmp_path / "text"
    folder.mkdir()
    for path in corpus.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def add_document(folder):
    with (folder / "a.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"text": "A document that is new here."}) + "\n")


@pytest.mark.parametrize(
    ("options", "again"),
    [
        ({}, []),
        ({"minutes": 1.1}, []),
        ({"seed": 7}, []),
        ({"hold_out": 0.1}, ["data_build"]),
        ({"vocab_size": 700}, ["tokenizer_train", "data_build"]),
        ("text", ["tokenizer_train", "data_build"]),
    ],
)
def test_before_training_everything_may_change(
    options, again, copied, prepared, tmp_path, monkeypatch
):
    run, done = copy_of(prepared, tmp_path), []
    for name in ("tokenizer_train", "data_build"):
        function = getattr(train_api, name)

        def call(*args, _name=name, _function=function, **options):
            done.append(_name)
            return _function(*args, **options)

        monkeypatch.setattr(train_api, name, call)
    if options == "text":
        add_document(copied)
        options = {}
    monkeypatch.setattr(train_api, "pretrain", stop)
    with pytest.raises(KeyboardInterrupt):
        train(copied, run, **options)
    assert done == again
    said = json.loads((run / RECORD).read_text())
    assert sum(said["text"]["documents"].values()) == (501 if again and not options else 500)
    assert said["vocab_size"] == options.get("vocab_size", said["vocab_size"])
    assert said["asked"]["seed"] == options.get("seed", 1)
    share = json.loads((run / "data/store/manifest.json").read_text())["hold_out"]["share"]
    assert share == options.get("hold_out", 0.05)


def test_text_is_read_as_the_verbs_that_read_it_do(copied, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(train_api, "plan_training", stop)
    caplog.set_level("INFO")
    for name in ("a", "b"):  # the same documents once more, and one with runs of white space
        text = (copied / f"{name}.jsonl").read_text("utf-8")
        (copied / f"{name}-again.jsonl").write_text(text, "utf-8")
    write(copied / "c.jsonl", json.dumps({"text": "a  text \n\n\n\n of   blanks"}) + "\n")
    run = tmp_path / "run"

    def prepare(**options):
        caplog.clear()
        with pytest.raises(KeyboardInterrupt):
            train(copied, run, **options)
        said = json.loads((run / RECORD).read_text())["text"]
        stores = [TokenStore.open(run / "data" / name) for name in ("store", "store-held-out")]
        texts = [load_tokenizer(run / "data/tokenizer").decode(store.document(i).tolist())
                 for store in stores for i in range(len(store))]  # fmt: skip
        return sum(said["documents"].values()), said["skipped"], texts

    lines = [line for path in copied.iterdir() for line in path.read_text("utf-8").splitlines()]
    repeated = len(lines) - len(set(lines))
    documents, skipped, texts = prepare()
    assert (documents, skipped, len(texts)) == (len(lines), {}, len(lines))
    assert any("blanks" in text and "   " in text for text in texts)
    assert f"{repeated} documents were there before, word for word, and are kept" in caplog.text
    documents, skipped, texts = prepare(drop_duplicates=True, squeeze_whitespace=True)
    assert (documents, skipped) == (len(set(lines)), {"an exact duplicate": repeated})
    assert len(texts) == documents
    assert not any("  " in text or "\n\n\n" in text for text in texts)
    assert "--drop-duplicates leaves" not in caplog.text


@pytest.mark.parametrize("zh_too", [False, True])
def test_a_language_of_which_nothing_is_held_out_is_told_of(zh_too, tmp_path, caplog):
    folder, share = tmp_path / "text", 0.2
    for number in range(200):
        text = f"{number} 春天来了，桃花开了，老人在河边读书。\n" * 20
        if zh_too or fraction_of(text) >= share:
            write(folder / f"zh-{number}.txt", text)
        write(folder / f"en-{number}.txt", f"{number} {WORDS}\n" * 20)
    asked = Asked(minutes=1, hold_out=share, text_field="text", encoding="auto", documents="file",
                  seed=1)  # fmt: skip
    caplog.set_level("INFO")
    read_text([folder], asked, None)
    said = "nothing of Chinese is among the 20% held out"
    assert (said in caplog.text) is not zh_too
    assert "nothing of English" not in caplog.text


def test_every_option_of_reading_is_one_of_train():
    reading = {each.name for each in dataclasses.fields(TextOptions)} - {"answer_field"}
    verbs = [inspect.signature(verb).parameters for verb in (data_build, tokenizer_train)]
    for name in reading:
        assert all(name in verb for verb in verbs)
        assert name in inspect.signature(train_api.train).parameters


def test_text_that_changed_since_training_began_is_one_sentence(copied, finished, tmp_path, capsys):
    run = copy_of(finished[1], tmp_path)
    moved = copied.rename(tmp_path / "moved")
    assert train(moved, run).finished  # the same text elsewhere
    add_document(moved)
    before = tree(run)
    words = ["train", moved, "--minutes", 1, "--hold-out", "5%", "--out", run]
    said = refused(words, capsys)
    assert "500 documents" in said
    assert "501 documents" in said
    assert "--overwrite" in said
    assert tree(run) == before
    assert main([str(word) for word in [*words, "--overwrite"]]) == 0
    capsys.readouterr()
    assert sum(train(moved, run).documents.values()) == 501


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"minutes": 2}, "--minutes 1"),
        ({"hold_out": 0.1}, "--hold-out 0.05"),
        ({"seed": 2}, "--seed 1"),
        ({"vocab_size": 500}, "no --vocab-size"),
        ({"preset": "small"}, "no --preset"),
        ({"squeeze_whitespace": True}, "no --squeeze-whitespace"),
        ({"drop_duplicates": True}, "no --drop-duplicates"),
    ],
)
def test_another_question_than_the_run_was_begun_with_is_refused(options, said, corpus, finished):
    with pytest.raises(ConfigError, match=said):
        train(corpus, finished[1], **options)


# -- what cannot be used --------------------------------------------------------------------------


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


WORDS = "the old fox reads a book by the river and sells bread in the town "
BAD_TEXTS = {
    "missing": (lambda folder: folder / "nowhere", "nowhere"),
    "an empty folder": (lambda folder: folder, "no document with text|no file"),
    "white space": (lambda folder: write(folder / "a.txt", " \n" * 100_000), "empty"),
    "too little": (lambda folder: write(folder / "a.txt", WORDS * 1000), "takes 102 kB"),
    "one document": (lambda folder: write(folder / "a.txt", WORDS * 5000), "one document"),
    "two documents": (
        lambda folder: (
            [write(folder / f"{i}.txt", f"{i} " + WORDS * 1000) for i in range(2)] and folder
        ),
        "holds out none of the 2",
    ),
    "stdin": (lambda folder: "-", "one time only"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_TEXTS)
def test_text_that_cannot_be_used_is_one_sentence_and_leaves_nothing(kind, tmp_path, capsys):
    make, said = BAD_TEXTS[kind]
    (tmp_path / "text").mkdir()
    files = make(tmp_path / "text")
    with pytest.raises(DataError, match=said):
        train(files, tmp_path / "runs/mine", hold_out=0.001)
    assert not (tmp_path / "runs").exists()
    refused(["train", files, "--hold-out", "0.001", "--out", tmp_path / "runs/mine"], capsys)


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "0.05", "1e9", "many"])
def test_minutes_out_of_range_are_refused_at_once(minutes, corpus, tmp_path, capsys):
    said = refused(["train", corpus, "--minutes", minutes, "--out", tmp_path / "run"], capsys)
    assert "minutes" in said
    assert not list(tmp_path.iterdir())


def test_too_few_minutes_name_how_many_and_these_work(corpus, prepared, tmp_path):
    run = copy_of(prepared, tmp_path)
    with pytest.raises(ConfigError, match=r"give it --minutes 1\.1 or more"):
        train(corpus, run, minutes=0.5)
    assert train(corpus, run, minutes=1.1).finished


@pytest.mark.parametrize(
    ("option", "value"),
    [("preset", "none"), ("hold_out", 1.0), ("vocab_size", 0), ("seed", -1), ("text_field", "no")],
)
def test_other_options_that_cannot_be_used(option, value, corpus, tmp_path):
    with pytest.raises(BlankfillError, match=str(value)):
        train(corpus, tmp_path / "run", **{option: value})
    assert not list(tmp_path.iterdir())


def others(tmp_path, kind, finished):
    place = tmp_path / "place"
    if kind == "file":
        write(place, "mine")
    elif kind == "folder":
        write(place / "thesis.txt", "mine")
    elif kind == "run":
        write(place / "run.json", (finished[1] / "run.json").read_text())
    elif kind == "damaged":
        write(place / RECORD, '{"format": "blankfill train"')
    elif kind == "another's":
        write(place / RECORD, '{"format": "train schedule", "version": 1}')
    elif kind == "below a file":
        write(tmp_path / "file", "mine")
        return tmp_path / "file" / "run"
    elif kind == "dangling link":
        place.symlink_to(tmp_path / "nowhere")
    elif kind == "the current folder":
        return os.curdir
    return place


KINDS = (
    "file", "folder", "run", "damaged", "another's", "below a file", "dangling link",
    "the current folder",
)  # fmt: skip


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_is_anothers_stays(kind, overwrite, corpus, tmp_path, finished, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_api, "tokenizer_train", None)  # refused before long work
    place = others(tmp_path, kind, finished)
    before = tree(tmp_path)
    with pytest.raises(BlankfillError, match=r"place|file|\."):
        train(corpus, place, overwrite=overwrite)
    assert tree(tmp_path) == before


def test_what_a_user_has_put_beside_a_run_stays(corpus, finished, tmp_path):
    run = copy_of(finished[1], tmp_path)
    write(run / "notes.md", "mine")
    assert train(corpus, run).finished  # goes on: nothing is replaced
    with pytest.raises(OutputError, match=r"notes\.md"):
        train(corpus, run, overwrite=True)
    assert (run / "notes.md").read_text() == "mine"


def test_two_at_once_in_one_folder_are_refused(corpus, tmp_path):
    from blankfill.disk.publish import NameLock

    with NameLock(tmp_path / "run"), pytest.raises(OutputError, match="another process"):
        train(corpus, tmp_path / "run")


def test_a_full_disk_is_one_sentence_and_the_same_command_goes_on(
    corpus, prepared, tmp_path, monkeypatch
):
    from blankfill.atomic import write_json

    run = copy_of(prepared, tmp_path)

    def full(path, value, **options):
        if path.name == RECORD:
            raise OSError(28, "No space left on device")
        write_json(path, value, **options)

    with monkeypatch.context() as patch:
        patch.setattr("blankfill.atomic.write_json", full)
        with pytest.raises(OutputError, match="the disk is full"):
            train(corpus, run)
    assert train(corpus, run).finished


# -- what is said ---------------------------------------------------------------------------------


def test_repetitive_text_gets_the_vocabulary_that_it_allows(tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO")
    lines = (json.dumps({"text": f"{i} {WORDS}" * 3}) + "\n" for i in range(1500))
    write(tmp_path / "text/a.jsonl", "".join(lines))
    monkeypatch.setattr(train_api, "data_build", stop)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "text", tmp_path / "run")
    assert "the text allows" in caplog.text
    with pytest.raises(ConfigError, match="too little text"):
        train(tmp_path / "text", tmp_path / "other", vocab_size=4096)


@pytest.mark.parametrize(
    ("passes", "said"), [(0.3, "less than a trigram"), (1.0, "or better"), (30, "less and less")]
)
def test_passes_are_said_with_what_they_mean(passes, said):
    assert said in train_plan.what_passes_mean(passes)


@pytest.mark.parametrize(
    ("pace", "minutes", "steps", "validations"),
    [
        (Pace(step_seconds=1.0, validation_seconds=0.0), 1, 60, 10),
        (Pace(step_seconds=1.0, validation_seconds=1.0), 60, 3589, 10),
        (Pace(step_seconds=1.0, validation_seconds=10.0), 3, 160, 1),
        (Pace(step_seconds=1.0, validation_seconds=5.0), 3, 165, 2),
    ],
)
def test_steps_and_validations_fit_into_the_minutes(pace, minutes, steps, validations):
    found, every = train_plan._steps(pace, minutes)
    assert found == steps
    assert -(-found // every) == validations
    spent = found * pace.step_seconds + (validations + 1) * pace.validation_seconds
    assert spent <= 60 * minutes < spent + pace.step_seconds + pace.validation_seconds + 1


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ("\u2026ragment of a line " + "word " * 30, " and so on", "word [MASK] and so on"),
        ("on the\n\n", "\nriver", "on the [MASK] river"),
        ("\u6211" * 80, "\u4f60" * 80, "\u6211" * 40 + "[MASK]" + "\u4f60" * 40),
    ],
)
def test_a_blank_that_is_shown_stands_in_one_line(before, after, text):
    from blankfill.metrics import Sample

    sample = Sample(language="en", before=before, truth="x", answer="y", after=after,
                    probability=0.5, correct=False)  # fmt: skip
    found = train_end._text(sample)
    assert found.endswith(text) if before.startswith("\u2026") else found == text
    assert "\n" not in found
    assert "\u2026" not in found


def test_a_fill_of_white_space_is_kept_to_be_shown(monkeypatch, tmp_path):
    from blankfill.metrics import Sample

    sample = Sample(language="en", before="the old ", truth="fox", answer="", after=" reads",
                    probability=0.0, correct=False)  # fmt: skip
    monkeypatch.setattr(train_end, "_samples", lambda run, step: [sample])
    blank = SimpleNamespace(text=" \n", probability=0.5)
    item = SimpleNamespace(blanks=[blank], error=None)
    monkeypatch.setattr(train_end, "fill", lambda *_, **__: SimpleNamespace(items=[item]))
    (found,) = train_end.fill_held_out(tmp_path, 1)
    assert found.answer == " \n"


def test_the_result_is_frozen(finished):
    with pytest.raises(dataclasses.FrozenInstanceError):
        finished[0].step = 1


def test_a_command_to_copy_stands_in_one_line_of_a_narrow_terminal(finished, monkeypatch):
    import io

    from blankfill.cli.console import Answer
    from blankfill.cli.train import print_train

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", "60")
    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    print_train(finished[0], Answer())
    lines = out.getvalue().splitlines()
    for command in finished[0].next:
        assert any(line.endswith(command.removeprefix("blankfill")) for line in lines), command
