"""Whether a run is compiled, and that a compiled run is the same run."""

import dataclasses
import functools
import logging
import re

import pytest
import torch

from blankfill.api.data import data_build
from blankfill.config.run import RunConfig, from_dict, to_dict
from blankfill.data.rows import RowSource
from blankfill.engine.compiled import _LIMIT
from blankfill.errors import ConfigError
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights
from blankfill.model.masks import DenseMask
from blankfill.prepare import build_trainer, compiling
from blankfill.prepare.compiling import BreakEven, measure_break_even, settle_compile
from blankfill.runs import newest_checkpoint
from conftest import small_corpus
from train.conftest import CFG, same, stop_at

pytestmark = pytest.mark.filterwarnings("ignore")  # the compiler imports modules that warn


@pytest.fixture
def batch(random_store, ids):
    stores = [random_store([5, 17, 30, 44, 120, 9, 60, 33])]
    return RowSource(stores, CFG.objective, ids, row_length=64, seed=1).rows(0, 3)


@pytest.fixture
def model():
    made = GLM(CFG.model)
    init_weights(made, 0)
    return made


@pytest.fixture
def traced(monkeypatch):
    """`torch.compile` without its C++: the same graphs, computed as they are written."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compile_graph = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", compile_graph)
    yield torch._dynamo.utils.counters["stats"]
    torch._dynamo.reset()


def named(choice, **train):
    return dataclasses.replace(
        CFG, train=dataclasses.replace(CFG.train, compile=choice, **train)
    )  # fmt: skip


def broken(*_):
    raise RuntimeError("no C++ compiler\nanywhere")


@pytest.mark.parametrize(
    ("plain", "compiled", "steps", "pays", "said"),
    [
        (1 / 16, 1 / 32, 33, True, "earned back in 32 steps"),
        (1 / 16, 1 / 32, 32, False, "62.5 ms, compiled 31.2 ms; 4 s of compiling"),
        (1 / 16, 31 / 512, 10**9, True, "earned back in 512 steps"),
        (1 / 16, 63 / 1024, 10**9, False, "61.5 ms, no gain to be sure of"),
        (1 / 16, 1 / 16, 10**9, False, "no gain to be sure of"),
        (1 / 32, 1 / 16, 10**9, False, "no gain to be sure of"),
    ],
)
def test_it_pays_where_the_steps_gain_more_than_compiling_takes(plain, compiled, steps, pays, said):
    found = BreakEven(plain_seconds=plain, compiled_seconds=compiled, compile_seconds=4, calls=4)
    assert found.pays(steps) == pays
    assert said in str(found)


def test_a_short_run_is_not_tried(model, batch, monkeypatch, caplog):
    monkeypatch.setattr(compiling, "compile_block", None)
    with caplog.at_level(logging.DEBUG):
        assert not settle_compile(CFG, model, torch.float32, "blocks", lambda: batch)
    assert re.search(r"not compiled: the run's \d+ s in its blocks are too few", caplog.text)


def test_what_is_settled_is_not_measured(model, monkeypatch):
    monkeypatch.setattr(compiling, "_Trial", None)
    off, auto = named("off"), named("auto")
    assert not settle_compile(off, model, torch.float32, "blocks", broken)
    assert not settle_compile(off, model, torch.float32, "blocks", broken, before=True)
    assert not settle_compile(auto, model, torch.float32, "blocks", broken, before=False)


def test_a_compiler_that_does_not_work(model, batch, monkeypatch, caplog):
    monkeypatch.setattr(compiling, "LEAST_SECONDS", 0.0)
    # As torch's own, it fails when the block is called.
    monkeypatch.setattr(
        compiling, "compile_block", lambda block: block.register_forward_pre_hook(broken)
    )
    rest = (model, torch.float32, "blocks", lambda: batch)
    with caplog.at_level(logging.DEBUG):
        assert not settle_compile(named("auto"), *rest)
    assert "not compiled: the compiler does not work here (no C++ compiler)" in caplog.text
    with pytest.raises(ConfigError, match=r"compile=on, .*no C\+\+ compiler\).*compile off$"):
        settle_compile(named("on"), *rest)
    with pytest.raises(ConfigError, match=r"so far, .*--allow-change train\.compile$"):
        settle_compile(named("auto"), *rest, before=True)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda found: found * 1.2, r"is off by \d+\.\d%"),
        (
            lambda found: found.detach() + 0 * found,
            r"gradient of attention\.[qkv]\.weight is off by 100\.0%",
        ),
        (lambda found: found * float("nan"), r"result is off by nan%"),
    ],
)
def test_a_compiler_that_computes_something_else(model, batch, monkeypatch, caplog, spoil, what):
    def compile_wrongly(block):
        block.attention.register_forward_hook(lambda _module, _inputs, found: spoil(found))

    monkeypatch.setattr(compiling, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(compiling, "compile_block", compile_wrongly)
    # As its first values are, attention adds little to what a block gives.
    for block in model.blocks.values():
        for layer in (block.attention.v, block.attention.out):
            layer.weight.data *= 30
    rest = (model, torch.float32, "blocks", lambda: batch)
    with caplog.at_level(logging.WARNING):
        assert not settle_compile(named("auto"), *rest)
    assert re.search(f"not compiled: the compiler does not work here .*{what}", caplog.text)
    with pytest.raises(ConfigError, match=what):
        settle_compile(named("on"), *rest)


def test_one_block_is_measured_and_leaves_no_trace(model, batch, traced, monkeypatch):
    monkeypatch.setattr(compiling, "LEAST_SECONDS", 0.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = measure_break_even(
        CFG, model, torch.float32, "blocks", lambda: batch, steps=CFG.train.steps
    )
    assert found.calls == CFG.model.num_layers * 2  # two micro-batches
    assert found.plain_seconds > 0
    assert found.compile_seconds > found.compiled_seconds > 0
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.skipif(not _LIMIT, reason="torch before 2.13 has one limit for a process")
def test_the_ninth_model_of_a_process_is_compiled_too(batch, traced):
    for number in range(1, 10):
        cfg = dataclasses.replace(CFG.model, ffn_size=32 * number)
        model = GLM(cfg)
        init_weights(model, 0)
        named_on = dataclasses.replace(named("on"), model=cfg)
        assert settle_compile(named_on, model, torch.float32, "blocks", lambda: batch)


def test_the_choice_is_made_of_what_was_measured(model, monkeypatch, caplog):
    found = BreakEven(plain_seconds=3, compiled_seconds=2, compile_seconds=40, calls=4)
    monkeypatch.setattr(compiling, "measure_break_even", lambda *_, **__: found)
    for steps, compiled in ((11, True), (10, False)):
        with caplog.at_level(logging.DEBUG):
            cfg = named("auto", steps=steps)
            assert settle_compile(cfg, model, torch.float32, "blocks", broken) == compiled
        assert caplog.messages[-1].startswith("compiled: " if compiled else "not compiled: ")


@pytest.mark.parametrize("block", ["pre_ln", "deepnorm", "sandwich", "post_ln"])
def test_two_graphs_serve_every_batch_and_scoring_none(block, make_trainer, tmp_path, traced):
    # The rotation in C, which no graph takes, rounds bfloat16 less often; float32 is the same bits.
    cfg = named("on", precision="float32")
    cfg = dataclasses.replace(cfg, model=dataclasses.replace(cfg.model, block=block, num_layers=3))
    plain = make_trainer(tmp_path / "plain", cfg)
    compiled = make_trainer(tmp_path / "compiled", cfg, compiled=True)
    for trainer in (plain, compiled):
        trainer.fit()
    # Written as they are, the graphs' operations are the model's own.
    assert same(plain, compiled)
    assert traced["unique_graphs"] == 2
    tokens = torch.arange(7)[None]
    visible = torch.ones(1, 7, 7, dtype=torch.bool)
    with compiled.engine.evaluation() as model:
        assert not model.training
        model(tokens, torch.zeros(1, 2, 7, dtype=torch.long), DenseMask(visible))
    assert model.training
    assert traced["unique_graphs"] == 2


def test_a_run_says_what_it_took_and_keeps_it(tmp_path, tokenizer_folder, traced, monkeypatch):
    (tmp_path / "a.txt").write_text("\n\n".join(small_corpus(60, 0)), encoding="utf-8")
    data_build([tmp_path / "a.txt"], tokenizer=tokenizer_folder, out=tmp_path / "store")

    def build(resume=False):
        return build_trainer(CFG, data=[tmp_path / "store"], run=tmp_path / "run", resume=resume)

    found = BreakEven(plain_seconds=2, compiled_seconds=1, compile_seconds=1, calls=4)
    monkeypatch.setattr(compiling, "measure_break_even", lambda *_, **__: found)
    stop_at(build(), 5)
    assert traced["unique_graphs"] == 2
    monkeypatch.setattr(compiling, "measure_break_even", None)
    torch._dynamo.reset()
    resumed = build(resume=True)
    assert resumed.index == 5
    assert resumed.fit()
    assert traced["unique_graphs"] == 4  # those that were tried are those that train


def test_what_was_written_before_there_was_auto_is_read():
    for before, now in ((False, "off"), (True, "on")):
        old = to_dict(CFG)
        old["train"]["compile"] = before
        assert from_dict(RunConfig, old).train.compile == now


@pytest.mark.slow
def test_a_compiled_run_goes_on_bit_for_bit_from_any_first_batch(
    make_trainer, tmp_path, monkeypatch
):
    cfg = dataclasses.replace(
        named("on"), model=dataclasses.replace(CFG.model, dropout=0.1, num_layers=3)
    )  # fmt: skip

    def process(run):
        """Begin as a new process on a new machine does, with nothing compiled."""
        torch._dynamo.reset()
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / f"cache-{run}"))

    process("whole")
    whole = make_trainer(tmp_path / "whole", cfg, compiled=True)
    assert whole.fit()
    process("first")
    stop_at(make_trainer(tmp_path / "parts", cfg, compiled=True), 5)
    process("second")
    second = make_trainer(tmp_path / "parts", cfg, compiled=True)
    second.restore(newest_checkpoint(tmp_path / "parts"))
    assert second.index == 5
    assert second.fit()
    assert same(second, whole)
