"""A run on a mixture resumes exactly, and its shares are part of what it is."""

import json

import pytest
import torch

from blankfill.config.checkpoint import CheckpointConfig
from blankfill.config.model import ModelConfig
from blankfill.config.run import RunConfig
from blankfill.config.schedule import ScheduleConfig
from blankfill.config.train import TrainConfig
from blankfill.data.ingest import build_store
from blankfill.errors import ConfigError
from blankfill.metrics import read_metrics
from blankfill.prepare import build_trainer
from conftest import small_corpus

CFG = RunConfig(
    model=ModelConfig(hidden_size=32, num_layers=1, num_heads=2, ffn_size=48, max_position=128),
    train=TrainConfig(
        steps=6, row_length=64, batch_rows=4, micro_batch_rows=2, log_every=1, threads=1,
    ),
    schedule=ScheduleConfig(warmup_steps=1, kind="constant"),
    checkpoint=CheckpointConfig(every=3),
)  # fmt: skip


@pytest.fixture(scope="module")
def stores(tokenizer_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    for language, number in (("en", 0), ("zh", 1)):
        source = folder / f"{language}.jsonl"
        lines = [json.dumps({"text": text}) for text in small_corpus(40)[number::2]]
        source.write_text("\n".join(lines), encoding="utf-8")
        build_store([source], tokenizer=tokenizer_folder, out=folder / language)
    return [folder / "en", folder / "zh"]


def train(stores, run, steps, shares, *, resume=False, allow_change=()):
    cfg = CFG.changed({"train.steps": steps})
    trainer = build_trainer(
        cfg, data=stores, run=run, shares=shares, resume=resume, allow_change=allow_change
    )
    assert trainer.fit()
    return trainer.engine.model.state_dict()


def test_a_resumed_mixture_is_bit_equal_to_one_that_never_stopped(stores, tmp_path):
    whole = train(stores, tmp_path / "whole", 6, [0.75, 0.25])
    train(stores, tmp_path / "parts", 3, [0.75, 0.25])
    parts = train(stores, tmp_path / "parts", 6, [0.75, 0.25], resume=True)
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    rows = read_metrics(tmp_path / "whole")
    assert [r["loss_nats"] for r in rows] == [
        r["loss_nats"] for r in read_metrics(tmp_path / "parts")
    ]
    assert {"epoch", "epoch_source_0", "epoch_source_1"} <= rows[-1].keys()
    described = json.loads((tmp_path / "whole" / "run.json").read_text(encoding="utf-8"))["data"]
    assert [entry["share"] for entry in described] == [0.75, 0.25]


def test_other_shares_are_another_run(stores, tmp_path):
    train(stores, tmp_path / "run", 3, [0.75, 0.25])
    with pytest.raises(ConfigError, match=r"share 0\.75.*say --allow-change shares"):
        train(stores, tmp_path / "run", 6, [0.5, 0.5], resume=True)
    # Without shares documents are read in another order, which no run can change to.
    with pytest.raises(ConfigError, match="data cannot change"):
        train(stores, tmp_path / "run", 6, (), resume=True, allow_change=["shares"])


def test_shares_change_by_name_at_the_step_that_is_resumed(stores, tmp_path):
    run = tmp_path / "run"
    train(stores, run, 3, [0.75, 0.25])
    train(stores, run, 6, [0.25, 0.75], resume=True, allow_change=["shares"])
    described = json.loads((run / "run.json").read_text(encoding="utf-8"))
    rows = [{"row": 0, "shares": [0.75, 0.25]}, {"row": 12, "shares": [0.25, 0.75]}]
    assert described["mixtures"] == rows
    assert [entry["share"] for entry in described["data"]] == [0.25, 0.75]
    assert described["changes"] == [
        {"step": 3, "values": {"train.steps": 6, "shares": [0.25, 0.75]}}
    ]
    whole = train(stores, run, 9, [0.25, 0.75], resume=True)
    # 12 rows of the first store in 3 : 1, then 24 in 1 : 3; a second resume changes nothing.
    trainer = build_trainer(
        CFG.changed({"train.steps": 9}), data=stores,
        run=run, shares=[0.25, 0.75], resume=True,
    )  # fmt: skip
    assert trainer.rows.counts(36) == [9 + 6, 3 + 18]
    assert all(torch.equal(v, whole[name]) for name, v in trainer.engine.model.state_dict().items())
    trainer._lock.release()
