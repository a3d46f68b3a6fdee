import dataclasses
import os
import signal

import numpy as np
import pytest
import torch

from blankfill.config.checkpoint import CheckpointConfig
from blankfill.config.objective import ObjectiveConfig
from blankfill.config.optimizer import OptimizerConfig
from blankfill.config.run import RunConfig
from blankfill.config.schedule import ScheduleConfig
from blankfill.config.train import TrainConfig
from blankfill.errors import CheckpointError, TrainingError
from blankfill.generate.search import fill_tokens
from blankfill.metrics import read_metrics
from blankfill.runs import newest_checkpoint
from conftest import language_model
from train.conftest import CFG, MODEL, weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("dropout", "optimizer"), [(0.0, "adamw"), (0.2, "adamw"), (0.0, "muon")])
def test_a_resumed_run_is_bit_equal_to_one_that_never_stopped(
    tmp_path, make_trainer, dropout, optimizer, dtype
):
    cfg = dataclasses.replace(
        CFG,
        model=dataclasses.replace(MODEL, dropout=dropout),
        optimizer=dataclasses.replace(CFG.optimizer, kind=optimizer),
    )
    whole = make_trainer(tmp_path / "whole", cfg, dtype=dtype)
    whole.fit()

    first = make_trainer(tmp_path / "parts", cfg, dtype=dtype)
    first.cfg = cfg.changed({"checkpoint.every": 7})
    step = first.step

    def stop_after_seven(loader):
        info = step(loader)
        if first.index == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return info

    first.step = stop_after_seven
    assert not first.fit()
    second = make_trainer(tmp_path / "parts", cfg, dtype=dtype)
    second.restore(newest_checkpoint(tmp_path / "parts"))
    assert second.index == 7
    assert second.fit()

    expected = weights(whole)
    assert all(torch.equal(value, expected[name]) for name, value in weights(second).items())
    losses = [[row["loss_nats"] for row in read_metrics(tmp_path / p)] for p in ("whole", "parts")]
    assert losses[0] == losses[1]


def test_micro_batches_add_up_to_the_batch(tmp_path, make_trainer):
    # float32 sums in another order: 1e-5 relative is a hundred rounding errors.
    one = CFG.changed({"train.micro_batch_rows": 4, "train.steps": 1, "train.precision": "float32"})
    two = CFG.changed({"train.micro_batch_rows": 2, "train.steps": 1, "train.precision": "float32"})
    runs = [make_trainer(tmp_path / name, cfg) for name, cfg in (("one", one), ("two", two))]
    for run in runs:
        run.fit()
    rows = [read_metrics(tmp_path / name)[0] for name in ("one", "two")]
    assert rows[0]["loss_nats"] == pytest.approx(rows[1]["loss_nats"], rel=1e-5)
    assert rows[0]["grad_norm"] == pytest.approx(rows[1]["grad_norm"], rel=1e-4)


def test_losses_per_kind_and_language_average_to_the_whole(tmp_path, make_trainer):
    trainer = make_trainer(tmp_path / "run")
    trainer.fit()
    row = read_metrics(tmp_path / "run")[-1]
    parts = [
        row[f"loss_nats_{kind}"] for kind in ("short", "document") if f"loss_nats_{kind}" in row
    ]
    assert min(parts) <= row["loss_nats"] <= max(parts)
    assert row["loss_nats_en"] == pytest.approx(row["loss_nats"])


def test_metrics_after_the_checkpoint_are_written_again_not_twice(tmp_path, make_trainer):
    trainer = make_trainer(tmp_path / "run")
    trainer.fit()
    again = make_trainer(tmp_path / "run")
    again.restore(newest_checkpoint(tmp_path / "run"))
    again.fit()
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == list(range(1, 13))


def test_a_loss_that_is_not_finite_stops_with_one_sentence(tmp_path, make_trainer):
    trainer = make_trainer(tmp_path / "run")
    with torch.no_grad():
        trainer.engine.model.norm.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite"):
        trainer.fit()


def test_a_checkpoint_of_another_shape_is_refused(tmp_path, make_trainer):
    make_trainer(tmp_path / "run").fit()
    wider = dataclasses.replace(CFG, model=dataclasses.replace(MODEL, ffn_size=64))
    trainer = make_trainer(tmp_path / "other", wider)
    with pytest.raises(CheckpointError, match="does not fit"):
        trainer.restore(newest_checkpoint(tmp_path / "run"))


def test_a_small_model_learns_ten_documents_by_heart_and_fills_their_blanks(
    tmp_path, make_trainer, random_store, ids
):
    store = random_store([24] * 10, seed=3)
    cfg = RunConfig(
        model=dataclasses.replace(MODEL, hidden_size=64, ffn_size=128),
        objective=ObjectiveConfig(short_rate=1.0, document_rate=0.0, mask_ratio=0.25),
        train=TrainConfig(
            steps=1000, row_length=64, batch_rows=6, micro_batch_rows=6, log_every=20,
            precision="float32",
        ),
        schedule=ScheduleConfig(warmup_steps=20, peak_lr=5e-3),
        checkpoint=CheckpointConfig(every=1000),
        optimizer=OptimizerConfig(weight_decay=0.0),
    )  # fmt: skip
    trainer = make_trainer(tmp_path / "run", cfg, store)
    trainer.fit()
    assert read_metrics(tmp_path / "run")[-1]["loss_nats"] < 0.1
    trainer.engine.model.eval()
    prompts, truths = [], []
    for document in store.documents:
        prompts.append(np.concatenate([document[:11], [ids.mask], document[13:]]))
        truths.append(document[11:13])
    filled = fill_tokens(language_model(trainer.engine.model, ids), prompts, max_new_tokens=8)
    exact = [np.array_equal(f.blanks[0].tokens, t) for f, t in zip(filled, truths, strict=True)]
    assert all(exact)


def test_the_embeddings_share_of_the_gradient_follows_its_schedule(tmp_path, make_trainer):
    cfg = dataclasses.replace(
        CFG,
        model=dataclasses.replace(MODEL, embedding_gradient_shrink=0.1),
        train=dataclasses.replace(CFG.train, steps=6),
        schedule=dataclasses.replace(CFG.schedule, shrink_hold_steps=2, shrink_rise_steps=4),
    )
    trainer = make_trainer(tmp_path / "run", cfg)
    shares = []
    trainer.engine.model.register_forward_pre_hook(
        lambda _model, _args, named: shares.append(named["shrink"]), with_kwargs=True
    )
    trainer.fit()
    shares = shares[::2]  # two micro-batches a step
    assert shares == pytest.approx([0.1, 0.1, 0.1, 0.325, 0.55, 0.775])


def test_float16_scales_its_loss_and_resumes_with_its_scale(tmp_path, make_trainer):
    cfg = CFG.changed({"train.precision": "float16", "train.loss_scale_window": 4})
    trainer = make_trainer(tmp_path / "run", cfg)
    trainer.engine.scaler.scale = 2.0**40  # overflows until it has been halved enough
    trainer.fit()
    rows = read_metrics(tmp_path / "run")
    assert rows[-1]["loss_scale"] < 2.0**40
    lost = [row["step"] for row in rows if "loss_nats" not in row]
    assert lost == list(range(1, len(lost) + 1)) != []
    again = make_trainer(tmp_path / "run", cfg)
    again.restore(newest_checkpoint(tmp_path / "run"))
    assert again.engine.scaler.state() == trainer.engine.scaler.state()


# Eleven bits of a number: losses of a short run agree to a few thousandths; eight: to eight times.
@pytest.mark.parametrize(("low", "rel"), [("float16", 5e-3), ("bfloat16", 4e-2)])
def test_half_precision_learns_what_float32_learns(tmp_path, make_trainer, low, rel):
    runs = []
    for precision in (low, "float32"):
        settled = "float16" if precision == "float16" else "auto"  # with its loss scale
        cfg = CFG.changed({"train.precision": settled})
        make_trainer(tmp_path / precision, cfg, dtype=getattr(torch, precision)).fit()
        runs.append([row["loss_nats"] for row in read_metrics(tmp_path / precision)])
    assert runs[0] == pytest.approx(runs[1], rel=rel)
