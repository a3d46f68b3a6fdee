"""Which family is chosen, and whether the diagnostics know a wrong one."""

from collections import Counter

import numpy as np
import pytest

pytest.importorskip("statsmodels")

from scipy import stats

from blankfill.probe.choose import admissions, choose_family, compare
from blankfill.probe.components import collinearity_of, is_separated
from blankfill.probe.diagnose import (
    calibrate,
    diagnose,
    quantile_residuals,
    variance_points,
    worm,
)
from blankfill.probe.explain import fit_task
from blankfill.probe.families import Law
from blankfill.probe.names import LINKS
from probe.planted import WHOLE, plant, task_of


def chosen(family, seed, n=500):
    columns, y, _, _ = plant(family, LINKS[family][0], n=n, seed=seed)
    values = [int(v) for v in y] if family in WHOLE else y.tolist()
    if family == "multinomial":
        values = ["abcd"[v] for v in values]
    levels, codes = np.unique(y, return_inverse=True)
    return choose_family(compare(
        task_of("gaussian", y), task_of("ordinal", codes.astype(float), len(levels)), columns,
        admissions(values, ordered=False),
    ))  # fmt: skip


@pytest.mark.parametrize("family", LINKS)
def test_auto_takes_the_planted_family(family):
    assert [chosen(family, seed) for seed in range(3)] == [family] * 3


@pytest.mark.slow
@pytest.mark.parametrize("family", LINKS)
def test_auto_takes_the_planted_family_in_ninety_of_a_hundred(family):
    assert Counter(chosen(family, 1000 + seed) for seed in range(100))[family] >= 90


@pytest.mark.parametrize(
    ("values", "admitted"),
    [
        (["a", "b"], {"binomial"}),
        ([0, 1], {"binomial"}),
        (["a", "b", "c"], {"multinomial"}),
        ([0, 1, 2], {"multinomial", "ordinal", "poisson", "negative-binomial", "gaussian"}),
        ([1, 2, 3], {"multinomial", "ordinal", "poisson", "negative-binomial", "gaussian",
                     "gamma"}),
        (list(range(20)), {"poisson", "negative-binomial", "gaussian"}),
        ([-1, 0, 1], {"multinomial", "ordinal", "gaussian"}),
        ([0.5, 1.5, 2.5], {"gaussian", "gamma"}),
        ([-0.5, 1.5, 2.5], {"gaussian"}),
    ],
)  # fmt: skip
def test_a_target_admits_what_its_values_are(values, admitted):
    found = admissions(values, ordered=False)
    assert {each.family for each in found if not each.reason} == admitted
    assert {each.family for each in found} == set(LINKS)


def test_words_in_an_order_are_levels_and_an_exposure_is_for_counts():
    assert [each.family for each in admissions(["a", "b", "c"], ordered=True) if not each.reason] \
        == ["ordinal"]  # fmt: skip
    found = admissions([0, 1, 2, 30], ordered=False, exposed=True)
    assert {each.family for each in found if not each.reason} == {"poisson", "negative-binomial"}


@pytest.mark.parametrize("family", LINKS)
def test_quantile_residuals_of_the_right_family_are_normal(family):
    columns, y, _, num_classes = plant(family, LINKS[family][0], n=1500, seed=3)
    task = task_of(family, y, num_classes)
    fitted = fit_task(task, LINKS[family][0], columns)
    residuals = quantile_residuals(fitted.law(columns, task.exposure), y)
    assert stats.shapiro(residuals).pvalue > 0.01
    assert residuals.std() == pytest.approx(1, abs=0.06)
    seen = diagnose(task, LINKS[family][0], fitted, columns)
    assert all(test.p_value > 0.001 for test in seen.tests), seen.tests


def test_a_poisson_on_negative_binomial_counts_is_found_out():
    columns, y, _, _ = plant("negative-binomial", "log", n=600, seed=3)
    task = task_of("poisson", y)
    fitted = fit_task(task, "log", columns)
    assert stats.shapiro(quantile_residuals(fitted.law(columns, task.exposure), y)).pvalue < 1e-4
    tests = {test.name: test for test in diagnose(task, "log", fitted, columns).tests}
    assert tests["normality"].p_value < 1e-3
    assert tests["dispersion"].p_value < 1e-6
    assert tests["dispersion"].found > 1.5
    assert tests["zeros"].found > tests["zeros"].expected
    assert tests["zeros"].p_value < 1e-3


def test_a_wrong_link_is_found_out():
    columns, y, _, _ = plant("poisson", "sqrt", n=3000)
    found = {}
    for link in ("log", "sqrt"):
        task = task_of("poisson", y)
        seen = diagnose(task, link, fit_task(task, link, columns), columns)
        found[link] = next(test.p_value for test in seen.tests if test.name == "link")
    assert found["log"] < 0.01 < found["sqrt"]


def test_the_dispersion_test_rejects_the_right_model_as_often_as_it_says():
    rejected = []
    for seed in range(100):
        columns, y, _, _ = plant("poisson", "log", n=300, seed=seed)
        task = task_of("poisson", y)
        fitted = fit_task(task, "log", columns)
        tests = {t.name: t for t in diagnose(task, "log", fitted, columns).tests}
        rejected.append([tests[name].p_value < 0.05 for name in ("dispersion", "link")])
    share = np.mean(rejected, 0)
    assert share.max() <= 0.11  # three standard errors above 0.05


def test_an_outlier_is_influential():
    columns, y, _, _ = plant("gaussian", "identity", n=300)
    columns[7], y[7] = 4.0, -20.0
    task = task_of("gaussian", y)
    seen = diagnose(task, "identity", fit_task(task, "identity", columns), columns)
    assert seen.influential[0] == 7


def test_a_worm_of_normal_residuals_lies_in_its_band():
    residuals = np.random.default_rng(0).normal(size=400)
    normal, above, band = worm(residuals)
    assert (np.abs(above) < band).mean() > 0.9
    assert np.allclose(np.sort(residuals), normal + above)


def test_calibration_knows_the_right_slope():
    rng = np.random.default_rng(0)
    eta = rng.normal(size=4000)
    y = rng.binomial(1, 1 / (1 + np.exp(-eta))).astype(float)

    def law(of):
        share = 1 / (1 + np.exp(-of))
        return Law.of("binomial", np.column_stack([1 - share, share]))

    right, extreme = calibrate(law(eta), y), calibrate(law(3 * eta), y)
    assert right.slope == pytest.approx(1, abs=3 * right.slope_error)
    assert extreme.slope == pytest.approx(1 / 3, abs=3 * extreme.slope_error)
    assert right.error < 0.03 < extreme.error
    assert sum(count for *_, count in right.points) == 4000


def test_the_variance_function_is_beside_the_residuals():
    columns, y, _, _ = plant("poisson", "log", n=4000)
    law = fit_task(task_of("poisson", y), "log", columns).law(columns, np.ones(4000))
    for _, said, was in variance_points(law, y):
        assert was == pytest.approx(said, rel=0.35)


def test_separation_is_found_and_nothing_else():
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(80, 2))
    apart = (columns @ [1, 1] > 0.3).astype(float)
    assert is_separated("binomial", columns, apart, 2)
    quasi = apart.copy()
    on_plane = columns.copy()
    on_plane[:2] = 0
    quasi[:2] = [0, 1]
    flat = on_plane[:, :1]
    assert is_separated("binomial", flat, np.where(flat[:, 0] == 0, quasi, flat[:, 0] > 0), 2)
    apart[:20] = 1 - apart[:20]
    assert not is_separated("binomial", columns, apart, 2)
    levels = np.digitize(columns[:, 0], [-0.5, 0.5]).astype(float)
    assert is_separated("ordinal", columns, levels, 3)
    assert is_separated("multinomial", columns, levels, 3)
    levels[:30] = rng.integers(0, 3, 30)
    assert not is_separated("ordinal", columns, levels, 3)
    assert not is_separated("multinomial", columns, levels, 3)


def test_collinear_and_constant_columns_are_counted():
    columns = np.random.default_rng(0).normal(size=(200, 4))
    found = collinearity_of(np.column_stack([columns, columns[:, 0] + columns[:, 1], np.ones(200)]))
    assert (found.columns, found.constant, found.rank) == (6, 1, 4)
    almost = columns[:, 0] + 0.01 * np.random.default_rng(1).normal(size=200)
    near = collinearity_of(np.column_stack([columns, almost]))
    assert near.number > 30
    assert near.correlation > 0.99
    assert collinearity_of(columns).number < 3
