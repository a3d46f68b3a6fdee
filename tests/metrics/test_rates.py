"""Rates and utilisation against arithmetic by hand, on a clock that the test turns."""

import numpy as np
import pytest
import torch

from blankfill.config.model import ModelConfig
from blankfill.config.objective import ObjectiveConfig
from blankfill.data.rows import RowSource
from blankfill.metrics import Flops, RateMeter, count_flops, meters, peak
from blankfill.metrics.peak import KNOWN, known_peak, measure_peak
from conftest import MemoryStore


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(meters.time, "monotonic", lambda: now[0])
    return now


def test_utilisation_is_the_rate_really_done_over_the_peak(clock):
    rates = RateMeter(4e9)
    for _ in range(3):
        clock[0] += 2.0
        rates.add(1000, 300, Flops(model=2_000_000_000, dense=5_000_000_000))
    found = rates.read()
    assert found["positions_per_second"] == 500.0
    assert found["targets_per_second"] == 150.0
    assert found["flops_per_second_model"] == 1e9
    assert found["flops_per_second_dense"] == 2.5e9
    assert found["peak_flops_per_second"] == 4e9
    assert found["mfu"] == pytest.approx(0.25)
    assert rates.notes() == ("150 targets/s", "MFU 25 %")


def test_pauses_do_not_slow_the_rate_and_have_their_share(clock):
    rates = RateMeter()
    clock[0] += 1.0
    rates.add(1000, 10)
    clock[0] += 3.0
    assert rates.pause("validation") == 3.0
    clock[0] += 1.0
    rates.add(1000, 10)
    assert rates.read()["positions_per_second"] == 1000.0
    assert rates.share("validation") == pytest.approx(3 / 5)
    assert rates.share("save") == 0.0


def test_utilisation_never_passes_one(clock):
    rates = RateMeter(1e9)
    clock[0] += 1.0
    rates.add(1, 1, Flops(model=3_000_000_000, dense=1))
    assert rates.read()["mfu"] == 1.0
    clock[0] += 1.0
    rates.add(1, 1, Flops(model=1_500_000_000, dense=1))
    assert rates.read()["mfu"] == pytest.approx(0.5)  # the peak is at least what was seen


def test_without_a_peak_there_is_no_utilisation(clock):
    rates = RateMeter()
    clock[0] += 1.0
    rates.add(1, 1, Flops(model=3, dense=5))
    assert "mfu" not in rates.read()
    assert rates.notes() == ("1 targets/s",)


def test_operations_of_a_step_by_hand(ids):
    # One layer, D = 8, F = 16 (geglu: two halves and down), V = 32; rows of 32 positions.
    cfg = ModelConfig(
        vocab_size=32, hidden_size=8, num_layers=1, num_heads=1, ffn_size=16, max_position=64
    )
    store = MemoryStore([np.full(20, 9)] * 8)
    batch = RowSource([store], ObjectiveConfig(), ids, row_length=32, seed=0).rows(0, 3)
    weights = 4 * 8 * 8 + 3 * 8 * 16
    pairs = sum(
        (b - a) ** 2 + (end - b) * (end - a) for _, a, b, end in batch.blocks.astype(int).tolist()
    )
    # The only layer is the last: beside keys and values it works on targets alone.
    keys_values = 2 * 8 * 8
    linear = 2 * 96 * keys_values + 2 * batch.num_targets * (weights - keys_values)
    forward = linear + 4 * 8 * pairs + 2 * 32 * 8 * batch.num_targets
    dense = 2 * 96 * weights + 4 * 8 * 3 * 32 * 32 + 2 * 32 * 8 * 96
    assert count_flops(cfg, [batch, batch]) == Flops(model=2 * 3 * forward, dense=2 * 3 * dense)


@pytest.mark.parametrize(
    ("name", "dtype", "tera"),
    [
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312),
        ("NVIDIA A100 80GB PCIe", "float32", 19.5),
        ("NVIDIA A800-SXM4-80GB", "bfloat16", 312),
        ("NVIDIA A10", "bfloat16", 125),
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989.4),
        ("NVIDIA H100 PCIe", "bfloat16", 756),
        ("NVIDIA H200", "float16", 989.4),
        ("NVIDIA H20", "bfloat16", 148),
        ("Tesla V100-SXM2-32GB", "float16", 125),
        ("Tesla V100-PCIE-16GB", "float16", 112),
        ("NVIDIA GeForce RTX 4090", "bfloat16", 165.2),
        ("NVIDIA L4", "bfloat16", 121),
    ],
)
def test_known_devices_have_the_peak_of_their_data_sheet(name, dtype, tera):
    assert known_peak(name, dtype).flops_per_second == tera * 1e12


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("Tesla V100-SXM2-32GB", "bfloat16"), ("NVIDIA GeForce RTX 4090 D", "bfloat16"),
     ("Some Accelerator", "float32")],
)  # fmt: skip
def test_what_the_table_does_not_know_is_measured(name, dtype):
    assert known_peak(name, dtype) is None


def test_tf32_counts_only_where_it_is_allowed():
    assert known_peak("NVIDIA A100-SXM4-40GB", "float32", tf32=True).flops_per_second == 156e12
    assert all(known.source and known.half for known in KNOWN)


def test_a_measured_peak_is_the_best_product_seen(monkeypatch):
    # A clock that lets every product take a millisecond: the largest one is the best.
    now = [0.0]

    def tick():
        now[0] += 1e-3
        return now[0]

    monkeypatch.setattr(peak.time, "perf_counter", tick)
    monkeypatch.setattr(peak, "SHAPES", ((4, 4, 4), (8, 4, 2), (4, 16, 4)))
    assert measure_peak(torch.float32, seconds=0.02) == pytest.approx(2 * 4 * 16 * 4 / 1e-3)
