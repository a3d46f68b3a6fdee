"""Numbers go to Weights & Biases only where a project is named; a resumed run keeps its page."""

import sys
from types import SimpleNamespace

import pytest

from blankfill.errors import ConfigError
from blankfill.metrics import MetricsWriter, read_metrics
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
    (tmp_path / "run.json").write_text('{"config": {"train": {"steps": 4}}}', encoding="utf-8")
    with MetricsWriter(tmp_path, wandb="mine") as writer:
        writer.write(1, {"loss_nats": 2.5})
        writer.write(2, {"loss_nats": 2.0})
    with MetricsWriter(tmp_path, start_step=1, wandb="mine") as writer:
        writer.write(2, {"loss_nats": 2.0})
    (first, page), (second, _) = pages
    assert first["project"] == "mine"
    assert first["config"] == {"train": {"steps": 4}}
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
