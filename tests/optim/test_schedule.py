import pytest

from blankfill.config.schedule import ScheduleConfig
from blankfill.config.train import TrainConfig
from blankfill.errors import ConfigError
from blankfill.optim.schedule import lr_at, shrink_at

CFG = ScheduleConfig(warmup_steps=10, peak_lr=1.0, min_lr_ratio=0.1)


def test_warm_up_rises_by_equal_steps_to_the_peak():
    assert [lr_at(step, CFG, 101) for step in (0, 1, 9)] == pytest.approx([0.1, 0.2, 1.0])


def test_the_first_step_after_warm_up_uses_the_peak():
    assert lr_at(10, CFG, 101) == pytest.approx(1.0)


def test_cosine_is_halfway_down_in_the_middle():
    assert lr_at(55, CFG, 101) == pytest.approx(0.55)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_last_step_reaches_the_floor_and_later_ones_stay(schedule):
    cfg = ScheduleConfig(warmup_steps=10, peak_lr=1.0, min_lr_ratio=0.1, kind=schedule)
    assert [lr_at(step, cfg, 101) for step in (100, 101, 5000)] == pytest.approx([0.1] * 3)


def test_without_warm_up_the_first_step_uses_the_peak():
    assert lr_at(0, ScheduleConfig(warmup_steps=0, peak_lr=0.5), 10) == pytest.approx(0.5)


def test_warm_up_as_long_as_the_run_never_decays():
    cfg = ScheduleConfig(warmup_steps=10, peak_lr=1.0)
    assert lr_at(9, cfg, 10) == pytest.approx(1.0)


def test_one_step_runs_have_a_rate():
    assert lr_at(0, ScheduleConfig(warmup_steps=0, peak_lr=1.0), 1) > 0


def test_wsd_stays_at_the_peak_and_falls_evenly_over_its_cooldown():
    cfg = ScheduleConfig(
        warmup_steps=10, peak_lr=1.0, min_lr_ratio=0.0, kind="wsd", cooldown_steps=20
    )
    assert [lr_at(step, cfg, 101) for step in (10, 50, 80)] == [1.0] * 3
    falling = [lr_at(step, cfg, 101) for step in (85, 90, 100, 200)]
    assert falling == pytest.approx([0.75, 0.5, 0, 0])


def test_a_longer_wsd_run_uses_the_same_rates_up_to_the_shorter_ones_cooldown():
    cfg = ScheduleConfig(kind="wsd", cooldown_steps=20)
    assert all(lr_at(step, cfg, 200) == lr_at(step, cfg, 900) for step in range(180))


def test_the_batch_of_glm_130b_grows_by_24_rows_in_168_increments():
    cfg = TrainConfig(batch_rows=4224, micro_batch_rows=24, ramp_from_rows=192, ramp_rows=5_493_164)
    sizes = sorted({cfg.rows_at(row) for row in range(0, 5_600_000, 1000)})
    assert sizes == list(range(192, 4225, 24))
    assert cfg.rows_at(5_493_163) < 4224 == cfg.rows_at(5_493_164)


def test_a_decay_may_end_before_the_run():
    cfg = ScheduleConfig(
        decay_steps=101, warmup_steps=10, peak_lr=1.0, min_lr_ratio=0.1, kind="cosine"
    )
    assert [lr_at(step, cfg, 201) for step in (55, 100, 200)] == pytest.approx([0.55, 0.1, 0.1])


def test_the_released_forms_start_at_zero_and_reach_the_peak_after_warm_up():
    cfg = ScheduleConfig(warmup_steps=10, peak_lr=1.0, kind="glm_cosine")
    assert [lr_at(step, cfg, 110) for step in (0, 1, 10)] == pytest.approx([0.0, 0.1, 1.0])


def test_the_released_cosine_is_held_at_its_end_and_the_released_line_is_not():
    # Over 100 steps after 10 of warm-up to a tenth: halfway at 60, there at 110.
    for schedule, later in (("glm_cosine", 0.1), ("glm_linear", 0.01)):
        cfg = ScheduleConfig(
            decay_steps=110, warmup_steps=10, peak_lr=1.0, min_lr_ratio=0.1, kind=schedule
        )
        rates = [lr_at(step, cfg, 121) for step in (60, 110, 120)]
        assert rates == pytest.approx([0.55, 0.1, later])


def test_the_embeddings_share_is_held_then_rises_to_one():
    cfg = ScheduleConfig(shrink_hold_steps=100, shrink_rise_steps=10)
    shares = [shrink_at(step, 0.1, cfg) for step in (0, 100, 105, 110, 5000)]
    assert shares == pytest.approx([0.1, 0.1, 0.55, 1.0, 1.0])


def test_without_a_schedule_the_share_is_held_for_good():
    assert shrink_at(10**6, 0.1, ScheduleConfig()) == 0.1


def test_a_share_that_is_held_but_never_rises_is_a_mistake():
    with pytest.raises(ConfigError, match="shrink_hold_steps=5 needs"):
        ScheduleConfig(shrink_hold_steps=5)
