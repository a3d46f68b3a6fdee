"""Every verb's answer, whatever is made of its streams, its paths and its terminal.

Each verb does its work once, in a folder whose name would be markup; then its answer is printed
again and again, into everything that stdout can be.
"""

import dataclasses
import functools
import io
import json
import os
import subprocess
import sys

import pytest

from blankfill.api import DemoFill, DemoResult, ExportResult, Parity
from blankfill.api.train import TrainResult
from blankfill.api.train_end import TrainFill
from blankfill.api.train_folder import Expectation
from blankfill.cli import main as module
from blankfill.cli.main import VERBS, main
from blankfill.results import plain
from conftest import small_corpus
from task_items import ITEMS, write_items

MARKUP = "a[/b] [red]x :smile:"
"""A folder's name that rich would read as markup and an emoji."""
NOT_UTF8 = MARKUP + "\udcd6\udcd0"
"""The same followed by two bytes of GBK, as Python gives them."""
LONG = "the model's answer, " * 12 + "\u6708\u7403" * 60
TEXTS = ["On\tMonday [MASK]\x07 a\rb", "no blank", "-1 [MASK]"]


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """The words of each verb, in an order in which each has what it needs."""
    home = tmp_path_factory.mktemp("verbs") / MARKUP
    home.mkdir(parents=True)
    (home / "text.txt").write_text("\n\n".join(small_corpus()), encoding="utf-8")
    items = write_items(home, "sst2", [*ITEMS["sst2"], {"sentence": "no label"}])
    (home / "probed.jsonl").write_text("\n".join(
        json.dumps({"text": each, "y": number % 3 == 0})
        for number, each in enumerate(small_corpus(40))
    ), encoding="utf-8")  # fmt: skip
    text, tok, store, run = (str(home / name) for name in ("text.txt", "tok", "store", "run"))
    small = {
        "model.hidden-size": 32, "model.num-layers": 1, "model.num-heads": 2, "model.ffn-size": 32,
        "train.row-length": 64, "train.batch-rows": 2, "train.micro-batch-rows": 2,
        "train.steps": 1, "schedule.warmup-steps": 0, "train.precision": "float32",
    }  # fmt: skip
    options = [f"--{name}={value}" for name, value in small.items()]
    return {
        "tokenizer train": [text, "--out", tok, "--vocab-size", "480"],
        "tokenizer encode": [tok, "old \u4eba \U0001f600 [b]x[/b]"],
        "tokenizer decode": [tok, "300", "301"],
        "tokenizer info": [tok, text],
        "data build": ["--tokenizer", tok, "--out", store, text],
        "data export": [store],
        "data import": [f"{store}/tokens", "--tokenizer", tok, "--out", str(home / "taken")],
        "data merge": [store, "--out", str(home / "merged")],
        "data info": [store],
        "data show": [store, "--count", "2"],
        "explain": ["[bold]x[/b] :smile: \u5c0f\u732b\u770b\u96e8\u3002", "--compare"],
        "pretrain": ["--out", run, *options, "tiny", "--data", store],
        "evaluate": [
            "--max-blanks",
            "2",
            "--no-baselines",
            "--data",
            store,
            "--tasks",
            str(items),
            run,
        ],
        "report": [run, "--out", str(home / "report.html")],
        "fill": [run, "--max-new-tokens=3", "--num-candidates", "3", "--", *TEXTS],
        "generate": [run, "--max-new-tokens=3", "On\tMonday\x07\r"],
        "score": [run, "--", f"{MARKUP} [MASK]", MARKUP, "\u5c0f\u732b"],
        "rank": [run, "--", f"{MARKUP} [MASK]", MARKUP, "\u5c0f\u732b"],
        "surprise": [run, "--", f"{MARKUP} on\tMonday\x07 \u5c0f\u732b."],
        "probe": [
            run,
            "--data",
            str(home / "probed.jsonl"),
            "--target",
            "y",
            "--folds",
            "2",
            "--seeds",
            "1",
            "--layer",
            "1",
            "--out",
            str(home / "probe.html"),
        ],
        "import": [run, "--out", str(home / "imported")],
        "export": [run, "--to", "hf", "--out", str(home / "exported")],
        "resize": [run, "--tokenizer", tok, "--out", str(home / "resized")],
        "quantize": [
            run,
            "--bits",
            "8",
            "--out",
            str(home / "small"),
            "--data",
            store,
            "--max-blanks",
            "2",
            "--max-loss-increase",
            "10",
        ],
        "info": [run],
        "plan": ["xl", "--gpu", "H100", "--nodes", "1", "--picture", str(home / "plan.png")],
        "demo": ["--out", str(home / "demo")],
        "train": [text, "--out", str(home / "trained")],
    }


@pytest.fixture(scope="module")
def results(commands):
    """What each verb returned, its paths not UTF-8; of those that take long it is made up."""
    found = {}
    load = module.load

    def keeping(package, path):
        function = load(package, path)
        if package != "blankfill.api":
            return function

        @functools.wraps(function)
        def call(*args, each=None, **options):  # the answers are kept, not handed over
            found[name] = function(*args, **options)
            return found[name]

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load", keeping)
        for name, words in commands.items():
            if name not in ("demo", "export", "train"):
                patch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
                assert main([*name.split(), *words]) == (2 if name == "fill" else 0), name
    fill = DemoFill(language="zh", text=LONG, truth="[/b]", answer=LONG, probability=0.5,
                    correct=False)  # fmt: skip
    found["demo"] = DemoResult(
        run=f"{MARKUP}/demo", seconds={"all": 1.0}, steps=1,
        evaluation=found["evaluate"].runs[0].blanks,
        fills=[fill], continuations=[LONG], pictures=["loss.png"],
    )  # fmt: skip
    found["train"] = TrainResult(
        run=f"{MARKUP}/train", finished=True, documents={"zh": 1}, skipped={}, vocab_size=1,
        preset="tiny", expected=made_up(Expectation), step=1, steps=1, seconds={"all": 1.0},
        evaluation=found["evaluate"].runs[0].blanks, report="report.html",
        next=["blankfill info"] * 3,
        fills=[TrainFill(language="zh", text=LONG, truth="[/b]", answer=LONG, probability=0.5)],
    )  # fmt: skip
    found["export"] = made_up(ExportResult, parity=made_up(Parity))
    assert found.keys() == VERBS.keys()
    return {name: renamed(result) for name, result in found.items()}


def made_up(cls, **known):
    """A result whose texts are markup and whose numbers are 1."""
    values = {"str": MARKUP, "int": 1, "float": 1.0, "bool": False, "list[str]": [LONG, MARKUP]}
    rest = {f.name: values[f.type] for f in dataclasses.fields(cls) if f.name not in known}
    return cls(**rest, **known)


def renamed(value):
    """A result whose folder has a name that is not UTF-8."""
    if dataclasses.is_dataclass(value):
        fields = {f.name: renamed(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    if isinstance(value, str):
        return value.replace(MARKUP, NOT_UTF8)
    if isinstance(value, dict):
        return {renamed(key): renamed(item) for key, item in value.items()}
    return type(value)(map(renamed, value)) if isinstance(value, list | tuple) else value


@pytest.fixture
def answer(commands, results, monkeypatch):
    """A function that prints a verb's answer once more, without its work."""
    load = module.load

    def stub(package, path):
        function = load(package, path)
        if package != "blankfill.api":
            return function
        verb = next(name for name, where in VERBS.items() if where.function == path)
        return functools.wraps(function)(lambda *args, **options: results[verb])

    monkeypatch.setattr(module, "load", stub)

    def run(verb, *more):
        # Options stand before the verb here, for `--` may end them after it.
        return main([*more, *verb.split(), *commands[verb]])

    run.codes = {verb: getattr(result, "exit_code", 0) for verb, result in results.items()}
    return run


def stdout_of(encoding, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    return stream.buffer


@pytest.mark.parametrize("encoding", ["ascii", "gbk", "latin-1", "utf-16", "utf-8"])
@pytest.mark.parametrize("verb", VERBS)
def test_an_answer_is_printed_in_any_encoding(verb, encoding, answer, monkeypatch):
    buffer = stdout_of(encoding, monkeypatch)
    assert answer(verb) == answer.codes[verb]
    text = buffer.getvalue().decode(encoding)
    shown = MARKUP + "\\udcd6\\udcd0"
    assert MARKUP not in text.replace(shown, "")
    no_path = {"tokenizer encode", "tokenizer decode", "data show", "explain", "fill", "generate",
               "surprise"}  # fmt: skip
    assert (shown in text) == (verb not in no_path)


@pytest.mark.parametrize("encoding", ["ascii", "gbk", "utf-8"])
@pytest.mark.parametrize("verb", VERBS)
def test_json_is_json_in_any_encoding(verb, encoding, answer, results, monkeypatch):
    buffer = stdout_of(encoding, monkeypatch)
    assert answer(verb, "--json") == answer.codes[verb]
    assert json.loads(buffer.getvalue().decode(encoding)) == plain(results[verb])


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_closed_stream_stops_nothing(verb, name, answer, monkeypatch, capsys):
    monkeypatch.setattr(sys, name, None)
    assert answer(verb) == answer.codes[verb]
    getattr(sys, name).close()


@pytest.mark.parametrize("verb", VERBS)
def test_a_reader_that_has_gone_is_no_error(verb, answer, monkeypatch, capsys):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert answer(verb) == 0
        monkeypatch.undo()
    assert capsys.readouterr().err.count("Traceback") == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("verb", VERBS)
def test_an_answer_that_cannot_be_written_is_one_sentence(verb, answer, monkeypatch, capsys):
    with open("/dev/full", "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert answer(verb) == 2
        monkeypatch.undo()
    assert "blankfill: stdout: No space left on device\n" in capsys.readouterr().err


class Terminal(io.StringIO):
    """A terminal that keeps what is written to it."""

    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.mark.parametrize("columns", ["1", "7", "80", "500", "0", "-1", "abc"])
@pytest.mark.parametrize("verb", VERBS)
def test_on_a_terminal_nothing_is_cut_and_nothing_acts(verb, columns, answer, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("NO_COLOR", "1")
    assert answer(verb) == answer.codes[verb]
    text = sys.stdout.getvalue()
    assert "\u2026" not in text
    assert not {"\a", "\r", "\x0b"} & set(text)
    if verb == "demo":
        assert text.count("\u6708") == LONG.count("\u6708") * 3  # in two cells and a line


@pytest.mark.parametrize("columns", ["1", "500"])
@pytest.mark.parametrize("verb", VERBS)
def test_help_fits_any_terminal(verb, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    assert main([*verb.split(), "--help"]) == 0
    assert "Example:" in capsys.readouterr().out
    assert os.environ["COLUMNS"] == columns


def test_texts_go_into_a_pipe_byte_for_byte(answer, results, monkeypatch):
    for verb in ("fill", "generate"):
        buffer = stdout_of("utf-8", monkeypatch)
        answer(verb)
        items = [item for item in results[verb].items if item.error is None]
        assert all(item.text.encode() + b"\n" in buffer.getvalue() for item in items)
        assert b"On\tMonday" in buffer.getvalue()
        assert b"\a" in buffer.getvalue()
        assert b"\r" in buffer.getvalue()


def test_a_text_without_a_blank_is_answered_beside_the_others(results):
    items = results["fill"].items
    assert [item.error is None for item in items] == [True, False, True]
    assert items[1].error.startswith("text 2: the text has no blank")
    assert [item.prompt for item in items] == TEXTS


@pytest.mark.parametrize(
    ("data", "errors"),
    [
        (b"a [MASK]\r\nnone\n[mask]\n\nb [MASK]", [None, "line 2", "line 3", None]),
        (b"\xef\xbb\xbfa [MASK]\n\xd6\xd0[MASK]\n", [None, "line 2: it is not UTF-8 at byte 0"]),
        (b"a [MASK]\n" + b"x " * 3000 + b"[MASK]\n", [None, "line 2: the text has"]),
    ],
)
def test_each_line_of_stdin_has_its_answer(data, errors, commands, results, monkeypatch, capsys):
    run = commands["fill"][0]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert main(["fill", run, "-", "--max-new-tokens", "2", "--json"]) == 2
    found = [item["error"] for item in json.loads(capsys.readouterr().out)["items"]]
    assert len(found) == len(errors)
    for error, wanted in zip(found, errors, strict=True):
        assert error is None if wanted is None else error.startswith(wanted)


@pytest.mark.parametrize("verb", ["fill", "generate"])
def test_where_no_text_can_be_used_the_first_says_why(verb, commands, results, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\n\n\xfe\n")))
    assert main([verb, commands["fill"][0], "-"]) == 2
    assert "line 1: it is not UTF-8 at byte 0" in capsys.readouterr().err


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "| head -1"])
def test_a_shell_may_close_what_it_likes(closed, tmp_path):
    code = "from blankfill.cli.main import entry_point; entry_point()"
    command = f"set -o pipefail; '{sys.executable}' -c '{code}' explain 'a b c' --json {closed}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=False, cwd=tmp_path)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
