"""The families of generalized linear models, their links, and what they predict of a target.

A fit predicts a `Law` for each item: the distribution of its target. All that is measured, whoever
made the fit, is asked of it: log density, deviance, distribution function, mean and variance.
Sources: McCullagh and Nelder 1989; Dunn and Smyth 1996 (randomised quantile residuals need the
distribution function on both sides of a jump).

Shapes: n items, K classes or levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from blankfill.probe.names import CATEGORICAL, COUNTS, FamilyName

__all__ = ["Float64", "Law", "dispersion_of", "marginal_law"]

Float64 = npt.NDArray[np.float64]
SMALLEST = 1e-12
"""Least probability or mean that is taken a logarithm of."""
LARGEST = 1e12


@dataclass(frozen=True, slots=True, eq=False)
class Law:
    """The distribution of the target that is predicted for each of some items."""

    family: FamilyName
    """Which distribution."""
    mean: Float64
    """`[n]` means; of classes and levels `[n, K]` probabilities."""
    dispersion: Float64
    """`[n]` the Gaussian's variance, the Gamma's squared coefficient of variation, the negative
    binomial's alpha (variance mu + alpha mu^2); not read of the others."""

    @classmethod
    def joined(cls, laws: Sequence[Law], folds: Sequence[npt.NDArray[np.int64]]) -> Law:
        """Put the laws of folds together in the order of the items."""
        order = np.argsort(np.concatenate([*folds]))
        mean = np.concatenate([law.mean for law in laws])[order]
        return cls(laws[0].family, mean, np.concatenate([law.dispersion for law in laws])[order])

    @classmethod
    def of(cls, family: FamilyName, mean: Float64, dispersion: float | Float64 = 1.0) -> Law:
        """Build a law, its means kept inside what the family allows."""
        mean = np.asarray(mean, np.float64)
        if family in CATEGORICAL:
            mean = np.clip(mean, SMALLEST, None)
            mean = mean / mean.sum(1, keepdims=True)
        elif family != "gaussian":
            mean = np.clip(mean, SMALLEST, LARGEST)
        spread = np.clip(np.asarray(dispersion, np.float64), SMALLEST, LARGEST)
        return cls(family, mean, np.broadcast_to(spread, mean.shape[:1]).copy())

    def take(self, items: npt.NDArray[np.int64]) -> Law:
        """Give the same of some items."""
        return Law(self.family, self.mean[items], self.dispersion[items])

    def log_density(self, y: Float64) -> Float64:
        """`[n]` log density of targets, log probability where they are classes or counts."""
        if self.family in CATEGORICAL:
            return np.log(self.mean[np.arange(len(y)), y.astype(int)])
        match self.family:
            case "poisson":
                return stats.poisson.logpmf(y, self.mean)
            case "negative-binomial":
                return stats.nbinom.logpmf(y, *self._size())
            case "gaussian":
                return stats.norm.logpdf(y, self.mean, np.sqrt(self.dispersion))
            case _:
                return stats.gamma.logpdf(y, *self._shape())

    def log_mass(self, y: Float64) -> Float64:
        """`[n]` log probability of whole numbers, of a continuous law that of the unit around them:
        what is comparable over families."""
        if self.family in CATEGORICAL or self.family in COUNTS:
            return self.log_density(y)
        # From the tail that y lies in, where the difference keeps its digits.
        low, high = self._tails(y - 0.5), self._tails(y + 0.5)
        upper = low[0] > 0.5
        mass = np.where(upper, low[1] - high[1], high[0] - low[0])
        return np.log(np.clip(mass, 1e-300, None))

    def deviance(self, y: Float64) -> Float64:
        """`[n]` unit deviances: twice what the log likelihood lacks to its largest value, times
        the dispersion where the family has one."""
        if self.family in CATEGORICAL:
            return -2 * self.log_density(y)
        mu = self.mean
        with np.errstate(divide="ignore", invalid="ignore"):
            of_log = np.where(y > 0, y * np.log(np.where(y > 0, y, 1.0) / mu), 0.0)
        match self.family:
            case "poisson":
                return 2 * (of_log - (y - mu))
            case "negative-binomial":
                size = 1 / self.dispersion
                return 2 * (of_log - (y + size) * np.log((y + size) / (mu + size)))
            case "gaussian":
                return (y - mu) ** 2
            case _:
                return 2 * ((y - mu) / mu - np.log(y / mu))

    def cdf(self, y: Float64) -> Float64:
        """`[n]` probability of at most the target; classes in the order of their numbers."""
        if self.family in CATEGORICAL:
            return np.cumsum(self.mean, 1)[np.arange(len(y)), y.astype(int)]
        return self._tails(y)[0]

    def below(self, y: Float64) -> Float64:
        """`[n]` probability of less than the target: `cdf` where the law has no jumps."""
        if self.family in CATEGORICAL:
            return self.cdf(y) - self.mean[np.arange(len(y)), y.astype(int)]
        return self.cdf(y - 1) if self.family in COUNTS else self.cdf(y)

    def expected(self) -> Float64:
        """`[n]` means; of classes and levels those of their numbers."""
        if self.family in CATEGORICAL:
            return self.mean @ np.arange(self.mean.shape[1])
        return self.mean

    def variance(self) -> Float64:
        """`[n]` variances of the target, by the family's variance function."""
        mu = self.mean
        if self.family in CATEGORICAL:
            numbers = np.arange(mu.shape[1])
            return mu @ numbers**2 - (mu @ numbers) ** 2
        match self.family:
            case "poisson":
                return mu
            case "negative-binomial":
                return mu + self.dispersion * mu**2
            case "gaussian":
                return self.dispersion
            case _:
                return self.dispersion * mu**2

    def zero(self) -> Float64:
        """`[n]` probability of a count of zero."""
        return np.exp(self.log_density(np.zeros(len(self.mean))))

    def _size(self) -> tuple[Float64, Float64]:
        size = 1 / self.dispersion
        return size, size / (size + self.mean)

    def _shape(self) -> tuple[Float64, float, Float64]:
        shape = 1 / self.dispersion
        return shape, 0.0, self.mean / shape

    def _tails(self, y: Float64) -> tuple[Float64, Float64]:
        """Give the probabilities of at most y and of more."""
        match self.family:
            case "poisson":
                return stats.poisson.cdf(y, self.mean), stats.poisson.sf(y, self.mean)
            case "negative-binomial":
                return stats.nbinom.cdf(y, *self._size()), stats.nbinom.sf(y, *self._size())
            case "gaussian":
                scale = np.sqrt(self.dispersion)
                return stats.norm.cdf(y, self.mean, scale), stats.norm.sf(y, self.mean, scale)
            case _:
                return stats.gamma.cdf(y, *self._shape()), stats.gamma.sf(y, *self._shape())


def dispersion_of(family: FamilyName, mean: Float64, y: Float64) -> float:
    """Estimate the one dispersion of given means, by maximum likelihood; 1 where there is none."""
    if family == "gaussian":
        return max(float(np.mean((y - mean) ** 2)), SMALLEST)
    if family not in ("gamma", "negative-binomial"):
        return 1.0

    def lack(log_dispersion: float) -> float:
        return -float(Law.of(family, mean, float(np.exp(log_dispersion))).log_density(y).sum())

    found = _minimum(lack, -16.0, 8.0)
    return float(np.exp(found))


def marginal_law(
    family: FamilyName, y: Float64, exposure: Float64, num_classes: int
) -> Callable[[Float64], Law]:
    """Give the law that knows no item: shares of the classes, or one rate.

    Args:
        family: which distribution.
        y: `[n]` targets that it is estimated of.
        exposure: `[n]` ones where there is none.
        num_classes: K; a class that does not occur keeps a small probability.

    Returns:
        A function of the `[m]` exposures of other items.
    """
    if family in CATEGORICAL:
        shares = (np.bincount(y.astype(int), minlength=num_classes) + 1 / num_classes) / (
            len(y) + 1
        )
        return lambda of: Law.of(family, np.tile(shares, (len(of), 1)))
    rate = (
        max(float(y.sum() / exposure.sum()), SMALLEST) if family != "gaussian" else float(y.mean())
    )
    spread = dispersion_of(family, rate * exposure, y)
    return lambda of: Law.of(family, rate * of, spread)


def _minimum(function: Callable[[float], float], low: float, high: float) -> float:
    """Minimise a function of one number: on a grid, then between its neighbours."""
    grid = np.linspace(low, high, 25)
    values = [function(float(x)) for x in grid]
    k = int(np.argmin(values))
    bounds = (float(grid[max(0, k - 1)]), float(grid[min(24, k + 1)]))
    found = optimize.minimize_scalar(function, bounds=bounds, method="bounded",
                                     options={"xatol": 1e-9})  # fmt: skip
    return float(found.x)
