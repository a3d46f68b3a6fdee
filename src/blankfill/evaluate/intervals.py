"""Errors and intervals of a task's score, items that share a passage taken together.

A score is a ratio of two sums over items (right answers over items, bits over bytes), a passage
with its items is one draw: a cluster. The standard error is that of the linearised ratio
(`statistics.ratio_of_sums`). The 95 % interval of a share is Wilson's (1927), with as many trials
as would give this error if they were independent (Korn and Graubard 1998), and never reaches below
0 or beyond 1; of any other ratio it is the ratio's error times the quantile of Student's t. Degrees
of freedom are the clusters less one.

Without scipy: quantiles come from the incomplete beta function, as a continued fraction (Numerical
Recipes, section 6.4).

Shapes: n items.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from blankfill.evaluate.statistics import ratio_of_sums
from blankfill.runs.tasks import TaskEstimate

__all__ = ["LEVEL", "estimate", "student_p", "student_quantile"]

LEVEL = 0.95
"""Share of intervals that hold the true value."""


def estimate(
    values: npt.ArrayLike, clusters: Sequence[str] | npt.NDArray[np.int64],
    sizes: npt.ArrayLike | None = None, *, is_share: bool,
) -> TaskEstimate:  # fmt: skip
    """Estimate a score from its items.

    Args:
        values: `[n]` such as 1 where an answer is right.
        clusters: `[n]` equal in items that are not independent.
        sizes: `[n]` what the values are divided by; 1 each where not given.
        is_share: whether every value lies between 0 and its size.

    Returns:
        The ratio, its standard error and its interval; no error where there is one cluster.
    """
    above = np.asarray(values, np.float64)
    below = np.ones_like(above) if sizes is None else np.asarray(sizes, np.float64)
    _, owner = np.unique(np.asarray(clusters), return_inverse=True)
    found = ratio_of_sums(above, below, owner)
    num_clusters = int(owner.max()) + 1
    value, error = found.value, found.standard_error
    if error is None:
        return TaskEstimate(value=value)
    quantile = student_quantile(LEVEL, num_clusters - 1)
    if is_share:
        low, high = _wilson(value, error, quantile, num_clusters)
    else:
        low, high = value - quantile * error, value + quantile * error
    return TaskEstimate(value=value, standard_error=error, low=low, high=high)


def _wilson(value: float, error: float, quantile: float, num_clusters: int) -> tuple[float, float]:
    spread = value * (1 - value)
    # Where all answers are right, or wrong, nothing tells how alike those of a cluster are.
    trials = spread / error**2 if error > 0 and spread > 0 else float(num_clusters)
    squared = quantile**2
    middle = (value + squared / (2 * trials)) / (1 + squared / trials)
    half = (
        quantile * math.sqrt(spread / trials + squared / (4 * trials**2)) / (1 + squared / trials)
    )
    return max(0.0, middle - half), min(1.0, middle + half)


@functools.cache
def student_quantile(level: float, degrees: int) -> float:
    """Give the bound that |t| stays below with some probability.

    Args:
        level: the probability, such as 0.95.
        degrees: degrees of freedom, at least 1.
    """
    low, high = 0.0, NormalDist().inv_cdf((1 + level) / 2)
    while student_p(high, degrees) > 1 - level:
        low, high = high, high * 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if student_p(middle, degrees) > 1 - level else (low, middle)
    return (low + high) / 2


def student_p(t: float, degrees: int) -> float:
    """Give the probability that |t| is at least this."""
    return _beta(degrees / (degrees + t * t), degrees / 2, 0.5)


def _beta(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    if x > (a + 1) / (a + b + 2):
        return 1 - front * _fraction(1 - x, b, a) / b
    return front * _fraction(x, a, b) / a


def _fraction(x: float, a: float, b: float) -> float:
    """Continued fraction of the incomplete beta function, by Lentz's method."""
    tiny = 1e-300
    c, d = 1.0, 1 / ((1 - (a + b) * x / (a + 1)) or tiny)
    found = d
    for m in range(1, 10_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / ((1 + term * d) or tiny)
            c = (1 + term / c) or tiny
            found *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return found
