"""The `predict` fit: penalised, on all dimensions, by scikit-learn.

Every fit minimises the mean negative log likelihood plus half `penalty` times the squared length of
the coefficients, of columns that were standardised by the training items alone. scikit-learn has no
negative binomial and no ordinal model: the mean of the first is fitted by the Poisson's estimating
equations, which are right for any variance (Gourieroux, Monfort and Trognon 1984); the second is
one logistic regression over all cuts between levels, with one slope (proportional odds; McCullagh
1980).

Shapes: n items, D columns, K classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import GammaRegressor, LogisticRegression, PoissonRegressor, Ridge
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

from blankfill.probe.families import Float64, marginal_law
from blankfill.probe.names import CATEGORICAL, FamilyName

__all__ = ["PENALTIES", "Features", "Predictor", "fit_penalised", "mean_of"]

Features = Float64 | sparse.csr_matrix
"""`[n, D]` numbers; counts of words are sparse."""
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Strengths that the inner folds choose among."""
MOST_STEPS = 1000
MOST_NEWTON_COLUMNS = 1024
CUT_WEIGHT = 100.0
"""What the cuts of an ordinal fit are multiplied by, so that the penalty hardly reaches them."""


@dataclass(frozen=True, slots=True, eq=False)
class Predictor:
    """A fit that predicts."""

    mean: Callable[[Features, Float64], Float64]
    """Of `[m, D]` features and `[m]` exposures the `[m]` means, or `[m, K]` probabilities."""
    model: Any
    """scikit-learn's."""
    columns: Callable[[Features], Any]
    """What is done to features before they reach it."""
    converged: bool
    """Whether its search ended by itself."""


def fit_penalised(
    family: FamilyName, features: Features, y: Float64, *, penalty: float, exposure: Float64,
    num_classes: int = 0,
) -> Predictor:  # fmt: skip
    """Fit a penalised model.

    Args:
        family: which distribution; the link is scikit-learn's: logit, log, or identity.
        features: `[n, D]`.
        y: `[n]` targets; numbers of classes from 0.
        penalty: strength, per item.
        exposure: `[n]`; read of counts only.
        num_classes: K.
    """
    columns = _standardise(features)
    made = columns(features)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, mean = _FITS[family](made, y, penalty, exposure, num_classes)
    converged = not any(issubclass(each.category, ConvergenceWarning) for each in caught)

    def predict(other: Features, of: Float64) -> Float64:
        return mean(columns(other), of)

    return Predictor(predict, model, columns, converged)


def mean_of(
    family: FamilyName, features: Features, y: Float64, penalty: float, exposure: Float64,
    num_classes: int,
) -> Callable[[Features, Float64], Float64]:  # fmt: skip
    """Fit, and give the means; where one class alone is there, its shares."""
    if family in CATEGORICAL and len(np.unique(y)) < 2:
        alone = marginal_law(family, y, exposure, num_classes)
        return lambda _, of: alone(of).mean
    fitted = fit_penalised(
        family, features, y, penalty=penalty, exposure=exposure, num_classes=num_classes
    )
    if family not in CATEGORICAL:
        return fitted.mean
    # A class that the training items lack keeps a small probability, and a log score an end.
    shares = marginal_law(family, y, exposure, num_classes)
    weight = 1 / (len(y) + 1)

    def mixed(other: Features, of: Float64) -> Float64:
        return (1 - weight) * fitted.mean(other, of) + weight * shares(of).mean

    return mixed


def _standardise(features: Features) -> Callable[[Features], Any]:
    """Learn of training items how columns are standardised; one that is constant becomes 0."""
    if sparse.issparse(features):
        scaler = MaxAbsScaler().fit(features)
        return lambda other: sparse.csr_matrix(scaler.transform(other))
    scaler = StandardScaler().fit(features)
    return scaler.transform


def _solver(made: Any) -> Literal["newton-cholesky", "lbfgs"]:
    """Take Newton's steps where the matrix of second derivatives is small: a few do."""
    small = not sparse.issparse(made) and made.shape[1] <= MOST_NEWTON_COLUMNS
    return "newton-cholesky" if small else "lbfgs"


def _classes(made: Any, y: Float64, penalty: float, _exposure: Float64, num_classes: int) -> Any:
    solver = _solver(made) if num_classes == 2 else "lbfgs"
    model = LogisticRegression(
        C=1 / (penalty * len(y)), max_iter=MOST_STEPS, tol=1e-5, solver=solver
    )
    model.fit(made, y.astype(int))

    def mean(other: Any, _: Float64) -> Float64:
        found = np.zeros((other.shape[0], num_classes))
        found[:, model.classes_] = model.predict_proba(other)
        return found

    return model, mean


def _levels(made: Any, y: Float64, penalty: float, _exposure: Float64, num_classes: int) -> Any:
    cuts = [cut for cut in range(num_classes - 1) if y.min() <= cut < y.max()]
    stack: Any = sparse.vstack if sparse.issparse(made) else np.vstack
    above = np.concatenate([(y > cut).astype(int) for cut in cuts])
    which = np.repeat(np.eye(len(cuts)) * CUT_WEIGHT, len(y), axis=0)
    model = LogisticRegression(
        C=1 / (penalty * len(y)), max_iter=MOST_STEPS, tol=1e-5, fit_intercept=False,
        solver=_solver(made),
    )  # fmt: skip
    join: Any = sparse.hstack if sparse.issparse(made) else np.hstack
    stacked = join([stack([made] * len(cuts)), which])
    model.fit(sparse.csr_matrix(stacked) if sparse.issparse(made) else stacked, above)
    slope, thresholds = model.coef_[0, : made.shape[1]], model.coef_[0, made.shape[1] :]

    def mean(other: Any, _: Float64) -> Float64:
        eta = other @ slope
        over = np.zeros((other.shape[0], num_classes + 1))  # probability of at least each level
        over[:, : cuts[0] + 1] = 1.0
        for cut, threshold in zip(cuts, thresholds, strict=True):
            over[:, cut + 1] = 1 / (1 + np.exp(-(eta + CUT_WEIGHT * threshold)))
        return np.clip(over[:, :-1] - over[:, 1:], 0.0, None)

    return model, mean


def _counts(made: Any, y: Float64, penalty: float, exposure: Float64, _num_classes: int) -> Any:
    # Rates weighted by exposure have the likelihood of counts with its logarithm as an offset; the
    # weights are divided by their sum, and the penalty is per item.
    model = PoissonRegressor(
        alpha=penalty * len(y) / float(exposure.sum()), max_iter=MOST_STEPS, tol=1e-6,
        solver=_solver(made),
    )  # fmt: skip
    model.fit(made, y / exposure, sample_weight=exposure)
    return model, lambda other, of: model.predict(other) * of


def _gaussian(made: Any, y: Float64, penalty: float, _exposure: Float64, _num_classes: int) -> Any:
    solver = "sparse_cg" if sparse.issparse(made) else "cholesky"
    model = Ridge(alpha=penalty * len(y), solver=solver).fit(made, y)
    return model, lambda other, _: model.predict(other)


def _gamma(made: Any, y: Float64, penalty: float, _exposure: Float64, _num_classes: int) -> Any:
    model = GammaRegressor(alpha=penalty, max_iter=MOST_STEPS, tol=1e-6, solver=_solver(made)).fit(
        made, y
    )
    return model, lambda other, _: model.predict(other)


_FITS: dict[FamilyName, Callable[..., Any]] = {
    "binomial": _classes, "multinomial": _classes, "ordinal": _levels, "poisson": _counts,
    "negative-binomial": _counts, "gaussian": _gaussian, "gamma": _gamma,
}  # fmt: skip
