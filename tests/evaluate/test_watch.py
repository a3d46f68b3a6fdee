"""Watching a run says what an evaluation says, and leaves the run as it was."""

import json

import pytest
import torch

from blankfill.config.checkpoint import CheckpointConfig
from blankfill.config.model import ModelConfig
from blankfill.config.objective import ObjectiveConfig
from blankfill.config.run import RunConfig
from blankfill.config.schedule import ScheduleConfig
from blankfill.config.train import TrainConfig
from blankfill.config.validation import ValidationConfig
from blankfill.data.ingest import build_store
from blankfill.data.store import TokenStore
from blankfill.evaluate.blanks import evaluate_blanks
from blankfill.evaluate.held_out import draw_held_out
from blankfill.evaluate.watch import BlankWatch
from blankfill.generate import LanguageModel
from blankfill.metrics import read_metrics, read_samples
from blankfill.prepare import build_trainer
from blankfill.text.tokenizer import Tokenizer
from conftest import small_corpus

CFG = RunConfig(
    model=ModelConfig(hidden_size=32, num_layers=1, num_heads=2, ffn_size=48, max_position=128),
    objective=ObjectiveConfig(),
    train=TrainConfig(
        steps=6, row_length=64, batch_rows=2, micro_batch_rows=2, log_every=1, threads=1,
    ),
    schedule=ScheduleConfig(warmup_steps=1),
    validation=ValidationConfig(every=2, blanks=8, show_fills=2),
    checkpoint=CheckpointConfig(every=4),
)  # fmt: skip


@pytest.fixture(scope="module")
def stores(tokenizer_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    for name, seed in (("train", 1), ("valid", 2)):
        source = folder / f"{name}.jsonl"
        lines = [json.dumps({"text": text}) for text in small_corpus(40, seed)]
        source.write_text("\n".join(lines), encoding="utf-8")
        build_store([source], tokenizer=tokenizer_folder, out=folder / name)
    return folder


def train(stores, run, cfg=CFG, *, watched=True, resume=False):
    trainer = build_trainer(
        cfg, data=[stores / "train"], run=run, validation=[stores / "valid"], resume=resume,
        check_blanks=BlankWatch if watched else None,
    )  # fmt: skip
    trainer.fit()
    return trainer


def test_what_is_watched_is_what_is_evaluated(stores, tmp_path):
    trainer = train(stores, tmp_path / "run")
    tokenizer = Tokenizer.load(tmp_path / "run" / "tokenizer")
    lm = LanguageModel(model=trainer.engine.model.eval(), tokenizer=tokenizer, cfg=CFG)
    many = draw_held_out([TokenStore.open(stores / "valid")], max_blanks=16)
    first = draw_held_out([TokenStore.open(stores / "valid")], max_blanks=8)
    assert first.by_language == {lang: of[:8] for lang, of in many.by_language.items()}
    report = evaluate_blanks(lm, first)
    row = next(r for r in reversed(read_metrics(tmp_path / "run")) if "validation_loss_nats" in r)
    for language in ("en", "zh"):
        score = report.score(language, "model")
        assert row[f"validation_blank_loss_nats_{language}"] == pytest.approx(
            score.loss_nats_per_token.value
        )
        assert row[f"validation_exact_match_{language}"] == score.exact_match.value
    steps = [sample.step for sample in read_samples(tmp_path / "run")]
    assert steps == sorted([0, 2, 4, 6] * 4)  # two blanks of two languages at each validation


def test_a_watched_run_has_the_weights_of_one_that_is_not(stores, tmp_path):
    runs = [
        train(stores, tmp_path / name, watched=watched)
        for name, watched in (("watched", True), ("alone", False))
    ]
    states = [run.engine.model.state_dict() for run in runs]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_resumed_run_has_each_fill_once(stores, tmp_path):
    short = CFG.changed({"train.steps": 4, "schedule.kind": "constant"})  # fmt: skip
    long = CFG.changed({"schedule.kind": "constant"})
    train(stores, tmp_path / "twin", long)
    train(stores, tmp_path / "parts", short)
    lines = (tmp_path / "parts" / "samples.jsonl").read_text(encoding="utf-8")
    later = lines.splitlines()[-1].replace('"step": 4', '"step": 5')
    (tmp_path / "parts" / "samples.jsonl").write_text(lines + later + "\n", encoding="utf-8")
    train(stores, tmp_path / "parts", long, resume=True)
    assert read_samples(tmp_path / "parts") == read_samples(tmp_path / "twin")
    exact = [
        [r["validation_blank_loss_nats_en"] for r in read_metrics(tmp_path / name)
         if "validation_blank_loss_nats_en" in r]
        for name in ("parts", "twin")
    ]  # fmt: skip
    assert exact[0] == exact[1]
