"""The device that a run computes on; what needs a GPU is marked, the rest stands in for one."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from blankfill.data.rows import RowSource
from blankfill.engine.device import choose_device, choose_precision, lowest_precision
from blankfill.engine.gradient import forward_backward
from blankfill.engine.transfer import read_together, to_tensors
from blankfill.errors import ConfigError
from blankfill.generate import fill_tokens
from blankfill.model.glm import GLM, device_of
from blankfill.model.init import init_weights
from blankfill.model.targets import Targets
from blankfill.prepare.compiling import settle_compile
from blankfill.runs import newest_checkpoint
from conftest import language_model
from train.conftest import CFG, MODEL


@pytest.fixture
def batch(random_store, ids):
    stores = [random_store([5, 17, 30, 44, 120, 9, 60, 33])]
    return RowSource(stores, CFG.objective, ids, row_length=64, seed=1).rows(0, 3)


@pytest.mark.parametrize(
    ("wanted", "there", "chosen"),
    [
        ("auto", False, "cpu"),
        ("auto", True, "cuda"),
        ("cpu", True, "cpu"),
        ("cpu", False, "cpu"),
        ("cuda", True, "cuda"),
    ],
)
def test_auto_takes_the_gpu_where_there_is_one(monkeypatch, wanted, there, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert choose_device(wanted).type == chosen


def test_a_gpu_that_is_not_there_is_refused_in_words(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no CUDA device here; take cpu or auto"):
        choose_device("cuda")


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_s_precision_is_the_gpu_s(monkeypatch, native):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert choose_precision("auto", "cuda") == (torch.bfloat16 if native else torch.float32)
    assert choose_precision("float16", "cuda") == torch.float16
    if native:
        assert choose_precision("bfloat16", "cuda") == torch.bfloat16
    else:
        with pytest.raises(ConfigError, match="emulated on this GPU"):
            choose_precision("bfloat16", "cuda")


@pytest.mark.parametrize("instructions", ["", "avx512_bf16", "amx_tile"])
def test_a_cpu_s_precision_is_the_cpu_s(monkeypatch, instructions):
    for name in ("avx512_bf16", "amx_tile"):
        there = name == instructions
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda there=there: there)
    native = bool(instructions)
    assert lowest_precision("cpu") == (torch.bfloat16 if native else torch.float32)
    assert choose_precision("auto") == (torch.bfloat16 if native else torch.float32)
    assert choose_precision("float32") == torch.float32
    assert choose_precision("float16") == torch.float16
    if native:
        assert choose_precision("bfloat16") == torch.bfloat16
    else:
        with pytest.raises(ConfigError, match="emulated on this CPU"):
            choose_precision("bfloat16")


@pytest.mark.parametrize("lowest", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_muon_multiplies_in_bfloat16_where_the_device_does(
    make_trainer, tmp_path, monkeypatch, lowest, precision
):
    seen = set()

    def orthogonalize(matrix, dtype):
        seen.add(dtype)
        return matrix

    monkeypatch.setattr("blankfill.optim.muon.orthogonalize", orthogonalize)
    monkeypatch.setattr("blankfill.engine.device.lowest_precision", lambda _: lowest)
    cfg = CFG.changed({"optimizer.kind": "muon", "train.precision": precision})
    trainer = make_trainer(tmp_path, cfg)
    with trainer.open_loader() as loader:
        trainer.step(loader)
    assert seen == {lowest}


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of several devices, as CUDA does."""

    MAY_MIX = ("_to_copy", "copy_", "block_attention")  # the table of the last is read on the CPU

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.ndim]
        if len({x.device for x in tensors}) > 1 and not any(x in str(func) for x in self.MAY_MIX):
            raise AssertionError(f"{func} mixes devices")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["blocks", "dense"])
@pytest.mark.parametrize("positions", ["rope_2d", "learned_2d"])
def test_a_step_computes_where_its_model_is(monkeypatch, batch, kind, positions):
    # `meta` stands in for a GPU: its tensors have shapes and no values.
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _device: False)  # unknown of `meta`
    with torch.device("meta"):
        model = GLM(dataclasses.replace(MODEL, positions=positions))
    assert device_of(model).type == "meta"
    there = to_tensors(batch, kind, "meta")
    with OneDevice():
        rest = {"targets": there.targets, "z_loss": 1e-4}
        loss, nll = model(there.tokens, there.positions, there.mask, **rest)
        loss.backward()
    assert {loss.device.type, nll.device.type} == {"meta"}
    assert {p.grad.device.type for p in model.parameters()} == {"meta"}
    with OneDevice(), pytest.raises(AssertionError, match="mixes devices"):
        model(to_tensors(batch, kind).tokens, there.positions, there.mask, **rest)


def test_a_batch_keeps_what_it_was_made_from(batch):
    made = to_tensors(batch)
    assert made.source is batch
    whole = Targets.of(torch.from_numpy(batch.targets), torch.from_numpy(batch.weights))
    assert torch.equal(made.targets.index, whole.index)
    assert torch.equal(made.targets.ids, whole.ids.long())
    assert torch.equal(made.targets.weights, whole.weights)
    assert torch.equal(made.tokens, torch.from_numpy(batch.tokens).long())


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:TensorFloat32")  # the compiler's advice
@pytest.mark.parametrize("attention", ["blocks", "flex", "dense"])
def test_a_gpu_takes_the_cpu_s_steps(make_trainer, tmp_path, attention):
    losses = {}
    for device in ("cpu", "cuda"):
        kind = attention if device == "cuda" else "blocks"
        cfg = CFG.changed({"train.attention": kind, "train.precision": "float32"})
        compiled = cfg.train.attention == "flex"
        trainer = make_trainer(tmp_path / device, cfg, device=device, compiled=compiled)
        with trainer.open_loader() as loader:
            losses[device] = [trainer.step(loader).loss_nats for _ in range(6)]
    # float32 sums in another order; Adam's first steps have the sign of tiny gradients in them.
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=2e-4)
    assert losses["cpu"][-1] < losses["cpu"][0]


@pytest.mark.gpu
@pytest.mark.parametrize("attention", ["blocks", "varlen"])
def test_a_gpu_is_not_waited_for_before_its_gradient_is_there(batch, attention):
    model = GLM(MODEL).cuda()
    init_weights(model, 3)
    there, weight = [to_tensors(batch, attention, "cuda")], float(batch.weights.sum())
    for mode in ("default", "error"):
        torch.cuda.set_sync_debug_mode(mode)
        try:
            losses, nlls = forward_backward(model, there, torch.bfloat16, weight, z_loss=1e-4)
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    of_norm, loss, nll = read_together([norm, *losses, *nlls])
    assert float(of_norm) == float(norm)
    assert float(loss) == float(losses[0])
    assert np.array_equal(nll, nlls[0].cpu().numpy())


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")  # the compiler's advice
@pytest.mark.parametrize("attention", ["blocks", "varlen", "flex"])
def test_a_compiled_block_on_a_gpu_is_the_block(batch, attention):
    cfg = CFG.changed({"train.compile": "on"})
    model = GLM(MODEL).cuda()
    init_weights(model, 3)
    assert settle_compile(cfg, model, torch.bfloat16, attention, lambda: batch)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")  # the compiler's advice
def test_a_gpu_takes_the_same_steps_compiled(make_trainer, tmp_path):
    losses = []
    for compiled in (False, True):
        cfg = CFG.changed({"train.attention": "varlen", "train.steps": 40})
        trainer = make_trainer(
            tmp_path / str(compiled), cfg, device="cuda", dtype=torch.bfloat16, compiled=compiled
        )
        with trainer.open_loader() as loader:
            losses.append([trainer.step(loader).loss_nats for _ in range(30)])
    assert losses[1] == pytest.approx(losses[0], rel=0.03)  # bfloat16 rounds in other places


@pytest.mark.gpu
@pytest.mark.parametrize("attention", ["blocks", "varlen"])
def test_a_gpu_trains_normalised_queries_in_bfloat16(make_trainer, tmp_path, attention):
    cfg = CFG.changed({"model.qk_norm": True, "train.attention": attention, "train.log_every": 1})
    trainer = make_trainer(tmp_path / "run", cfg, device="cuda", dtype=torch.bfloat16)
    with trainer.open_loader() as loader:
        losses = [trainer.step(loader).loss_nats for _ in range(6)]
    assert np.isfinite(losses).all()


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_gpu_is_not_waited_for_between_logging_steps(make_trainer, tmp_path, kind):
    cfg = CFG.changed({
        "train.log_every": 4, "optimizer.kind": kind, "optimizer.ema_decay": 0.9,
        "train.attention": "varlen",
    })  # fmt: skip
    trainer = make_trainer(tmp_path / "run", cfg, device="cuda", dtype=torch.bfloat16)
    with trainer.open_loader() as loader:
        for _ in range(4):  # makes the optimizer's state
            trainer.step(loader)
        torch.cuda.set_sync_debug_mode("error")
        try:
            unread = [trainer.step(loader).loss_nats for _ in range(3)]
        finally:
            torch.cuda.set_sync_debug_mode("default")
        read = trainer.step(loader).loss_nats
    assert np.isnan(unread).all()
    assert np.isfinite(read)


@pytest.mark.gpu
@pytest.mark.parametrize("attention", ["blocks", "varlen", "flex"])
def test_a_gpu_is_not_waited_for_by_what_makes_batches(batch, attention):
    busy = torch.zeros(4096, 4096, device="cuda")
    expected = to_tensors(batch, "blocks")
    to_tensors(batch, attention, "cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(50):
            busy = busy @ busy
        there = to_tensors(batch, attention, "cuda")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for name in ("tokens", "positions"):
        assert torch.equal(getattr(there, name).cpu(), getattr(expected, name))
    for name in ("index", "ids", "weights"):
        found, wanted = getattr(there.targets, name), getattr(expected.targets, name)
        assert torch.equal(found.cpu(), wanted)


@pytest.mark.gpu
def test_a_gpu_s_run_saves_and_resumes(make_trainer, tmp_path):
    cfg = CFG.changed(
        {"optimizer.ema_decay": 0.9, "optimizer.kind": "muon", "train.precision": "float32"}
    )
    first = make_trainer(tmp_path / "run", cfg, device="cuda")
    with first.open_loader() as loader:
        for _ in range(3):
            first.step(loader)
    first.save()
    first._saver.finish()
    second = make_trainer(tmp_path / "run", cfg, device="cuda")
    second.restore(newest_checkpoint(tmp_path / "run"))
    assert {value.device.type for value in second.engine.optimizer.tensors().values()} == {"cuda"}
    assert {value.device.type for value in second.engine.ema.values()} == {"cuda"}
    with first.open_loader() as one, second.open_loader() as other:
        losses = [(first.step(one).loss_nats, second.step(other).loss_nats) for _ in range(3)]
    for mine, theirs in losses:
        assert mine == pytest.approx(theirs, rel=1e-5)
        assert math.isfinite(mine)


@pytest.mark.gpu
def test_a_gpu_fills_as_the_cpu_does(ids):
    model = GLM(MODEL)
    init_weights(model, 3)
    model.eval()
    prompts = [np.array([9, 10, ids.mask, 11, 12], np.int32), np.array([ids.mask, 30], np.int32)]
    on_cpu = fill_tokens(language_model(model, ids), prompts, max_new_tokens=8)
    on_gpu = fill_tokens(language_model(model.cuda(), ids), prompts, max_new_tokens=8)
    for mine, theirs in zip(on_cpu, on_gpu, strict=True):
        assert np.array_equal(mine.tokens, theirs.tokens)
        assert mine.blanks[0].logprob == pytest.approx(theirs.blanks[0].logprob, abs=1e-3)
