"""Principal components of standardised columns, learnt from the items that a fit may see.

Shapes: n items, D columns, k components.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize
from sklearn.preprocessing import StandardScaler

from blankfill.probe.families import Float64
from blankfill.probe.names import CATEGORICAL, FamilyName
from blankfill.probe.outcome import Collinearity

__all__ = ["Components", "collinearity_of", "is_separated", "learn_components",
           "varying_columns"]  # fmt: skip

LEAST_SPREAD = 1e-9
"""A column whose standard deviation is less than this share of its size is constant."""
LEAST_SHARE = 1e-10
"""A component of less variance than this share of the first is what rounding left."""


@dataclass(frozen=True, slots=True, eq=False)
class Components:
    """A change of columns into components of variance 1, the largest first."""

    apply: Callable[[Float64, int], Float64]
    """Of `[m, D]` columns the first k components, `[m, k]`."""
    shares: Float64
    """Share of the variance of each."""

    @property
    def rank(self) -> int:
        """How many there are."""
        return len(self.shares)


def learn_components(features: Float64) -> Components:
    """Learn components; signs are such that the largest loading is positive."""
    scaler = StandardScaler().fit(features)
    made = np.asarray(scaler.transform(features))
    _, sizes, loadings = np.linalg.svd(np.asarray(made), full_matrices=False)
    variances = sizes**2 / max(len(features), 1)
    rank = int((variances > LEAST_SHARE * variances[0]).sum()) if variances[0] > 0 else 0
    rank = min(rank, len(features) - 1)
    loadings, variances = loadings[:rank], variances[:rank]
    if rank:
        largest = np.abs(loadings).argmax(1)
        loadings = loadings * np.sign(loadings[np.arange(rank), largest])[:, None]
    turn = (loadings / np.sqrt(variances)[:, None]).T

    def apply(other: Float64, k: int) -> Float64:
        return np.asarray(scaler.transform(other)) @ turn[:, :k]

    return Components(apply, variances / variances.sum() if rank else variances)


def collinearity_of(features: Float64) -> Collinearity:
    """Measure how far columns repeat each other."""
    varying = varying_columns(features)
    made = features[:, varying]
    if not made.shape[1]:
        return Collinearity(columns=features.shape[1], constant=features.shape[1], rank=0,
                            number=1.0, correlation=0.0)  # fmt: skip
    made = (made - made.mean(0)) / made.std(0)
    sizes = np.linalg.svd(made, compute_uv=False)
    kept = sizes[sizes**2 > LEAST_SHARE * sizes[0] ** 2]
    apart = np.corrcoef(made, rowvar=False) if made.shape[1] > 1 else np.zeros((1, 1))
    np.fill_diagonal(np.atleast_2d(apart), 0.0)
    return Collinearity(
        columns=features.shape[1], constant=int((~varying).sum()), rank=len(kept),
        number=float(kept[0] / kept[-1]), correlation=float(np.abs(apart).max()),
    )  # fmt: skip


def is_separated(family: FamilyName, components: Float64, y: Float64, num_classes: int) -> bool:
    """Tell whether a plane parts classes, or cuts between levels, so that no fit has a maximum.

    Linear programming finds a direction along which no item lies on the wrong side, and some on the
    right one (Konis 2007): complete and quasi-complete separation (Albert and Anderson 1984). Of
    several classes each is tried against all others.
    """
    if family not in CATEGORICAL or not components.shape[1]:
        return False
    n = len(y)
    if family == "ordinal":
        cuts = range(num_classes - 1)
        sides = np.concatenate([np.where(y > cut, 1.0, -1.0) for cut in cuts])
        which = np.repeat(np.eye(num_classes - 1), n, axis=0)
        return _has_direction(np.tile(components, (num_classes - 1, 1)), which, sides)
    classes = [1] if num_classes == 2 else range(num_classes)
    one = np.ones((n, 1))
    return any(_has_direction(components, one, np.where(y == each, 1.0, -1.0)) for each in classes)


def _has_direction(columns: Float64, intercepts: Float64, sides: Float64) -> bool:
    made = sides[:, None] * np.hstack([columns, intercepts])
    found = optimize.linprog(
        -made.sum(0), A_ub=-made, b_ub=np.zeros(len(made)), bounds=(-1, 1), method="highs"
    )
    return bool(found.status == 0 and -found.fun > 1e-6 * len(made))


def varying_columns(features: Float64) -> npt.NDArray[np.bool_]:
    """`[D]` whether each column differs between items."""
    size = np.abs(features).max(0)
    return features.std(0) > LEAST_SPREAD * np.maximum(size, 1e-30)
