"""Numbers go to Weights & Biases only where a project is named; a resumed run keeps its page."""

import importlib.util
import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from blankfill.cli.main import main
from blankfill.config.presets import preset
from blankfill.config.run import to_dict
from blankfill.errors import ConfigError
from blankfill.metrics import MetricsWriter, log_in_to_wandb, read_metrics
from blankfill.metrics.wandb import require_wandb


class Page:
    """What `wandb.init` returns, as far as it is used."""

    def __init__(self):
        self.lines, self.metrics, self.finished = [], [], False

    def define_metric(self, name, *, step_metric):
        self.metrics.append((name, step_metric))

    def log(self, values):
        self.lines.append(values)

    def finish(self):
        self.finished = True


@pytest.fixture
def pages(monkeypatch):
    made = []

    def init(**settings):
        made.append((settings, Page()))
        return made[-1][1]

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    return made


def test_a_resumed_run_goes_on_on_its_page(tmp_path, pages):
    cfg = preset("tiny").changed({"train.steps": 4})
    with MetricsWriter(tmp_path, wandb="mine", config=cfg) as writer:
        writer.write(1, {"loss_nats": 2.5})
        writer.write(2, {"loss_nats": 2.0})
    with MetricsWriter(tmp_path, start_step=1, wandb="mine") as writer:
        writer.write(2, {"loss_nats": 2.0})
    (first, page), (second, _) = pages
    assert first["project"] == "mine"
    assert first["config"] == to_dict(cfg)
    assert first["config"]["train"]["steps"] == 4
    assert first["id"] == second["id"]
    assert second["resume"] == "allow"
    assert page.metrics == [("*", "step")]
    assert page.lines == [{"step": 1, "loss_nats": 2.5}, {"step": 2, "loss_nats": 2.0}]
    assert page.finished
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2]


def test_without_a_project_the_package_is_not_touched(tmp_path, pages):
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, {"loss_nats": 2.5})
    assert pages == []
    assert not (tmp_path / "wandb-id").exists()


def test_a_missing_package_is_named_with_the_way_to_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"pip install 'blankfill\[wandb\]'"):
        require_wandb()


def stand_in(monkeypatch, *, login=lambda **_: True, init=lambda **_: Page()):
    """Put a package in place of wandb."""
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(login=login, init=init))


def refusal(words):
    def refuse(**_):
        raise RuntimeError(words)

    return refuse


@pytest.mark.parametrize("more", [[], ["--minutes", "1"], ["--resume"]])
def test_who_is_not_logged_in_is_told_before_anything_is_written(
    tmp_path, monkeypatch, capsys, more
):
    stand_in(monkeypatch, login=refusal("No API key configured.\nUse `wandb login`."))
    run = ["pretrain", "tiny", "--data", str(tmp_path / "store"), "--out", str(tmp_path / "run"),
           "--train.wandb", "mine", *more]  # fmt: skip
    assert main(run) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "cannot be logged in to (No API key configured. Use `wandb login`)" in told
    assert "WANDB_MODE=offline" in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a/b", "a\\b", "a#", "what?", "100%", "a:b", "x" * 129])
def test_a_name_that_no_project_can_have_is_refused(monkeypatch, name):
    stand_in(monkeypatch, login=refusal("was asked"))
    with pytest.raises(ConfigError, match="the name of a project"):
        log_in_to_wandb(name)


def test_offline_is_said(monkeypatch, caplog):
    stand_in(monkeypatch, login=lambda **_: False)
    with caplog.at_level(logging.INFO):
        log_in_to_wandb("mine")
    assert "nothing is sent" in caplog.text


class Failing(Page):
    """A page that fails at one of its calls."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def define_metric(self, name, *, step_metric):
        self.check("define_metric")

    def log(self, values):
        self.check("log")
        super().log(values)

    def finish(self):
        self.check("finish")

    def check(self, name):
        if self.at == name:
            raise BrokenPipeError("the service is gone")


@pytest.mark.parametrize("at", ["init", "define_metric", "log", "finish"])
def test_a_page_that_fails_is_given_up_and_the_run_goes_on(tmp_path, monkeypatch, caplog, at):
    page = Failing(at)
    init = refusal("permission denied: the service is gone") if at == "init" else lambda **_: page
    stand_in(monkeypatch, init=init)
    with MetricsWriter(tmp_path, wandb="mine") as writer:
        for step in (1, 2, 3):
            writer.write(step, {"loss_nats": 2.5})
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "the service is gone" in warnings[0].getMessage()


SCRIPT = """
import sys
from pathlib import Path
from blankfill.errors import ConfigError
from blankfill.metrics import MetricsWriter, log_in_to_wandb
try:
    log_in_to_wandb("mine")
except ConfigError as error:
    sys.exit(str(error))
with MetricsWriter(Path(sys.argv[1]), wandb="mine") as writer:
    writer.write(1, {"loss_nats": 2.5})
"""


@pytest.mark.parametrize(
    ("environment", "words"),
    [({}, "cannot be logged in to"), ({"WANDB_API_KEY": "short"}, "cannot be logged in to"),
     ({"WANDB_MODE": "offline"}, ""), ({"WANDB_MODE": "disabled"}, "")],
)  # fmt: skip
def test_the_package_itself_refuses_and_keeps_numbers_offline(tmp_path, environment, words):
    if importlib.util.find_spec("wandb") is None:
        pytest.skip("the extra `wandb` is not installed")
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=False,
        env={**kept, "HOME": str(tmp_path / "home"), **environment}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (done.returncode == 0) == (not words), done.stderr
    assert words in done.stderr
    if not words:
        assert [row["step"] for row in read_metrics(tmp_path)] == [1]
        offline = list(tmp_path.glob("wandb/offline-run-*"))
        assert bool(offline) == (environment["WANDB_MODE"] == "offline")
