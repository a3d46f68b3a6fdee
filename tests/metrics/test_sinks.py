"""Where a run's numbers go, under every name that a folder may have."""

import os
import sys

import pytest

from blankfill.metrics import MetricsWriter, read_metrics
from blankfill.metrics.names import board_tag


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names that are not UTF-8")
def test_a_folder_whose_name_is_not_utf8_takes_metrics_and_curves(tmp_path):
    run = tmp_path / os.fsdecode("\u8bad\u7ec3".encode("gbk"))
    run.mkdir()
    handles = len(os.listdir("/proc/self/fd"))
    with MetricsWriter(run) as writer:
        writer.write(1, {"loss_nats": 2.5})
        writer.rewind(0)
        writer.write(1, {"loss_nats": 2.0})
    assert read_metrics(run) == [{"step": 1, "loss_nats": 2.0}]
    events = list((run / "tensorboard").iterdir())
    assert events
    assert all(b"loss_nats" in path.read_bytes() for path in events)
    assert len(os.listdir("/proc/self/fd")) <= handles


@pytest.mark.parametrize(
    ("metric", "tag"),
    [
        ("loss_nats", "train/loss_nats"), ("loss_nats_zh", "train/loss_nats_zh"),
        ("targets_short", "train/targets_short"), ("grad_norm", "train/grad_norm"),
        ("learning_rate", "train/learning_rate"), ("epoch_source_0", "train/epoch_source_0"),
        ("validation_loss_nats", "validation/loss_nats"),
        ("validation_exact_match_en", "validation/exact_match_en"),
        ("positions_per_second", "speed/positions_per_second"),
        ("flops_per_second_dense", "speed/flops_per_second_dense"), ("mfu", "speed/mfu"),
        ("peak_flops_per_second", "speed/peak_flops_per_second"),
    ],
)  # fmt: skip
def test_tensorboard_groups_curves_by_what_they_are_about(metric, tag):
    assert board_tag(metric) == tag


def test_the_curves_have_the_names_of_their_groups(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with MetricsWriter(tmp_path) as writer:
        writer.write(1, {"loss_nats": 2.5, "positions_per_second": 100.0})
        writer.write(1, {"validation_loss_nats": 2.25})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert sorted(events.Tags()["scalars"]) == [
        "speed/positions_per_second", "train/loss_nats", "validation/loss_nats",
    ]  # fmt: skip
    assert [event.value for event in events.Scalars("validation/loss_nats")] == [2.25]
