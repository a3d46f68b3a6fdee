"""Planted poison: the incident names exactly it, and the run ends as the clean one does."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from blankfill.config.objective import ObjectiveConfig
from blankfill.data.rows import RowSource
from blankfill.errors import TrainingError
from blankfill.guard.incident import Incident, write_incident
from blankfill.metrics import read_metrics
from blankfill.objective.batch import IGNORE_INDEX
from blankfill.runs import newest_checkpoint
from train.conftest import CFG, same

POISONED_STEP = 30
ROWS = 4


class PoisonedRows:
    """A stream whose rows of one step were changed on their way."""

    def __init__(self, rows, change, step=POISONED_STEP):
        self._rows, self._change, self._first = rows, change, step * ROWS

    def __getattr__(self, name):
        return getattr(self._rows, name)

    def rows(self, first, num_rows):
        batch = self._rows.rows(first, num_rows)
        for row in range(num_rows):
            if first + row - self._first in range(ROWS):
                self._change(batch, row, first + row - self._first)
        return batch


def garbage(batch, row, number):
    rng = np.random.default_rng(number)
    targets = batch.targets[row]
    batch.targets[row] = np.where(
        targets == IGNORE_INDEX, targets, rng.integers(60, 200, len(targets))
    )
    tokens = batch.tokens[row]
    batch.tokens[row] = np.where(tokens < 8, tokens, rng.integers(60, 200, len(tokens)))


def wrong_label_in_row_two(batch, row, number):
    if number == 2:
        targets = batch.targets[row]
        batch.targets[row] = np.where(targets == IGNORE_INDEX, targets, 199)


@pytest.fixture
def monotone(memory_store):
    """Documents that say one word over and over, so that losses are small and even soon."""
    return memory_store([np.full(32, 50) for _ in range(64)])


def config(changes):
    usual = {"train.steps": 40, "checkpoint.every": 25, "guard.spike_window": 16,
             "schedule.peak_lr": 1e-2}  # fmt: skip
    return CFG.changed(usual | changes)


@pytest.fixture
def run(tmp_path, make_trainer, monotone):
    """A function that trains with a poison and returns the trainer."""

    def go(name, poison=None, *, changes):
        trainer = make_trainer(tmp_path / name, config(changes), monotone)
        if poison:
            trainer.rows = PoisonedRows(trainer.rows, poison)
        trainer.fit()
        return trainer

    return go


def incident(trainer, step=POISONED_STEP):
    path = trainer.run / "incidents" / f"step-{step:08d}.json"
    assert path.with_suffix(".md").read_text().startswith(f"# Step {step}: ")
    return json.loads(path.read_text())


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_a_batch_of_garbage_is_left_out_as_if_it_had_been_named_before(run, policy):
    poisoned = run("poisoned", garbage, changes={"guard.on_spike": policy})
    clean = run(
        "clean", changes={"guard.on_spike": policy, "train.skip_steps": (str(POISONED_STEP),)}
    )
    assert same(poisoned, clean)
    found = incident(poisoned)
    assert found["found"].startswith("loss spike")
    assert {e["row"] for e in found["examples"]} == {POISONED_STEP * ROWS + i for i in range(ROWS)}
    assert len(list((poisoned.run / "incidents").iterdir())) == 2
    rows = read_metrics(poisoned.run)
    assert [row["step"] for row in rows] == list(range(1, 41))
    assert [row.get("loss_nats") for row in rows] == [
        row.get("loss_nats") for row in read_metrics(clean.run)
    ]


def test_a_row_of_wrong_labels_is_named_first(run, monotone):
    poisoned = run("poisoned", wrong_label_in_row_two, changes={"guard.on_spike": "skip"})
    clean = run("clean", changes={"guard.on_spike": "skip"})
    found = incident(poisoned)
    worst = found["examples"][0]
    in_row = [e for e in found["examples"] if e["row"] == POISONED_STEP * ROWS + 2]
    assert worst["row"] == POISONED_STEP * ROWS + 2
    assert {e["document"] for e in found["examples"][: len(in_row)]} == {
        e["document"] for e in in_row
    }
    assert all(token == 199 for b in worst["blanks"] for token, _, _ in b["tokens"])
    assert 0 <= worst["document"] < len(monotone.documents)
    # One step of 40 is missing; both know the word: far below the 5.3 nats of the start.
    losses = [read_metrics(t.run)[-1]["loss_nats"] for t in (poisoned, clean)]
    assert losses[0] == pytest.approx(losses[1], abs=0.3)


def test_an_infinite_weight_is_named_and_the_run_ends_bit_equal_to_the_clean_one(
    tmp_path, make_trainer, monotone, run
):
    clean = run("clean", changes={"guard.on_spike": "rollback"})
    trainer = make_trainer(tmp_path / "poisoned", config({"guard.on_spike": "rollback"}), monotone)
    step, planted = trainer.step, []

    def plant(loader):
        if trainer.index == POISONED_STEP and not planted:
            planted.append(True)
            with torch.no_grad():
                trainer.engine.model.blocks["1"].mlp.up.weight[3, 4] = torch.inf
        return step(loader)

    trainer.step = plant
    assert trainer.fit()
    found = incident(trainer)
    assert found["bad_weights"] == ["blocks.1.mlp.up.weight (1 of 1536 values)"]
    assert same(trainer, clean)


def test_weights_that_are_not_finite_are_never_saved(tmp_path, make_trainer):
    trainer = make_trainer(tmp_path / "run")
    trainer.fit()
    with torch.no_grad():
        trainer.engine.model.norm.weight[0] = torch.nan
    trainer.index += 1
    with pytest.raises(TrainingError, match=r"norm\.weight \(1 of 32 values\)"):
        trainer.save()
    assert newest_checkpoint(trainer.run).step == 12


def test_stop_saves_before_the_step_and_a_resumed_run_leaves_it_out_by_name(
    tmp_path, make_trainer, monotone, run
):
    trainer = make_trainer(tmp_path / "run", config({"guard.on_spike": "stop"}), monotone)
    trainer.rows = PoisonedRows(trainer.rows, garbage)
    with pytest.raises(TrainingError, match=r"--train\.skip-steps 30"):
        trainer.fit()
    assert newest_checkpoint(trainer.run).step == POISONED_STEP
    again = make_trainer(
        tmp_path / "run",
        config({"guard.on_spike": "stop", "train.skip_steps": ("30",)}),
        monotone,
    )
    again.rows = PoisonedRows(again.rows, garbage)
    again.restore(newest_checkpoint(trainer.run))
    assert again.fit()
    assert same(
        again, run("clean", changes={"guard.on_spike": "stop", "train.skip_steps": ("30",)})
    )


def test_a_run_killed_after_its_return_decides_the_same_again(
    tmp_path, make_trainer, monotone, run
):
    whole = run("whole", garbage, changes={"guard.on_spike": "rollback"})
    killed = make_trainer(tmp_path / "killed", config({"guard.on_spike": "rollback"}), monotone)
    killed.rows = PoisonedRows(killed.rows, garbage)
    restore = killed.restore

    def die(checkpoint):
        raise SystemExit

    killed.restore = die
    with pytest.raises(SystemExit):
        killed.fit()
    killed.restore = restore
    again = make_trainer(tmp_path / "killed", config({"guard.on_spike": "rollback"}), monotone)
    again.rows = PoisonedRows(again.rows, garbage)
    again.restore(newest_checkpoint(again.run))
    assert again.index == 25
    again.fit()
    assert same(again, whole)


def test_log_writes_the_batch_and_goes_on(run, caplog):
    trainer = run("run", garbage, changes={"guard.on_spike": "log"})
    assert trainer.index == 40
    assert incident(trainer)["done"] == "the update was applied"
    assert "step 30: loss spike" in caplog.text


def test_a_run_whose_every_step_spikes_ends(run, caplog):
    with pytest.raises(TrainingError, match="spike"):
        run(
            "run",
            changes={
                "guard.on_spike": "skip",
                "guard.spike_threshold": 1e-9,
                "guard.spike_window": 4,
            },
        )


def test_gradient_norms_add_up_to_the_whole(run):
    found = incident(run("run", garbage, changes={"guard.on_spike": "log"}))
    total = sum(norm**2 for norm in found["gradient_norms"].values()) ** 0.5
    assert set(found["gradient_norms"]) == {"embed.word", "blocks.0", "blocks.1", "norm"}
    assert total == pytest.approx(found["grad_norm"], rel=1e-5)  # float32 sums


class Words:
    """A tokenizer of whole words, one an id."""

    vocab_size = 400

    def __init__(self, ids):
        self.ids = ids

    def token(self, number):
        return f"w{number}"

    def decode(self, numbers):
        return " ".join(map(self.token, numbers))


@pytest.mark.parametrize("sentinels", [0, 3])
def test_every_blank_of_an_incident_stands_alone(tmp_path, random_store, ids, sentinels):
    ids = dataclasses.replace(ids, mask_sentinels=(200, 201, 202), sop_sentinels=(300, 301, 302))
    objective = ObjectiveConfig(
        short_rate=1, document_rate=0, sentinels=sentinels, ratio_law="fixed", mask_ratio=0.3
    )
    rows = RowSource([random_store([12] * 40)], objective, ids, row_length=64, seed=0)
    batch = rows.rows(0, 4)
    count = int((batch.targets != IGNORE_INDEX).sum())
    found = Incident(
        step=0, first_row=0, num_rows=4, own_row=0, found="", done="", loss_nats=1.0,
        grad_norm=1.0, gradient_norms={}, bad_weights=[], batches=[batch],
        nlls=[np.ones(count, np.float32)],
    )  # fmt: skip
    page = write_incident(tmp_path, found, Words(ids))
    blanks = [
        [token for token, _, _ in blank["tokens"]]
        for example in json.loads(page.with_suffix(".json").read_text())["examples"]
        for blank in example["blanks"]
    ]
    assert len(blanks) > len(batch.kinds)
    assert sum(map(len, blanks)) == count
    assert all(blank.index(ids.eop) == len(blank) - 1 for blank in blanks)
