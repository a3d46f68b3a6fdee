"""The way of attention that a run takes."""

import dataclasses
import logging

import numpy as np
import pytest
import torch

from blankfill.data.rows import RowSource
from blankfill.errors import ConfigError, TrainingError
from blankfill.model.masks import attention_ways
from blankfill.prepare import attention as quickest
from blankfill.prepare.attention import quickest_attention, settle_attention
from train.conftest import CFG

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def batch(random_store, ids):
    stores = [random_store([5, 17, 30, 44, 120, 9, 60, 33])]
    return RowSource(stores, CFG.objective, ids, row_length=64, seed=1).rows(0, 3)


def times(**seconds):
    """Stand in for the clock: seconds of each way, or the error that it ends in."""

    def time(kind, *_):
        if isinstance(seconds[kind], Exception):
            raise seconds[kind]
        return seconds[kind]

    return time


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({"varlen": 1.0, "flex": 2.0, "blocks": 30.0}, "varlen"),
        ({"varlen": 3.0, "flex": 2.0, "blocks": 30.0}, "flex"),
        ({"varlen": RuntimeError("no kernel\nfor this"), "flex": 2.0, "blocks": 1.5}, "blocks"),
    ],
)
def test_the_quickest_that_works_is_taken(monkeypatch, caplog, seconds, chosen):
    monkeypatch.setattr(quickest, "_seconds", times(**seconds))
    with caplog.at_level(logging.INFO):
        made = settle_attention(CFG, CUDA, torch.bfloat16, lambda: None)
    assert made == chosen
    assert f"taking {chosen}" in caplog.text
    assert ("attention varlen does not work here (no kernel)" in caplog.text) == (
        not isinstance(seconds["varlen"], float)
    )


def test_none_that_works_is_one_sentence(monkeypatch):
    monkeypatch.setattr(quickest, "_seconds", times(flex=ImportError("a"), blocks=ValueError("b")))
    with pytest.raises(TrainingError, match=r"flex, blocks.*--train\.attention dense"):
        settle_attention(CFG, CUDA, torch.float32, lambda: None)


def test_nothing_is_measured_where_it_is_settled(monkeypatch):
    monkeypatch.setattr(quickest, "_seconds", None)

    def named(kind):
        return dataclasses.replace(CFG, train=dataclasses.replace(CFG.train, attention=kind))

    assert settle_attention(CFG, CPU, torch.float32, None) == "blocks"
    assert settle_attention(named("dense"), CUDA, torch.float32, None) == "dense"
    assert settle_attention(named("flex"), CUDA, torch.float32, None, before="blocks") == "flex"
    with pytest.raises(ConfigError, match="bfloat16 or float16"):
        settle_attention(named("varlen"), CUDA, torch.float32, None)
    dropping = dataclasses.replace(CFG, model=dataclasses.replace(CFG.model, dropout=0.1))
    assert settle_attention(dropping, CUDA, torch.bfloat16, None) == "blocks"


def test_a_resumed_run_keeps_its_way(monkeypatch):
    monkeypatch.setattr(quickest, "_seconds", times(flex=1.0, blocks=2.0))
    assert settle_attention(CFG, CUDA, torch.float32, None, before="blocks") == "blocks"
    # What this device or type cannot do is measured anew.
    assert settle_attention(CFG, CUDA, torch.float32, lambda: None, before="varlen") == "flex"


def test_ways_are_timed_on_the_rows_they_will_meet(batch):
    seconds = {
        kind: quickest._seconds(kind, batch, CFG, CPU, torch.float32)
        for kind in ("blocks", "dense")
    }
    assert all(0 < each < 10 for each in seconds.values())
    kinds = ("blocks", "dense", "varlen")  # the last has no kernel on a CPU
    assert quickest_attention(kinds, batch, CFG, CPU, torch.float32) in ("blocks", "dense")
    assert np.all(
        np.diff([len(attention_ways("cuda", t)) for t in (torch.float32, torch.half)]) == 1
    )
