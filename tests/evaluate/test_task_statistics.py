"""Errors, intervals and tests, on simulated items whose truth is known."""

import itertools
import math

import numpy as np
import pytest

from blankfill.evaluate.compare import bootstrap_p, compare_items, draw_weights, holm, mcnemar_p
from blankfill.evaluate.intervals import estimate, student_p, student_quantile


@pytest.mark.parametrize(
    ("t", "degrees", "p"),  # of tables of Student's t
    [(12.7062047, 1, 0.05), (4.30265273, 2, 0.05), (2.22813885, 10, 0.05), (1.98397152, 100, 0.05),
     (1.95996398, 10**8, 0.05), (63.6567412, 1, 0.01), (0.0, 5, 1.0)],
)  # fmt: skip
def test_quantiles_of_t_are_those_of_the_tables(t, degrees, p):
    assert student_p(t, degrees) == pytest.approx(p, rel=1e-6)
    assert student_p(-t, degrees) == student_p(t, degrees)
    if t:
        assert student_quantile(1 - p, degrees) == pytest.approx(t, rel=1e-6)


def test_mcnemar_is_the_binomial_test_of_a_fair_coin():
    for first, second in itertools.product(range(9), range(9)):
        n, k = first + second, min(first, second)
        expected = min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)
        assert mcnemar_p(first, second) == pytest.approx(expected, rel=1e-12)
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(10_000, 10_400) == pytest.approx(0.0052, abs=5e-4)


def test_holm_steps_down_and_never_below_a_smaller_one():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, None, 0.6]) == [1.0, None, 1.0]
    assert holm([]) == []


def share_of_items(rng, num_clusters, size, p, spread):
    """Right answers in passages of unlike difficulty: `[clusters, size]`, of mean p."""
    if not spread:
        return (rng.random((num_clusters, size)) < p).astype(float)
    level = rng.beta(p / spread, (1 - p) / spread, (num_clusters, 1))
    return (rng.random((num_clusters, size)) < level).astype(float)


DESIGNS = {
    "independent": (300, 1, 0.4, 0.0), "few and nearly all right": (60, 1, 0.93, 0.0),
    "passages of ten": (60, 10, 0.5, 0.5), "passages of four": (150, 4, 0.8, 0.3),
}  # fmt: skip


def covered(design, repeats, seed):
    num_clusters, size, p, spread = DESIGNS[design]
    rng = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(num_clusters), size)
    hits = 0
    for _ in range(repeats):
        found = estimate(
            share_of_items(rng, num_clusters, size, p, spread).ravel(), clusters, is_share=True
        )
        hits += found.low <= p <= found.high
    return hits / repeats


@pytest.mark.parametrize("design", DESIGNS)
def test_intervals_hold_the_truth_as_often_as_they_say_in_400_experiments(design):
    assert 0.92 <= covered(design, 400, 1) <= 0.985  # 95 % give or take 3 errors of 0.011


@pytest.mark.slow
@pytest.mark.parametrize("design", DESIGNS)
def test_intervals_hold_the_truth_in_93_to_97_of_100_of_2000_experiments(design):
    assert 0.93 <= covered(design, 2_000, 2) <= 0.97


def test_errors_that_ignore_passages_would_not_hold_the_truth():
    num_clusters, size, p, spread = DESIGNS["passages of ten"]
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(300):
        values = share_of_items(rng, num_clusters, size, p, spread).ravel()
        found = estimate(values, np.arange(len(values)), is_share=True)
        hits += found.low <= p <= found.high
    assert hits / 300 < 0.8


def test_intervals_of_bits_per_byte_hold_the_truth():
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(400):
        sizes = rng.integers(500, 4_000, 50).astype(float)
        bits = sizes * (2 + 0.2 * rng.standard_normal(50)) + 100 * rng.standard_normal(50)
        found = estimate(bits, np.arange(50), sizes, is_share=False)
        hits += found.low <= 2 <= found.high
    assert 0.92 <= hits / 400 <= 0.98


def rejected_by_bootstrap(repeats, num_clusters, seed, num_draws=2_000):
    """Share of experiments in which two equal runs are told apart, their passages of unlike sizes.

    Answers of both to one passage are alike, and so are those of each run.
    """
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 9, (repeats, num_clusters))
    level = rng.beta(1.2, 1.0, (repeats, num_clusters))
    own = rng.normal(0, 0.15, (2, repeats, num_clusters))
    right = [rng.binomial(sizes, np.clip(level + each, 0, 1)) for each in own]
    above = (right[0] - right[1]).astype(float)
    weights = draw_weights(num_clusters, num_draws, seed)
    p = np.concatenate([
        bootstrap_p(above[k : k + 200], sizes[k : k + 200].astype(float), weights)
        for k in range(0, repeats, 200)
    ])  # fmt: skip
    return float((p <= 0.05).mean())


def test_equal_runs_are_rarely_told_apart_passages_included():
    assert 0.025 <= rejected_by_bootstrap(600, 80, 5, 1_000) <= 0.08


@pytest.mark.slow
@pytest.mark.parametrize("num_clusters", [50, 150])
def test_the_bootstrap_rejects_4_to_6_of_100_equal_runs_in_2000(num_clusters):
    assert 0.04 <= rejected_by_bootstrap(2_000, num_clusters, 6) <= 0.06


def rejected_by_mcnemar(repeats, num_items, seed):
    rng = np.random.default_rng(seed)
    discordant = rng.binomial(num_items, 0.3, repeats)
    first = rng.binomial(discordant, 0.5)
    p = [mcnemar_p(a, n - a) for a, n in zip(first.tolist(), discordant.tolist(), strict=True)]
    return float((np.array(p) <= 0.05).mean())


def test_mcnemar_rejects_4_to_6_of_100_equal_runs_in_2000():
    assert 0.04 <= rejected_by_mcnemar(2_000, 3_000, 7) <= 0.06


def test_a_real_difference_is_found_and_its_interval_holds_it():
    rng = np.random.default_rng(8)
    hits = found = 0
    for _ in range(60):
        level = rng.beta(2, 2, (100, 1))
        a = (rng.random((100, 6)) < np.clip(level + 0.1, 0, 1)).astype(float)
        b = (rng.random((100, 6)) < level).astype(float)
        truth = 0.1 - np.maximum(level + 0.1 - 1, 0).mean()
        one = compare_items(a.ravel(), b.ravel(), np.repeat(np.arange(100), 6), num_draws=500)
        assert one.test == "paired cluster bootstrap"
        assert one.difference == pytest.approx(one.first - one.second)
        hits += one.low - 0.02 <= truth <= one.high + 0.02
        found += one.p < 0.05
    assert hits >= 55
    assert found >= 45  # the smallest detectable difference is about 0.08


def test_four_of_five_experiments_find_the_smallest_detectable_difference():
    rng = np.random.default_rng(9)
    n, found, smallest = 2_000, 0, []
    for _ in range(300):
        alone = rng.random(n)
        # Each is alone right in 10 %, and the first in 3 % more.
        a, b = alone < 0.115, (alone > 0.5) & (alone < 0.585)
        one = compare_items(a.astype(float), b.astype(float), np.arange(n))
        assert one.test == "exact McNemar"
        smallest.append(one.smallest)
        found += one.p < 0.05
    detectable = float(np.mean(smallest))
    assert detectable == pytest.approx(2.8 * math.sqrt(0.2 / n), rel=0.05)
    assert 0.70 <= found / 300 <= 0.99  # 0.03 is a little more than detectable, 0.028


def test_independent_answers_are_told_by_mcnemar_and_others_are_not():
    a, b = np.array([1.0, 1, 0, 1]), np.array([0.0, 1, 0, 0])
    assert compare_items(a, b, range(4)).test == "exact McNemar"
    assert compare_items(a, b, range(4)).p == mcnemar_p(2, 0)
    for values, clusters, sizes in [
        (a / 2, range(4), None), (a, [0, 0, 1, 1], None), (a, range(4), [1, 2, 3, 4.0]),
    ]:  # fmt: skip
        assert compare_items(values, b, clusters, sizes).test == "paired cluster bootstrap"
    same = compare_items(a, a, [0, 0, 1, 1])
    assert (same.difference, same.p) == (0, 1)
    alone = compare_items(a, b, [3, 3, 3, 3])
    assert (alone.p, alone.standard_error, alone.low) == (None, None, None)


def test_all_right_is_not_certain():
    found = estimate(np.ones(20), np.arange(20), is_share=True)
    assert (found.value, found.standard_error, found.high) == (1, 0, pytest.approx(1))
    assert 0.75 < found.low < 0.9
    assert estimate([1.0, 1.0], ["a", "a"], is_share=True).low is None
