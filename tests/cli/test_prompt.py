"""A prompt on a terminal: the model is loaded once, mistakes are told, and it goes on."""

import builtins
import io
import json
import logging
import sys

import pytest

from blankfill.cli.main import main
from blankfill.config.model import ModelConfig
from blankfill.config.objective import ObjectiveConfig
from blankfill.config.run import RunConfig
from blankfill.config.train import TrainConfig
from blankfill.generate import LanguageModel
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights
from blankfill.runs import save_checkpoint, write_run
from blankfill.text.tokenizer import Tokenizer, copy_tokenizer
from conftest import run_record


@pytest.fixture(scope="module")
def run(tokenizer_folder, tmp_path_factory):
    """An untrained run."""
    folder = tmp_path_factory.mktemp("run")
    copy_tokenizer(tokenizer_folder, folder / "tokenizer")
    cfg = RunConfig(
        model=ModelConfig(vocab_size=512, hidden_size=16, num_layers=1, num_heads=1, ffn_size=16,
                          max_position=64),
        objective=ObjectiveConfig(), train=TrainConfig(row_length=64),
    )  # fmt: skip
    model = GLM(cfg.model)
    init_weights(model, 0)
    write_run(folder, run_record(cfg, Tokenizer.load(tokenizer_folder)))
    save_checkpoint(folder, 0, {"model": model.state_dict()}, keep=1)
    return str(folder)


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def typed(monkeypatch, tmp_path):
    """A function that types lines at a terminal, in front of which a command was started."""

    def start(words, lines):
        left = iter(lines)

        def typing(prompt=""):
            sys.stdout.write(prompt)
            line = next(left, EOFError())
            if isinstance(line, BaseException):
                raise line
            return line

        monkeypatch.setattr(builtins, "input", typing)
        monkeypatch.setattr(sys, "stdin", Terminal())
        monkeypatch.setattr(sys, "stdout", Terminal())
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        code = main(words)
        return code, sys.stdout.getvalue()

    return start


@pytest.fixture
def loads(monkeypatch):
    """How often a model was loaded."""
    count = []
    load = LanguageModel.load
    monkeypatch.setattr(LanguageModel, "load", lambda *a, **k: count.append(a) or load(*a, **k))
    return count


def test_texts_are_answered_and_mistakes_told_by_one_model(run, typed, loads, capsys):
    lines = ["the old [MASK] reads", "no blank", "", "  ", "x " * 200 + "[MASK]", "\udcd6 [MASK]",
             KeyboardInterrupt(), UnicodeDecodeError("utf-8", b"\xd6", 0, 1, "x"),
             "\u5c71[MASK]\u6c34"]  # fmt: skip
    code, shown = typed(["fill", run, "--max-new-tokens", "2"], lines)
    assert code == 0
    assert len(loads) == 1
    assert shown.count("fill> ") == len(lines) + 1
    assert shown.count("blank 1") == 2
    assert "the old" in shown
    said = capsys.readouterr().err
    for message in ("no blank", "this model reads 64", "not valid Unicode", "UTF-8 at byte 0"):
        assert message in said
    assert said.count("blankfill: ") == 4
    assert "Traceback" not in said


def test_a_beginning_is_continued(run, typed, loads):
    code, shown = typed(["generate", run, "--max-new-tokens=2"], ["the old fox", "the river"])
    assert (code, len(loads)) == (0, 1)
    assert shown.count("generate> ") == 3
    assert "the old fox" in shown


def test_answers_may_be_json(run, typed):
    code, shown = typed(["fill", run, "--json", "--max-new-tokens=2"], ["a [MASK]", "b [MASK]"])
    assert code == 0
    answers = [
        json.loads(line.removeprefix("fill> ")) for line in shown.splitlines() if "{" in line
    ]
    assert [answer["items"][0]["prompt"] for answer in answers] == ["a [MASK]", "b [MASK]"]


def test_the_same_text_is_another_draw(run, typed):
    words = ["fill", run, "--json", "--temperature", "5", "--max-new-tokens=4", "--seed", "3"]
    code, shown = typed(words, ["a [MASK]"] * 3)
    assert code == 0
    lines = [line.removeprefix("fill> ") for line in shown.splitlines() if "{" in line]
    assert len({json.loads(line)["items"][0]["text"] for line in lines}) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fill", "nowhere"], "nowhere"),
        (["fill", "RUN", "--temperature", "-1"], "temperature=-1"),
        (["fill", "RUN", "--checkpoint", "77"], "77"),
        (["generate", "RUN", "--weights", "ema"], "moving average"),
    ],
)
def test_what_cannot_be_used_is_refused_before_a_text_is_typed(words, message, run, typed, capsys):
    code, shown = typed([run if word == "RUN" else word for word in words], ["a [MASK]"])
    assert code == 2
    assert "> " not in shown
    assert message in capsys.readouterr().err


def test_without_a_terminal_a_text_is_needed(run, capsys):
    for verb in ("fill", "generate"):
        assert main([verb, run]) == 2
        assert f"{verb} lacks TEXT..." in capsys.readouterr().err


def test_lines_of_the_last_time_come_back(run, typed, tmp_path):
    readline = pytest.importorskip("readline")
    readline.clear_history()
    readline.add_history("the old [MASK]")
    typed(["fill", run], [])
    assert "[MASK]" in (tmp_path / "blankfill" / "history").read_text()
    assert (tmp_path / "blankfill" / "history").stat().st_mode & 0o077 == 0
    readline.clear_history()
    typed(["fill", run], [])
    assert readline.get_history_item(1) == "the old [MASK]"


@pytest.mark.parametrize(
    ("verb", "text"),
    [("fill", "no blank"), ("fill", "x " * 200 + "[MASK]"), ("generate", "x " * 200 + "[MASK]")],
)
def test_texts_are_checked_before_the_weights_are_read(verb, text, run, monkeypatch, capsys):
    def read(*_):
        raise AssertionError("the weights were read")

    monkeypatch.setattr("blankfill.generate.language_model.load_weights", read)
    assert main([verb, run, text]) == 2
    assert main([verb, run, text, text]) == 2
    said = capsys.readouterr().err
    assert "text 1: the text has" in said
    assert "text 2: the text has" in said


def test_a_single_text_has_no_bar(run, capsys, caplog):
    caplog.set_level(logging.INFO)
    assert main(["fill", run, "a [MASK]", "--max-new-tokens=2"]) == 0
    assert "fill:" not in capsys.readouterr().err
