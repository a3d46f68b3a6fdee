import math
import random

import pytest

from blankfill.guard.guards import Guard, robust_limit


def test_the_limit_is_the_median_and_k_robust_deviations():
    middle, limit = robust_limit([1.0, 2.0, 3.0, 4.0, 100.0], 2.0)
    assert (middle, limit) == (3.0, pytest.approx(3.0 + 2 * 1.4826))


def test_one_outlier_does_not_move_the_limit():
    values = [3.0 + 0.1 * (i % 5) for i in range(32)]
    assert robust_limit([*values, 1e6], 8.0)[1] == pytest.approx(robust_limit(values, 8.0)[1], 0.2)


def test_ordinary_noise_on_a_falling_loss_is_no_spike():
    rng, guard = random.Random(0), Guard(128, 8.0)
    for step in range(5000):
        loss = 3 + 6 * math.exp(-step / 300) + rng.gauss(0, 0.05)
        norm = math.exp(rng.gauss(0, 0.3))
        assert guard.judge(loss, norm) is None
        guard.accept(loss, norm)


@pytest.mark.parametrize(
    ("loss", "norm", "kind"),
    [(4.0, 1.0, "loss spike"), (3.0, 50.0, "gradient spike"), (math.nan, 1.0, "not finite"),
     (3.0, math.inf, "not finite")],
)  # fmt: skip
def test_spikes_and_values_that_are_not_finite_are_told_apart(loss, norm, kind):
    rng, guard = random.Random(1), Guard(32, 8.0)
    for _ in range(32):
        guard.accept(3 + rng.gauss(0, 0.05), math.exp(rng.gauss(0, 0.3)))
    found = guard.judge(loss, norm)
    assert found is not None
    assert found.kind == kind


def test_a_guard_needs_a_quarter_of_its_window_before_it_reports_a_spike():
    guard = Guard(32, 8.0)
    for _ in range(7):
        guard.accept(3.0, 1.0)
    assert guard.judge(100.0, 1.0) is None
    guard.accept(3.0, 1.0)
    assert guard.judge(100.0, 1.0) is not None


def test_a_guard_goes_on_from_its_state():
    first, second = Guard(16, 8.0), Guard(16, 8.0)
    for i in range(40):
        first.accept(3 + 0.1 * (i % 3), 1.0)
    second.load(*first.window())
    assert second.window() == first.window()
    assert first.judge(9.0, 1.0) is not None
    assert second.judge(9.0, 1.0) == first.judge(9.0, 1.0)
