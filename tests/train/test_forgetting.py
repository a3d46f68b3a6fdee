"""The forgetting guard measures each held-out store against the best that the run has had."""

import json
import logging

import pytest

from blankfill.errors import TrainingError
from blankfill.guard.forgetting import ForgettingGuard


def guard(run, names=("old",), policy="warn", limit=0.1):
    return ForgettingGuard(run, names, limit=limit, policy=policy)


def test_a_loss_is_measured_against_its_best(tmp_path):
    watch = guard(tmp_path)
    losses = [4.0, 3.0, 3.3, 2.0]
    shares = [watch.judge({"validation_loss_nats": loss})["forgotten_share_old"] for loss in losses]
    assert shares == pytest.approx([0.0, 0.0, 0.1, 0.0])


def test_every_store_has_its_own_best(tmp_path, caplog):
    watch = guard(tmp_path, ("general", "law"))
    with caplog.at_level(logging.WARNING):
        for general, law in ((2.0, 5.0), (2.1, 3.0), (2.5, 2.0)):
            found = watch.judge(
                {"validation_loss_nats_source_0": general, "validation_loss_nats_source_1": law}
            )
    assert found == pytest.approx({"forgotten_share_general": 0.25, "forgotten_share_law": 0.0})
    (record,) = caplog.records
    assert "general is 2.5000 nats, 25.0% above its best, 2.0000" in record.getMessage()


def test_a_resumed_run_knows_its_best_from_its_metrics_and_stops(tmp_path):
    rows = [{"step": 0, "validation_loss_nats": 3.0}, {"step": 5, "loss_nats": 1.0},
            {"step": 9, "validation_loss_nats": 2.0}]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(TrainingError, match=r"15\.0% above its best"):
        guard(tmp_path, policy="stop").judge({"validation_loss_nats": 2.3})
