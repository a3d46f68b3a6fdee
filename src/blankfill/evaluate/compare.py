"""Two runs on the items that both were asked: how large the difference is, and whether it is one.

The difference is paired, item by item; so it is known better than the two scores are. Where items
are right or wrong and independent, the test is McNemar's exact one: of the items that one run alone
has right, each is as likely one's as the other's. Elsewhere whole passages are drawn with
replacement, and the difference is measured in its own standard error each time (the paired cluster
bootstrap, studentised: Efron and Tibshirani 1993, section 16.4). Over several tasks p-values are
adjusted by Holm (1979).

Several seeds of one run count as one: of each item the mean over the seeds.

Shapes: n items, C clusters, B draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from blankfill.evaluate.intervals import LEVEL, student_quantile
from blankfill.results import short_repr
from blankfill.rng import generator

__all__ = [
    "NUM_DRAWS",
    "TaskDifference",
    "bootstrap_p",
    "compare_items",
    "draw_weights",
    "holm",
    "mcnemar_p",
]

NUM_DRAWS = 10_000
"""Draws of the bootstrap: a p-value of 0.05 is known to 0.002."""
POWER = 0.8
"""Share of experiments that find the smallest detectable difference."""

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskDifference:
    """Two runs on the same items of one task."""

    first: float
    """Score of the first run on the items that both were asked."""
    second: float
    """Score of the second."""
    difference: float
    """First less second."""
    standard_error: float | None
    """Of the difference, items of a passage taken together; None where there is one passage."""
    low: float | None
    """Lower end of its 95 % interval."""
    high: float | None
    """Its upper end."""
    smallest: float | None
    """The smallest difference that four of five such experiments would find, at 5 %."""
    test: str
    """exact McNemar, or paired cluster bootstrap."""
    p: float | None
    """Probability of a difference at least as large where there is none; None where there is one
    passage."""
    num_items: int
    """Items that both were asked."""
    num_clusters: int
    """Passages that they are of."""

    __repr__ = short_repr


def compare_items(
    first: npt.ArrayLike, second: npt.ArrayLike, clusters: npt.ArrayLike,
    sizes: npt.ArrayLike | None = None, *, seed: int = 0, num_draws: int = NUM_DRAWS,
) -> TaskDifference:  # fmt: skip
    """Compare two runs on the items that both were asked.

    Args:
        first: `[n]` what the first run's score sums, such as 1 where it is right.
        second: `[n]` the same of the second.
        clusters: `[n]` whole numbers, equal in items that are not independent.
        sizes: `[n]` what the sums are divided by; 1 each where not given.
        seed: of the bootstrap's draws.
        num_draws: how many.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    size = np.ones_like(a) if sizes is None else np.asarray(sizes, np.float64)
    _, owner = np.unique(np.asarray(clusters), return_inverse=True)
    above = np.asarray(np.bincount(owner, a - b), np.float64)
    below = np.asarray(np.bincount(owner, size), np.float64)
    count = len(above)
    value = float(above.sum() / below.sum())
    independent = count == len(a)
    binary = sizes is None and bool(np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all())
    exact = independent and binary
    error = None if count < 2 else float(_errors(above, below))
    low = high = smallest = p = None
    if error is not None:
        half = student_quantile(LEVEL, count - 1) * error
        low, high = value - half, value + half
        normal = NormalDist()
        smallest = error * (normal.inv_cdf((1 + LEVEL) / 2) + normal.inv_cdf(POWER))
        if exact:
            p = mcnemar_p(int((a > b).sum()), int((a < b).sum()))
        else:
            weights = draw_weights(count, num_draws, seed)
            p = float(bootstrap_p(above[None], below[None], weights)[0])
    return TaskDifference(
        first=float(a.sum() / size.sum()), second=float(b.sum() / size.sum()), difference=value,
        standard_error=error, low=low, high=high, smallest=smallest, p=p, num_items=len(a),
        num_clusters=count, test="exact McNemar" if exact else "paired cluster bootstrap",
    )  # fmt: skip


def mcnemar_p(first_alone: int, second_alone: int) -> float:
    """Give the exact two-sided p-value of McNemar's test.

    Args:
        first_alone: items that the first run alone has right.
        second_alone: items that the second alone has right.
    """
    total, fewer = first_alone + second_alone, min(first_alone, second_alone)
    if not total:
        return 1.0
    log_half = total * math.log(2)
    tail = math.fsum(
        math.exp(
            math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) - log_half
        )
        for k in range(fewer + 1)
    )
    return min(1.0, 2 * tail)


def draw_weights(count: int, num_draws: int, seed: int) -> Float64:
    """Draw clusters with replacement: `[B, C]` how often each is drawn."""
    draws = generator(seed, "bootstrap", count)
    return draws.multinomial(count, np.full(count, 1 / count), num_draws).astype(np.float64)


def bootstrap_p(above: Float64, below: Float64, weights: Float64) -> Float64:
    """Give the two-sided p-value of the studentised cluster bootstrap of a ratio of sums.

    Args:
        above: `[K, C]` of each cluster the sum of differences, for K experiments.
        below: `[K, C]` of each the sum of sizes.
        weights: `[B, C]` from `draw_weights`.

    Returns:
        `[K]`; 1 where no cluster differs.
    """
    count = above.shape[1]
    value = above.sum(1) / below.sum(1)
    error = _errors(above, below)
    # Under the null the ratio is 0; a draw's own ratio scatters around the one that was found.
    sums, sizes = above @ weights.T, below @ weights.T
    ratio = sums / sizes
    squares = (
        (above**2) @ weights.T - 2 * ratio * ((above * below) @ weights.T)
        + ratio**2 * ((below**2) @ weights.T)
    )  # fmt: skip
    errors = np.sqrt(np.maximum(squares, 0) * count / (count - 1)) / sizes
    # Draws of one cluster alone have no error; they speak for the null.
    scattered = np.abs(ratio - value[:, None])
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = np.where(errors > 0, scattered / errors, np.where(scattered > 0, np.inf, 0))
        found = np.where(error > 0, np.abs(value) / error, np.where(value != 0, np.inf, 0))
    extreme = (drawn >= found[:, None] - 1e-12).sum(1)
    p = (extreme + 1) / (weights.shape[0] + 1)
    return np.where(np.any(above != 0, axis=1), p, 1.0)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values for there being several, by Holm; None stays None."""
    order = sorted((p, k) for k, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, k) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        adjusted[k] = highest
    return adjusted


def _errors(above: Float64, below: Float64) -> Float64:
    """Give the standard error of ratios of sums over clusters, along the last axis."""
    count = above.shape[-1]
    ratio = above.sum(-1, keepdims=True) / below.sum(-1, keepdims=True)
    squares = ((above - ratio * below) ** 2).sum(-1)
    return np.sqrt(squares * count / (count - 1)) / below.sum(-1)
