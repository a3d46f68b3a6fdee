"""Tiny trainers."""

import pytest
import torch

from blankfill.config.checkpoint import CheckpointConfig
from blankfill.config.model import ModelConfig
from blankfill.config.run import RunConfig
from blankfill.config.schedule import ScheduleConfig
from blankfill.config.train import TrainConfig
from blankfill.config.validation import ValidationConfig
from blankfill.data.rows import RowSource
from blankfill.engine.local import LocalEngine
from blankfill.kernels.native import load_native
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights
from blankfill.train.trainer import Trainer

MODEL = ModelConfig(
    vocab_size=200, hidden_size=32, num_layers=2, num_heads=2, ffn_size=48, max_position=64
)
CFG = RunConfig(
    model=MODEL,
    train=TrainConfig(
        steps=12, row_length=64, batch_rows=4, micro_batch_rows=2, log_every=1, threads=1,
    ),
    schedule=ScheduleConfig(warmup_steps=2, peak_lr=1e-2),
    checkpoint=CheckpointConfig(every=100), validation=ValidationConfig(every=0),
)  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tensor_operations(monkeypatch):
    """Leave the forms in C out."""
    monkeypatch.setenv("BLANKFILL_NATIVE", "0")
    load_native.cache_clear()
    yield
    load_native.cache_clear()


@pytest.fixture
def model():
    """The model of `CFG` with its first weights."""
    model = GLM(CFG.model)
    init_weights(model, 1)
    return model


@pytest.fixture
def rows(random_store, ids):
    """A function that makes a batch of so many rows."""
    store = random_store([5, 17, 30, 44, 120, 9, 60, 33])
    source = RowSource([store], CFG.objective, ids, row_length=64, seed=1)
    return lambda count: source.rows(0, count)


@pytest.fixture
def make_trainer(random_store, ids):
    """A function that makes a trainer in a folder."""

    def make(run, cfg=CFG, store=None, device="cpu", dtype=None, attention=None, compiled=False,
             reads_each_step=None, dropout_by_row=False, **options):  # fmt: skip
        run.mkdir(exist_ok=True)
        store = store or random_store([5, 17, 30, 44, 120, 9, 60, 33] * 4)
        model = GLM(cfg.model)
        init_weights(model, cfg.train.seed)
        rows = RowSource(
            [store], cfg.objective, ids, row_length=cfg.train.row_length, seed=cfg.train.seed
        )
        engine = LocalEngine(
            cfg, model.to(device), dtype=dtype, attention=attention, compiled=compiled,
            reads_each_step=reads_each_step, dropout_by_row=dropout_by_row,
        )  # fmt: skip
        return Trainer(cfg, engine, rows, run, **options)

    return make


@pytest.fixture
def cfg():
    """The tiny run, and a function to change fields of its recipe."""
    return CFG


def weights(trainer):
    """Copy a trainer's weights."""
    return {name: value.clone() for name, value in trainer.engine.model.state_dict().items()}


def same(first, second):
    """Tell whether two trainers' weights are bit-equal."""
    other = second.engine.model.state_dict()
    return all(torch.equal(v, other[k]) for k, v in first.engine.model.state_dict().items())


def stop_at(trainer, index):
    """Train to a step as if a signal came there."""
    step = trainer.step

    def stopping(loader):
        info = step(loader)
        if trainer.index == index:
            trainer._stop.set()
        return info

    trainer.step = stopping
    assert not trainer.fit()
