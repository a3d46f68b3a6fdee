"""The precision that a run's products have."""

import dataclasses
import json
import logging

import pytest
import torch

from blankfill.engine import device
from blankfill.errors import ConfigError
from blankfill.prepare import precision
from blankfill.prepare.precision import settle_precision
from train.conftest import CFG

WIDE, NARROW = torch.float32, torch.bfloat16


@pytest.fixture(params=[True, False], ids=["bfloat16 here", "none here"])
def native(request, monkeypatch):
    """Stand in for the processor: whether it multiplies bfloat16."""
    there = {"avx512_bf16": request.param, "amx_tile": False}
    for name, value in there.items():
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda value=value: value)
    return request.param


@pytest.fixture
def multiplying(monkeypatch):
    monkeypatch.setattr(device, "lowest_precision", lambda _: NARROW)


def named(name, **train):
    return dataclasses.replace(CFG, train=dataclasses.replace(CFG.train, precision=name, **train))


def broken(*_, **__):
    raise AssertionError("nothing is to be measured")


def taking(monkeypatch, first, wide, narrow):
    """Stand in for the clock: seconds of the first look, and of each precision."""
    given = [[first], [wide, narrow]]
    monkeypatch.setattr(precision, "median_seconds", lambda *_, **__: given.pop(0))


@pytest.mark.parametrize(
    ("wide", "narrow", "chosen"),
    [(2.0, 1.0, NARROW), (1.0, 0.9, NARROW), (1.0, 0.91, WIDE), (1.0, 1.0, WIDE), (1.0, 2.0, WIDE)],
)
def test_bfloat16_is_taken_where_it_gains_a_tenth(
    multiplying, monkeypatch, model, rows, caplog, wide, narrow, chosen
):
    taking(monkeypatch, 100.0, wide, narrow)
    with caplog.at_level(logging.DEBUG):
        assert settle_precision(named("auto"), model, rows) == chosen
    name = str(chosen).removeprefix("torch.")
    assert f"float32 {1000 * wide:.1f} ms" in caplog.text
    assert caplog.text.endswith(f"taking {name}\n")


def test_a_run_of_less_than_a_minute_is_not_measured(multiplying, monkeypatch, model, rows):
    # Twelve steps of four rows, of which two take the given time.
    taking(monkeypatch, 59.9 / 24, 1.0, 2.0)
    assert settle_precision(named("auto"), model, rows) == NARROW
    taking(monkeypatch, 60.1 / 24, 1.0, 2.0)
    assert settle_precision(named("auto"), model, rows) == WIDE


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_measuring_leaves_the_model_as_it_was(multiplying, monkeypatch, model, rows, seconds):
    # Both precisions really run, emulated where they must be.
    monkeypatch.setattr(precision, "LEAST_SECONDS", seconds)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert settle_precision(named("auto"), model, rows) in (WIDE, NARROW)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_is_named_is_not_measured(native, monkeypatch, model):
    monkeypatch.setattr(precision, "fastest_precision", broken)
    assert settle_precision(named("float32"), model, broken) == WIDE
    assert settle_precision(named("float16"), model, broken) == torch.float16
    if native:
        assert settle_precision(named("bfloat16"), model, broken) == NARROW
    else:
        with pytest.raises(ConfigError, match="emulated on this CPU"):
            settle_precision(named("bfloat16"), model, broken)


def test_a_resumed_run_keeps_what_it_had(native, monkeypatch, model, caplog):
    monkeypatch.setattr(precision, "fastest_precision", broken)
    assert settle_precision(named("auto"), model, broken, before="float32") == WIDE
    assert caplog.text == ""
    kept = settle_precision(named("auto"), model, broken, before="bfloat16")
    assert kept == (NARROW if native else WIDE)
    assert ("which this processor would emulate" in caplog.text) != native


def test_a_processor_without_bfloat16_measures_nothing(monkeypatch, model):
    monkeypatch.setattr(device, "lowest_precision", lambda _: WIDE)
    monkeypatch.setattr(precision, "fastest_precision", broken)
    assert settle_precision(named("auto"), model, broken) == WIDE


def test_a_run_says_its_precision_and_a_resumed_one_keeps_it(
    tmp_path, tokenizer_folder, monkeypatch, multiplying
):
    from blankfill.api import data_build
    from blankfill.prepare.build import build_trainer

    store = tmp_path / "store"
    data_build([tokenizer_folder.parent / "corpus.txt"], tokenizer=tokenizer_folder, out=store)
    cfg = named("auto", steps=2)
    for before, now in ((WIDE, NARROW), (NARROW, WIDE)):
        run = tmp_path / f"run-{before}"
        monkeypatch.setattr(precision, "fastest_precision", lambda *_, x=before: x)
        trainer = build_trainer(cfg, data=[store], run=run)
        assert trainer.engine.dtype == before
        assert trainer.fit()
        monkeypatch.setattr(precision, "fastest_precision", lambda *_, x=now: x)
        longer = cfg.changed({"train.steps": 3})
        trainer = build_trainer(
            longer, data=[store], run=run, resume=True, allow_change=["train.steps"]
        )
        assert trainer.engine.dtype == before
        assert trainer.fit()
        said = json.loads((run / "run.json").read_text(encoding="utf-8"))
        assert said["precision"] == str(before).removeprefix("torch.")
