"""The `explain` fit: maximum likelihood on a few components, without a penalty, by statsmodels.

Coefficients, standard errors and tests are those of maximum likelihood. Where items share a group
(a document), standard errors are clustered by group; a Gaussian with the identity link is fitted by
generalized least squares instead, errors of one group equally correlated, the correlation by
maximum likelihood (what the transformed ordinary fit gives is the generalized fit exactly: Fuller
and Battese 1973). Every log likelihood here is that of `families.Law` at the fitted dispersion,
normalising constants included, so that AIC and BIC may be compared over families.

Shapes: n items, k components, K classes, p parameters.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import statsmodels.api as sm
from scipy import optimize, special
from statsmodels.miscmodels.ordinal_model import OrderedModel

from blankfill.errors import DataError
from blankfill.probe.families import Float64, Law, dispersion_of
from blankfill.probe.names import COUNTS, FamilyName, LinkName

__all__ = ["Fitted", "Groups", "NoFitError", "fit_likelihood"]

Groups = npt.NDArray[np.int64]
"""`[n]` the number of the group, such as a document, that each item is of."""


LEAST_ALPHA = 1e-4
"""A negative binomial of less is at the edge, a Poisson, where Newton's steps may leave it."""


class NoFitError(DataError):
    """A maximum likelihood fit that has no answer: the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Fitted:
    """A maximum likelihood fit."""

    family: FamilyName
    link: LinkName
    names: tuple[str, ...]
    """`[p]` of the coefficients: `intercept`, `component 1`, ..; of classes with the class's
    number, of levels with the cuts."""
    params: Float64
    """`[p]`."""
    covariance: Float64
    """`[p, p]`."""
    log_likelihood: float
    """Nats."""
    num_parameters: int
    """p, and the dispersion and correlation where there are any."""
    dispersion: float
    """As `families.Law` has it; 1 where there is none."""
    deviance: float
    correlation: float = 0.0
    """Of errors in one group, of a generalized least squares fit."""
    clustered: bool = False
    """Whether standard errors are clustered by group."""
    mean_of: Callable[[Float64, Float64, Float64], Float64] = field(repr=False)
    """Of `[p]` parameters, `[m, k]` components and `[m]` exposures the means or probabilities."""
    scores: Float64 = field(repr=False)
    """`[n, p]` gradient of each item's log likelihood."""

    @property
    def errors(self) -> Float64:
        """`[p]` standard errors."""
        return np.sqrt(np.clip(np.diag(self.covariance), 0.0, None))

    @property
    def aic(self) -> float:
        """Akaike's criterion."""
        return 2 * self.num_parameters - 2 * self.log_likelihood

    def bic(self, num_items: int) -> float:
        """Schwarz's criterion."""
        return float(np.log(num_items)) * self.num_parameters - 2 * self.log_likelihood

    def law(self, components: Float64, exposure: Float64) -> Law:
        """Predict items."""
        return Law.of(self.family, self.mean_of(self.params, components, exposure), self.dispersion)


def fit_likelihood(
    family: FamilyName, link: LinkName, components: Float64, y: Float64, *, exposure: Float64,
    num_classes: int = 0, groups: Groups | None = None,
) -> Fitted:  # fmt: skip
    """Fit by maximum likelihood, or generalized least squares.

    Args:
        family: which distribution.
        link: one that the family has.
        components: `[n, k]`; k may be 0.
        y: `[n]` targets; numbers of classes from 0, each of which occurs.
        exposure: `[n]`; read of counts only.
        num_classes: K.
        groups: `[n]` whose errors may be correlated; none where not given.

    Raises:
        NoFitError: the likelihood has no maximum, or the search does not find it.
    """
    fit = _FITS.get(family, _fit_glm)
    if family == "gaussian" and link == "identity":
        fit = _fit_gaussian
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found = fit(family, link, components, y, exposure, num_classes, groups)
    except (np.linalg.LinAlgError, ValueError, FloatingPointError, ArithmeticError) as error:
        raise NoFitError(_no_fit(family, components, str(error))) from error
    whole = np.isfinite(found.params).all() and np.isfinite(found.errors).all()
    if not whole or not np.isfinite(found.log_likelihood):
        raise NoFitError(_no_fit(family, components, "its numbers are not finite"))
    return found


def _no_fit(family: FamilyName, components: Float64, reason: str) -> str:
    return (
        f"the {family} model on {components.shape[1]} components has no maximum likelihood fit "
        f"({reason.splitlines()[0] if reason else 'no more is known'}); take fewer components or "
        "another family"
    )


def _of_glm(family: FamilyName, link: LinkName) -> Any:
    links = sm.families.links
    of_link = {
        "logit": links.Logit, "probit": links.Probit, "cloglog": links.CLogLog, "log": links.Log,
        "sqrt": links.Sqrt, "identity": links.Identity, "inverse": links.InversePower,
    }[link]()  # fmt: skip
    of_family = {
        "binomial": sm.families.Binomial, "poisson": sm.families.Poisson,
        "gaussian": sm.families.Gaussian, "gamma": sm.families.Gamma,
    }[family]  # fmt: skip
    return of_family(of_link)


def _clusters(groups: Groups | None) -> dict[str, Any]:
    """Give statsmodels' options for standard errors."""
    if groups is None or len(np.unique(groups)) == len(groups):
        return {}
    return {"cov_type": "cluster", "cov_kwds": {"groups": groups}}


def _fit_glm(
    family: FamilyName, link: LinkName, components: Float64, y: Float64, exposure: Float64,
    _num_classes: int, groups: Groups | None,
) -> Fitted:  # fmt: skip
    design = _with_intercept(components)
    of_family = _of_glm(family, link)
    # A rate multiplies the mean whatever the link; statsmodels has an offset for the log alone.
    is_rate = family in COUNTS and link == "log"
    offset: dict[str, Any] = {"offset": np.log(exposure)} if is_rate else {}
    model: Any = sm.GLM(y, design, family=of_family, **offset)
    start = None
    if link in ("inverse", "log", "sqrt"):  # from the mean, where every mean is allowed
        start = np.zeros(design.shape[1])
        start[0] = of_family.link(float(y.sum() / exposure.sum() if is_rate else y.mean()))
    result = model.fit(start_params=start, maxiter=200, **_clusters(groups))
    if not result.converged:
        raise ValueError("the search did not end")

    def mean_of(params: Float64, of: Float64, rate: Float64) -> Float64:
        mean = of_family.link.inverse(_with_intercept(of) @ params)
        if family == "binomial":
            return np.column_stack([1 - mean, mean])
        return mean * rate if is_rate else mean

    params = np.asarray(result.params)
    return _build(
        family, link, _coefficients(components), params, np.asarray(result.cov_params()), mean_of,
        components, y, exposure, scores=np.asarray(model.score_obs(params, scale=result.scale)),
        clustered=bool(_clusters(groups)),
    )  # fmt: skip


def _fit_negative_binomial(
    family: FamilyName, link: LinkName, components: Float64, y: Float64, exposure: Float64,
    _num_classes: int, groups: Groups | None,
) -> Fitted:  # fmt: skip
    design = _with_intercept(components)
    first = sm.GLM(y, design, family=sm.families.Poisson(), offset=np.log(exposure)).fit()
    start = np.append(first.params, max(dispersion_of(family, np.asarray(first.mu), y), 1e-3))
    model = sm.NegativeBinomial(y, design, loglike_method="nb2", offset=np.log(exposure))
    result = model.fit(start_params=start, disp=0, maxiter=500, **_clusters(groups))
    if np.isfinite(result.params).all() and result.params[-1] > LEAST_ALPHA:
        # The first search ends where it is near; Newton's steps end at the last digits.
        result = model.fit(
            start_params=result.params, method="newton", disp=0, maxiter=50, **_clusters(groups)
        )
    params, covariance = np.asarray(result.params), np.asarray(result.cov_params())
    if not np.isfinite(params).all() or not params[-1] >= 0:
        raise ValueError("the search left what a dispersion may be")

    def mean_of(of_params: Float64, of: Float64, rate: Float64) -> Float64:
        return np.exp(_with_intercept(of) @ of_params) * rate

    scores = np.asarray(model.score_obs(params))[:, :-1]
    return _build(
        family, link, _coefficients(components), params[:-1], covariance[:-1, :-1], mean_of,
        components, y, exposure, scores=scores, dispersion=max(float(params[-1]), 1e-12),
        clustered=bool(_clusters(groups)),
    )  # fmt: skip


def _fit_multinomial(
    family: FamilyName, link: LinkName, components: Float64, y: Float64, exposure: Float64,
    num_classes: int, groups: Groups | None,
) -> Fitted:  # fmt: skip
    design = _with_intercept(components)
    model = sm.MNLogit(y.astype(int), design)
    result = model.fit(disp=0, maxiter=200, **_clusters(groups))
    if not result.mle_retvals["converged"]:
        raise ValueError("the search did not end")
    params = np.asarray(result.params).flatten("F")  # class by class, as its covariance
    names = tuple(
        f"{name}, class {number}"
        for number in range(1, num_classes)
        for name in _coefficients(components)
    )

    def mean_of(of_params: Float64, of: Float64, _: Float64) -> Float64:
        eta = _with_intercept(of) @ of_params.reshape(num_classes - 1, -1).T
        eta = np.column_stack([np.zeros(len(eta)), eta])
        shares = np.exp(eta - eta.max(1, keepdims=True))
        return shares / shares.sum(1, keepdims=True)

    return _build(
        family, link, names, params, np.asarray(result.cov_params()), mean_of, components, y,
        exposure, scores=np.asarray(model.score_obs(np.asarray(result.params))),
        clustered=bool(_clusters(groups)),
    )  # fmt: skip


def _fit_ordinal(
    family: FamilyName, link: LinkName, components: Float64, y: Float64, exposure: Float64,
    num_classes: int, groups: Groups | None,
) -> Fitted:  # fmt: skip
    # It takes no design without columns; one of zeros has a coefficient that nothing moves.
    if not components.shape[1]:
        return _levels_alone(family, link, components, y, exposure, num_classes)
    model = OrderedModel(y.astype(int), components, distr=link)
    result = model.fit(method="bfgs", disp=0, maxiter=1000, **_clusters(groups))
    if not result.mle_retvals["converged"] and np.abs(model.score(result.params)).max() > 1e-2:
        raise ValueError("the search did not end")
    params = np.asarray(result.params)
    num_slopes = components.shape[1]

    def mean_of(of_params: Float64, of: Float64, _: Float64) -> Float64:
        # The first cut, then the logarithms of the distances between cuts.
        cuts = np.cumsum([of_params[num_slopes], *np.exp(of_params[num_slopes + 1 :])])
        below = _BELOW[link](cuts - (of @ of_params[:num_slopes])[:, None])
        return np.diff(below, axis=1, prepend=0.0, append=1.0)

    names = tuple(_coefficients(components)[1:]) + tuple(
        f"cut {k}" for k in range(1, len(params) - num_slopes + 1)
    )
    return _build(
        family, link, names, params, np.asarray(result.cov_params()), mean_of, components, y,
        exposure, scores=np.asarray(model.score_obs(params)), clustered=bool(_clusters(groups)),
    )  # fmt: skip


def _levels_alone(
    family: FamilyName, link: LinkName, components: Float64, y: Float64, exposure: Float64,
    num_classes: int,
) -> Fitted:  # fmt: skip
    """Fit the cuts between levels alone: the shares of the levels."""
    shares = np.bincount(y.astype(int), minlength=num_classes) / len(y)
    p = num_classes - 1
    return _build(
        family, link, tuple(f"cut {k}" for k in range(1, p + 1)), np.cumsum(shares)[:-1],
        np.zeros((p, p)), lambda _params, of, _: np.tile(shares, (len(of), 1)), components, y,
        exposure, scores=np.zeros((len(y), p)),
    )  # fmt: skip


def _fit_gaussian(
    family: FamilyName, link: LinkName, components: Float64, y: Float64, exposure: Float64,
    _num_classes: int, groups: Groups | None,
) -> Fitted:  # fmt: skip
    """Fit by least squares; where groups have several items, by generalized least squares."""
    design = _with_intercept(components)
    owner, sizes = np.zeros(0, int), np.zeros(0)
    if groups is not None and _clusters(groups):
        _, owner = np.unique(groups, return_inverse=True)
        sizes = np.bincount(owner).astype(float)
    correlation = _best_correlation(design, y, owner, sizes) if len(sizes) else 0.0
    made, target, log_det = _transformed(design, y, owner, sizes, correlation)
    result = sm.OLS(target, made).fit()
    params, n = np.asarray(result.params), len(y)
    residuals = target - made @ params
    variance = float(residuals @ residuals) / n

    def mean_of(of_params: Float64, of: Float64, _: Float64) -> Float64:
        return _with_intercept(of) @ of_params

    plain = y - design @ params
    built = _build(
        family, link, _coefficients(components), params, np.asarray(result.cov_params()), mean_of,
        components, y, exposure, scores=made * (residuals / variance)[:, None],
        dispersion=float(plain @ plain) / n,
    )  # fmt: skip
    if not len(sizes):
        return built
    likelihood = -0.5 * (n * np.log(2 * np.pi * variance) + log_det + n)
    return replace(
        built, correlation=correlation, log_likelihood=float(likelihood),
        num_parameters=built.num_parameters + 1,
    )  # fmt: skip


def _transformed(
    design: Float64, y: Float64, owner: Any, sizes: Float64, correlation: float
) -> tuple[Float64, Float64, float]:
    """Take from each value the part of its group's mean that makes errors independent.

    Returns:
        The design, the target, and the log determinant of the correlations.
    """
    if not len(sizes) or not correlation:
        return design, y, 0.0
    together = 1 + (sizes - 1) * correlation
    part = (1 - np.sqrt((1 - correlation) / together))[owner]
    scale = 1 / np.sqrt(1 - correlation)
    both = np.column_stack([design, y])
    means = np.column_stack([np.bincount(owner, column) for column in both.T]) / sizes[:, None]
    made = scale * (both - part[:, None] * means[owner])
    log_det = float(((sizes - 1) * np.log(1 - correlation) + np.log(together)).sum())
    return made[:, :-1], made[:, -1], log_det


def _best_correlation(design: Float64, y: Float64, owner: Any, sizes: Float64) -> float:
    """Maximise the likelihood over the correlation of errors in one group."""

    def lack(correlation: float) -> float:
        made, target, log_det = _transformed(design, y, owner, sizes, correlation)
        residuals = target - made @ np.linalg.lstsq(made, target, rcond=None)[0]
        return len(y) * float(np.log(residuals @ residuals)) + log_det

    found: Any = optimize.minimize_scalar(lack, bounds=(0.0, 0.999), method="bounded",
                                     options={"xatol": 1e-8})  # fmt: skip
    return float(found.x) if found.fun < lack(0.0) else 0.0


def _build(
    family: FamilyName, link: LinkName, names: tuple[str, ...], params: Float64,
    covariance: Float64, mean_of: Callable[[Float64, Float64, Float64], Float64],
    components: Float64, y: Float64, exposure: Float64, *, scores: Float64,
    dispersion: float | None = None, clustered: bool = False,
) -> Fitted:  # fmt: skip
    mean = mean_of(params, components, exposure)
    if dispersion is None:
        dispersion = dispersion_of(family, mean, y)
    law = Law.of(family, mean, dispersion)
    return Fitted(
        family=family, link=link, names=names, params=params, covariance=covariance,
        log_likelihood=float(law.log_density(y).sum()), dispersion=dispersion,
        num_parameters=len(params) + (family in ("gaussian", "gamma", "negative-binomial")),
        deviance=float(law.deviance(y).sum()), mean_of=mean_of, scores=scores,
        clustered=clustered,
    )  # fmt: skip


def _with_intercept(components: Float64) -> Float64:
    return np.column_stack([np.ones(len(components)), components])


def _coefficients(components: Float64) -> tuple[str, ...]:
    return ("intercept", *(f"component {k + 1}" for k in range(components.shape[1])))


_BELOW: dict[LinkName, Callable[[Float64], Float64]] = {
    "logit": special.expit, "probit": special.ndtr
}  # fmt: skip
_FITS: dict[FamilyName, Callable[..., Fitted]] = {
    "negative-binomial": _fit_negative_binomial, "multinomial": _fit_multinomial,
    "ordinal": _fit_ordinal,
}  # fmt: skip
