"""Where a run's numbers go, under every name that a folder may have."""

import os
import sys

import pytest

from blankfill.metrics import MetricsWriter, read_metrics


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
