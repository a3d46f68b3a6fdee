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


def test_wsd_stays_at_the_peak_and_falls_evenly_over_its_cooldown():
    cfg = TrainConfig(steps=101, warmup_steps=10, peak_lr=1.0, min_lr_ratio=0.0, schedule="wsd",
                      cooldown_steps=20)  # fmt: skip
    assert [lr_at(step, cfg) for step in (10, 50, 80)] == [1.0] * 3
    assert [lr_at(step, cfg) for step in (85, 90, 100, 200)] == pytest.approx([0.75, 0.5, 0, 0])


def test_a_longer_wsd_run_uses_the_same_rates_up_to_the_shorter_ones_cooldown():
    short, long = (TrainConfig(steps=n, schedule="wsd", cooldown_steps=20) for n in (200, 900))
    assert all(lr_at(step, short) == lr_at(step, long) for step in range(180))


def test_the_batch_of_glm_130b_grows_by_24_rows_in_168_increments():
    cfg = TrainConfig(batch_rows=4224, micro_batch_rows=24, ramp_from_rows=192, ramp_rows=5_493_164)
    sizes = sorted({cfg.rows_at(row) for row in range(0, 5_600_000, 1000)})
    assert sizes == list(range(192, 4225, 24))
    assert cfg.rows_at(5_493_163) < 4224 == cfg.rows_at(5_493_164)
