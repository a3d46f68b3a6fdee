"""Whether a family fits: residuals, dispersion, zeros, influence, the link, calibration.

Randomised quantile residuals (Dunn and Smyth 1996) are standard normal where the family is right,
whatever it is: the probability of at most the target, drawn between both sides of a jump, through
the normal's inverse. A worm plot (van Buuren and Fredriks 2001) is their detrended normal plot.

Shapes: n items, k components, p parameters.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import statsmodels.api as sm
from scipy import stats

from blankfill.probe.explain import fit_task
from blankfill.probe.families import Float64, Law
from blankfill.probe.likelihood import Fitted, NoFitError
from blankfill.probe.names import CATEGORICAL, COUNTS, LinkName
from blankfill.probe.nested import Task
from blankfill.probe.outcome import Calibration, FitTest
from blankfill.rng import generator

__all__ = [
    "Diagnosis", "calibrate", "diagnose", "quantile_residuals", "variance_points", "worm",
]  # fmt: skip

LEAST_PROBABILITY = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Diagnosis:
    """All that is asked of a fit."""

    residuals: Float64
    """`[n]` quantile residuals."""
    tests: tuple[FitTest, ...]
    influence: Float64
    """`[n]` one-step Cook's distances."""
    influential: tuple[int, ...]
    """Items whose distance is above 4 / n, the largest first."""


def quantile_residuals(law: Law, y: Float64, *, seed: int = 0) -> Float64:
    """Draw `[n]` randomised quantile residuals."""
    low, high = law.below(y), law.cdf(y)
    u = low + (high - low) * generator(seed, "quantile residuals").random(len(y))
    return stats.norm.ppf(np.clip(u, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY))


def worm(residuals: Float64) -> tuple[Float64, Float64, Float64]:
    """Give a worm plot: normal quantiles, residuals less them, and half the 95 % band."""
    n = len(residuals)
    shares = (np.arange(1, n + 1) - 0.5) / n
    normal = stats.norm.ppf(shares)
    band = stats.norm.ppf(0.975) * np.sqrt(shares * (1 - shares) / n) / stats.norm.pdf(normal)
    return normal, np.sort(residuals) - normal, band


def diagnose(
    task: Task, link: LinkName, fitted: Fitted, design: Float64, *, seed: int = 0
) -> Diagnosis:
    """Examine a fit on the items that it was made of.

    Args:
        task: targets.
        link: that of the fit.
        fitted: the fit.
        design: `[n, k]` its components.
        seed: of the residuals.
    """
    law = fitted.law(design, task.exposure)
    residuals = quantile_residuals(law, task.y, seed=seed)
    tests = [_normality(residuals)]
    if task.family in COUNTS:
        tests += [_dispersion(task, law, design), _zeros(task, law)]
    if task.family != "multinomial" and design.shape[1]:
        tests += _link_test(task, link, fitted, design)
    distance = np.einsum("np,pq,nq->n", fitted.scores, fitted.covariance, fitted.scores)
    distance = distance / max(len(fitted.params), 1)
    order = np.argsort(-distance, kind="stable")
    above = [int(i) for i in order if distance[i] > 4 / len(distance)]
    return Diagnosis(
        residuals=residuals, tests=tuple(tests), influence=distance, influential=tuple(above)
    )


def calibrate(law: Law, y: Float64) -> Calibration:
    """Compare predictions of items left out with what came true.

    Of two classes the probability of the second; of several that of the most probable one, against
    whether it was right; of levels and numbers the mean.
    """
    said, was = _said_and_was(law, y)
    slope, slope_error, intercept = _slope(law, said, was)
    order = np.argsort(said, kind="stable")
    points: list[tuple[float, float, float, int]] = []
    for part in np.array_split(order, min(10, len(order))):
        spread = float(was[part].std(ddof=1)) / np.sqrt(len(part)) if len(part) > 1 else 0.0
        points.append((float(said[part].mean()), float(was[part].mean()), spread, len(part)))
    error = sum(abs(a - b) * count for a, b, _, count in points) / len(y)
    return Calibration(
        slope=slope, slope_error=slope_error, intercept=intercept, points=tuple(points), error=error
    )


def variance_points(law: Law, y: Float64) -> tuple[tuple[float, float, float], ...]:
    """Give, of each tenth of the items by mean: the mean, the variance that the family says, and
    the mean squared residual."""
    mean, said, was = law.expected(), law.variance(), (y - law.expected()) ** 2
    parts = np.array_split(np.argsort(mean, kind="stable"), min(10, len(y)))
    return tuple((float(mean[p].mean()), float(said[p].mean()), float(was[p].mean()))
                 for p in parts)  # fmt: skip


def _normality(residuals: Float64) -> FitTest:
    """D'Agostino and Pearson's test, and below twenty items Shapiro and Wilk's."""
    found = stats.normaltest(residuals) if len(residuals) >= 20 else stats.shapiro(residuals)
    return FitTest(name="normality", statistic=float(found.statistic), p_value=float(found.pvalue),
                found=float(residuals.std()), expected=1.0)  # fmt: skip


def _dispersion(task: Task, law: Law, design: Float64) -> FitTest:
    """Dean's test of a Poisson against a variance that grows with the mean; Pearson's of others."""
    free = max(len(task.y) - design.shape[1] - 1, 1)
    pearson = float(((task.y - law.mean) ** 2 / law.variance()).sum())
    if task.family == "poisson":
        # Dean 1992, test B: variance mu + alpha mu^2.
        square = (task.y - law.mean) ** 2 - task.y
        statistic = float(square.sum() / np.sqrt(2 * (law.mean**2).sum()))
    else:
        # A sum of squares has the variance of its parts, whatever these are.
        parts = (task.y - law.mean) ** 2 / law.variance()
        statistic = (pearson - free) / (float(parts.std(ddof=1)) * np.sqrt(len(parts)))
    return _two_sided("dispersion", statistic, pearson / free, 1.0)


def _zeros(task: Task, law: Law) -> FitTest:
    """Compare the number of zeros with the expected one (van den Broek 1995 for the Poisson)."""
    zero = law.zero()
    found, expected = float((task.y == 0).sum()), float(zero.sum())
    spread = float(np.sqrt((zero * (1 - zero)).sum()))
    statistic = (found - expected) / spread if spread else 0.0
    return _two_sided("zeros", statistic, found, expected)


def _link_test(task: Task, link: LinkName, fitted: Fitted, design: Float64) -> list[FitTest]:
    """Pregibon 1980: the square of the linear predictor adds nothing where the link is right."""
    slopes = _slopes(fitted, design.shape[1])
    eta = design @ slopes
    if not eta.std():
        return []
    eta = (eta - eta.mean()) / eta.std()
    try:
        larger = fit_task(task, link, np.column_stack([eta, eta**2]), clustered=True)
    except NoFitError:
        return []
    place = 1 if task.family == "ordinal" else 2
    statistic = float(larger.params[place] / larger.errors[place])
    return [_two_sided("link", statistic, float(larger.params[place]), 0.0)]


def _two_sided(name: str, statistic: float, found: float, expected: float) -> FitTest:
    """Make a test of a statistic that is standard normal where the fit is right."""
    p_value = 2 * float(stats.norm.sf(abs(statistic)))
    return FitTest(
        name=name, statistic=float(statistic), p_value=p_value, found=found, expected=expected
    )


def _slopes(fitted: Fitted, count: int) -> Float64:
    start = 0 if fitted.family == "ordinal" else 1
    return fitted.params[start : start + count]


def _said_and_was(law: Law, y: Float64) -> tuple[Float64, Float64]:
    if law.family == "binomial":
        return law.mean[:, 1], y
    if law.family == "multinomial":
        return law.mean.max(1), (law.mean.argmax(1) == y).astype(float)
    return law.expected(), y


def _slope(law: Law, said: Float64, was: Float64) -> tuple[float, float, float]:
    """Regress outcomes on predictions, both on the scale of the link."""
    if law.family in CATEGORICAL and law.family != "ordinal":
        family = sm.families.Binomial()
        at = np.clip(said, 1e-6, 1 - 1e-6)
        eta = np.log(at / (1 - at))
    elif law.family in ("gaussian", "ordinal"):
        family, eta = sm.families.Gaussian(), said
    else:
        family, eta = _log_family(law), np.log(said)
    if not eta.std() or not was.std():
        return float("nan"), float("nan"), float("nan")
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            design = np.column_stack([np.ones(len(eta)), eta])
            result = sm.GLM(was, design, family=family).fit(cov_type="HC0")
    except (np.linalg.LinAlgError, ValueError):
        return float("nan"), float("nan"), float("nan")
    return float(result.params[1]), float(result.bse[1]), float(result.params[0])


def _log_family(law: Law) -> object:
    families = sm.families
    return families.Gamma(families.links.Log()) if law.family == "gamma" else families.Poisson()
