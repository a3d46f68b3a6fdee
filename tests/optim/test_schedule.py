import pytest

from blankfill.config.train import TrainConfig
from blankfill.optim.schedule import lr_at

CFG = TrainConfig(steps=101, warmup_steps=10, peak_lr=1.0, min_lr_ratio=0.1)


def test_warm_up_rises_by_equal_steps_to_the_peak():
    assert [lr_at(step, CFG) for step in (0, 1, 9)] == pytest.approx([0.1, 0.2, 1.0])


def test_the_first_step_after_warm_up_uses_the_peak():
    assert lr_at(10, CFG) == pytest.approx(1.0)


def test_cosine_is_halfway_down_in_the_middle():
    assert lr_at(55, CFG) == pytest.approx(0.55)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_last_step_reaches_the_floor_and_later_ones_stay(schedule):
    cfg = TrainConfig(steps=101, warmup_steps=10, peak_lr=1.0, min_lr_ratio=0.1, schedule=schedule)
    assert [lr_at(step, cfg) for step in (100, 101, 5000)] == pytest.approx([0.1] * 3)


def test_without_warm_up_the_first_step_uses_the_peak():
    assert lr_at(0, TrainConfig(steps=10, warmup_steps=0, peak_lr=0.5)) == pytest.approx(0.5)


def test_warm_up_as_long_as_the_run_never_decays():
    cfg = TrainConfig(steps=10, warmup_steps=10, peak_lr=1.0)
    assert lr_at(9, cfg) == pytest.approx(1.0)


def test_one_step_runs_have_a_rate():
    assert lr_at(0, TrainConfig(steps=1, warmup_steps=0, peak_lr=1.0)) > 0
