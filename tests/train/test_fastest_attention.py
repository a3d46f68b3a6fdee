"""The way of attention that a run takes."""

import dataclasses
import logging

import numpy as np
import pytest
import torch

from blankfill.data.rows import RowSource
from blankfill.engine.device import attention_ways
from blankfill.errors import ConfigError, TrainingError
from blankfill.model.masks import DenseMask
from blankfill.prepare import attention as fastest
from blankfill.prepare.attention import fastest_attention, settle_attention
from train.conftest import CFG

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def batch(random_store, ids):
    stores = [random_store([5, 17, 30, 44, 120, 9, 60, 33])]
    return RowSource(stores, CFG.objective, ids, row_length=64, seed=1).rows(0, 3)


@pytest.fixture
def stand_in(monkeypatch):
    """Stand in for the device: what each way takes, in seconds, and its error if it is not right,
    or what it ends in. Nothing may be measured where nothing is given."""

    def give(**ways):
        class Layer:
            def __init__(self, *_):
                assert ways

            def measure(self, kind):
                if isinstance(ways[kind], Exception):
                    raise ways[kind]
                return ways[kind] if isinstance(ways[kind], tuple) else (ways[kind], 0.004)

        monkeypatch.setattr(fastest, "_Layer", Layer)

    return give


def named(kind):
    return CFG.changed({"train.attention": kind})


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({"varlen": 1.0, "flex": 2.0, "blocks": 30.0}, "varlen"),
        ({"varlen": 3.0, "flex": 2.0, "blocks": 30.0}, "flex"),
        ({"varlen": RuntimeError("no kernel\nfor this"), "flex": 2.0, "blocks": 1.5}, "blocks"),
    ],
)
def test_the_fastest_that_works_is_taken(stand_in, caplog, seconds, chosen):
    stand_in(**seconds)
    with caplog.at_level(logging.DEBUG):
        made = settle_attention(CFG, CUDA, torch.bfloat16, lambda: None)
    assert made == chosen
    assert f"taking {chosen}" in caplog.text
    assert ("attention varlen does not work here (no kernel)" in caplog.text) == (
        not isinstance(seconds["varlen"], float)
    )


@pytest.mark.parametrize("error", [0.46, float("inf"), float("nan")])
def test_a_way_that_is_wrong_is_not_taken(stand_in, caplog, error):
    stand_in(varlen=2.0, flex=(1.0, error), blocks=30.0)
    assert settle_attention(CFG, CUDA, torch.bfloat16, lambda: None) == "varlen"
    off = "46 % off" if error == 0.46 else "not finite"
    assert f"attention flex is not taken: its result or its gradient is {off} here" in caplog.text


@pytest.mark.parametrize("found", [(1.0, 0.46), RuntimeError("no kernel\nfor this")])
def test_a_way_that_is_wrong_is_refused_where_it_is_named_or_was_taken_before(stand_in, found):
    stand_in(varlen=found, flex=found)
    says = r"does not work here \(no kernel\); take --train\.attention blocks.*--allow-change"
    if isinstance(found, tuple):
        says = r"46 % off here.*; take --train\.attention blocks.*--allow-change train\.attention"
    for cfg, before in ((named("varlen"), None), (CFG, "varlen"), (CFG, "flex")):
        with pytest.raises(ConfigError, match=says):
            settle_attention(cfg, CUDA, torch.bfloat16, lambda: None, before=before)


def test_none_that_works_is_one_sentence(stand_in):
    for blocks in (ValueError("b"), (1.0, 0.5)):
        stand_in(flex=ImportError("a"), blocks=blocks)
        with pytest.raises(TrainingError, match=r"flex, blocks.*--train\.attention dense"):
            settle_attention(CFG, CUDA, torch.float32, lambda: None)


def test_nothing_is_measured_where_it_is_settled(stand_in):
    stand_in()
    assert settle_attention(CFG, CPU, torch.float32, None) == "blocks"
    assert settle_attention(named("dense"), CUDA, torch.float32, None) == "dense"
    assert settle_attention(CFG, CUDA, torch.float32, None, before="blocks") == "blocks"
    with pytest.raises(ConfigError, match="bfloat16 or float16"):
        settle_attention(named("varlen"), CUDA, torch.float32, None)
    dropping = dataclasses.replace(CFG, model=dataclasses.replace(CFG.model, dropout=0.1))
    assert settle_attention(dropping, CUDA, torch.bfloat16, None) == "blocks"


def test_a_resumed_run_keeps_its_way(stand_in):
    stand_in(flex=3.0, blocks=2.0)
    assert settle_attention(CFG, CUDA, torch.float32, lambda: None, before="flex") == "flex"
    flex = named("flex")
    assert settle_attention(flex, CUDA, torch.float32, lambda: None, before="blocks") == "flex"
    # What this device or type cannot do is measured anew.
    assert settle_attention(CFG, CUDA, torch.float32, lambda: None, before="varlen") == "blocks"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ways_are_measured_on_the_rows_they_will_meet(batch, dtype):
    layer = fastest._Layer(batch, CFG, CPU, dtype)
    for kind in ("blocks", "dense"):
        seconds, error = layer.measure(kind)
        assert 0 < seconds < 10
        # Of float32 sums; of five roundings to bfloat16's 8 bits.
        assert error < (1e-5 if dtype == torch.float32 else 0.01)
    kinds = ("blocks", "dense", "varlen")  # the last has no kernel on a CPU
    assert fastest_attention(kinds, layer) in ("blocks", "dense")
    assert np.all(
        np.diff([len(attention_ways("cuda", t)) for t in (torch.float32, torch.half)]) == 1
    )


def first_rows_tiles(blocks, shape, kind, _device):
    """The mask of rows that are all given the first one's examples."""
    assert kind == "dense"
    made = DenseMask.of(blocks, shape).visible
    return DenseMask(made[:1].expand_as(made))


def the_first_masks(blocks, shape, _kind, _device, *, kept=[]):  # noqa: B006  # that is the fault
    """What a compiled graph does that builds in the mask that it was made with."""
    kept.append(DenseMask.of(blocks, shape))
    return kept[0]


@pytest.mark.parametrize("fault", [first_rows_tiles, the_first_masks])
def test_a_mask_that_is_wrong_is_found(batch, monkeypatch, fault):
    assert len(batch.blocks) > 3
    monkeypatch.setattr(fastest, "build_mask", fault)
    _, error = fastest._Layer(batch, CFG, CPU, torch.float32).measure("dense")
    assert error > 0.1


@pytest.mark.parametrize("which", [0, 1])
def test_a_result_or_gradient_that_is_not_finite_is_found(batch, monkeypatch, which):
    class Spoiled(torch.autograd.Function):
        @staticmethod
        def forward(_ctx, x):
            return x * float("nan") if which == 0 else x.clone()

        @staticmethod
        def backward(_ctx, grad):
            return grad * float("nan") if which else grad

    plain = fastest.attend
    monkeypatch.setattr(fastest, "attend", lambda *args: Spoiled.apply(plain(*args)))
    _, error = fastest._Layer(batch, CFG, CPU, torch.float32).measure("blocks")
    assert error == float("inf")
