"""The fits: planted coefficients are found, and numbers are those of the libraries."""

import numpy as np
import pytest

pytest.importorskip("statsmodels")

import statsmodels.api as sm
from sklearn.linear_model import GammaRegressor, LogisticRegression, PoissonRegressor, Ridge
from sklearn.preprocessing import StandardScaler
from statsmodels.miscmodels.ordinal_model import OrderedModel

from blankfill.probe.families import Law, dispersion_of
from blankfill.probe.likelihood import NoFitError, fit_likelihood
from blankfill.probe.names import LINKS
from blankfill.probe.penalised import fit_penalised
from probe.planted import plant

EVERY = [(family, link) for family, links in LINKS.items() for link in links]


def fit(family, link, columns, y, num_classes=0, groups=None, exposure=None):
    exposure = np.ones(len(y)) if exposure is None else exposure
    return fit_likelihood(family, link, columns, y, exposure=exposure, num_classes=num_classes,
                          groups=groups)  # fmt: skip


@pytest.mark.parametrize(("family", "link"), EVERY)
def test_planted_coefficients_are_within_three_standard_errors(family, link):
    columns, y, slopes, num_classes = plant(family, link)
    fitted = fit(family, link, columns, y, num_classes)
    found = fitted.params[: len(slopes)]
    assert np.abs((found - slopes) / fitted.errors[: len(slopes)]).max() < 3


@pytest.mark.slow
@pytest.mark.parametrize(("family", "link"), EVERY)
def test_planted_coefficients_are_covered_as_often_as_intervals_say(family, link):
    inside = []
    for seed in range(100):
        columns, y, slopes, num_classes = plant(family, link, seed=seed)
        fitted = fit(family, link, columns, y, num_classes)
        count = len(slopes)
        inside.append(np.abs(fitted.params[:count] - slopes) < 1.96 * fitted.errors[:count])
    # 300 intervals and more; those of one data set are not independent.
    assert 0.91 < np.mean(inside) < 0.985


def test_dispersion_is_found():
    for family, wanted in (("negative-binomial", 0.5), ("gaussian", 0.49), ("gamma", 1 / 3)):
        columns, y, _, _ = plant(family, LINKS[family][0], n=4000)
        assert fit(family, LINKS[family][0], columns, y).dispersion == pytest.approx(wanted, 0.1)


@pytest.mark.filterwarnings("ignore:The .* link function does not respect")
@pytest.mark.parametrize(("family", "link"), EVERY)
def test_predictions_are_statsmodels_own(family, link):
    columns, y, _, num_classes = plant(family, link, n=200)
    others = np.random.default_rng(5).normal(size=(50, 3))
    design, more = sm.add_constant(columns), sm.add_constant(others)
    fitted = fit(family, link, columns, y, num_classes)
    links, families = sm.families.links, sm.families
    if family == "multinomial":
        result = sm.MNLogit(y.astype(int), design).fit(disp=0, maxiter=200)
        wanted = np.asarray(result.predict(more))
    elif family == "ordinal":
        model = OrderedModel(y.astype(int), columns, distr=link)
        wanted = np.asarray(model.predict(fitted.params, exog=others))
    elif family == "negative-binomial":
        near = sm.NegativeBinomial(y, design).fit(disp=0, maxiter=500)
        model = sm.NegativeBinomial(y, design)
        result = model.fit(start_params=near.params, method="newton", disp=0)
        wanted = np.asarray(result.predict(more))
        assert fitted.log_likelihood == pytest.approx(result.llf, abs=1e-8)
    else:
        of_link = {"logit": links.Logit, "probit": links.Probit, "cloglog": links.CLogLog,
                   "log": links.Log, "sqrt": links.Sqrt, "identity": links.Identity,
                   "inverse": links.InversePower}[link]()  # fmt: skip
        of = {"binomial": families.Binomial, "poisson": families.Poisson, "gamma": families.Gamma,
              "gaussian": families.Gaussian}[family](of_link)  # fmt: skip
        start = None if link in ("logit", "probit", "cloglog", "identity") else [
            float(of_link(y.mean())), 0, 0, 0
        ]  # fmt: skip
        result = sm.GLM(y, design, family=of).fit(start_params=start, maxiter=200)
        wanted = np.asarray(result.predict(more))
        if family in ("binomial", "poisson"):
            assert fitted.log_likelihood == pytest.approx(result.llf, abs=1e-8)
            assert fitted.deviance == pytest.approx(result.deviance, abs=1e-8)
    found = fitted.law(others, np.ones(50)).mean
    if family == "binomial":
        assert np.abs(found[:, 1] - wanted).max() < 1e-8
    else:
        assert np.abs(found - wanted).max() < 1e-8


@pytest.mark.parametrize("family", ["binomial", "multinomial", "poisson", "gaussian", "gamma"])
def test_penalised_predictions_are_scikit_learns_own(family):
    columns, y, _, num_classes = plant(family, LINKS[family][0], n=200)
    others = np.random.default_rng(5).normal(size=(50, 3))
    found = fit_penalised(family, columns, y, penalty=0.1, exposure=np.ones(200),
                          num_classes=num_classes).mean(others, np.ones(50))  # fmt: skip
    scaler = StandardScaler().fit(columns)
    model = {
        "binomial": lambda: LogisticRegression(C=1 / 20, max_iter=1000, tol=1e-5,
                                               solver="newton-cholesky"),
        "multinomial": lambda: LogisticRegression(C=1 / 20, max_iter=1000, tol=1e-5),
        "poisson": lambda: PoissonRegressor(alpha=0.1, tol=1e-6, solver="newton-cholesky"),
        "gaussian": lambda: Ridge(alpha=20, solver="cholesky"),
        "gamma": lambda: GammaRegressor(alpha=0.1, tol=1e-6, solver="newton-cholesky"),
    }[family]()  # fmt: skip
    model.fit(scaler.transform(columns), y)
    made = scaler.transform(others)
    wanted = model.predict_proba(made) if num_classes else model.predict(made)
    assert np.abs(found - wanted).max() < 1e-8


def test_a_penalised_ordinal_fit_is_near_the_likelihood_where_nothing_is_penalised():
    columns, y, _, _ = plant("ordinal", "logit", n=2000)
    found = fit_penalised("ordinal", columns, y, penalty=1e-7, exposure=np.ones(2000),
                          num_classes=4).mean(columns, np.ones(2000))  # fmt: skip
    wanted = fit("ordinal", "logit", columns, y, 4).law(columns, np.ones(2000)).mean
    assert np.abs(found.sum(1) - 1).max() < 1e-12
    assert found.min() >= 0
    assert np.abs(found - wanted).max() < 0.03  # pooled cuts are consistent, not the same estimate


def test_an_exposure_is_an_offset():
    rng = np.random.default_rng(0)
    columns, exposure = rng.normal(size=(3000, 2)), rng.uniform(0.5, 20, 3000)
    y = rng.poisson(exposure * np.exp(0.2 + columns @ [0.3, -0.4])).astype(float)
    fitted = fit("poisson", "log", columns, y, exposure=exposure)
    assert np.abs((fitted.params - [0.2, 0.3, -0.4]) / fitted.errors).max() < 3
    penalised = fit_penalised("poisson", columns, y, penalty=1e-9, exposure=exposure)
    near = penalised.mean(columns, exposure)
    assert np.abs(near / fitted.law(columns, exposure).mean - 1).max() < 1e-3


def test_least_squares_of_grouped_errors_are_generalized_least_squares():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(40), rng.integers(1, 7, 40))
    columns = rng.normal(size=(len(groups), 2))
    y = 1 + columns @ [0.5, -0.3] + rng.normal(size=40)[groups] + rng.normal(size=len(groups))
    fitted = fit("gaussian", "identity", columns, y, groups=groups)
    assert 0.2 < fitted.correlation < 0.8
    same = groups[:, None] == groups[None, :]
    sigma = np.where(same, fitted.correlation, 0.0)
    np.fill_diagonal(sigma, 1.0)
    wanted = sm.GLS(y, sm.add_constant(columns), sigma=sigma).fit()
    assert np.abs(fitted.params - wanted.params).max() < 1e-8
    assert np.abs(fitted.errors - wanted.bse).max() < 1e-8
    assert fitted.log_likelihood == pytest.approx(wanted.llf, abs=1e-6)


def test_standard_errors_know_of_groups():
    columns, y, _, _ = plant("binomial", "logit", n=150)
    twice = [np.repeat(each, 4, axis=0) for each in (columns, y)]
    groups = np.repeat(np.arange(150), 4)
    alone = fit("binomial", "logit", columns, y)
    blind = fit("binomial", "logit", *twice)
    clustered = fit("binomial", "logit", *twice, groups=groups)
    assert blind.errors[1] == pytest.approx(alone.errors[1] / 2, rel=1e-6)
    assert clustered.clustered
    assert clustered.errors[1] == pytest.approx(alone.errors[1], rel=0.25)


def test_a_fit_without_an_answer_is_one_sentence():
    columns = np.linspace(-1, 1, 40)[:, None]
    with pytest.raises(NoFitError, match="no maximum likelihood fit") as caught:
        fit("gamma", "inverse", np.hstack([columns] * 3), np.exp(3 * columns[:, 0]) * 1e200)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", LINKS)
def test_a_law_agrees_with_itself(family):
    rng = np.random.default_rng(2)
    if family in ("binomial", "multinomial", "ordinal"):
        law = Law.of(family, rng.dirichlet(np.ones(3), 5))
        support = [np.full(5, k, float) for k in range(3)]
    else:
        law = Law.of(family, rng.uniform(1, 3, 5), 0.4)
        support = [np.full(5, k, float) for k in range(200)]
    if family in ("gaussian", "gamma"):
        support = [np.full(5, x) for x in np.arange(-20, 60, 0.01)[2001 * (family == "gamma") :]]
    mass = np.array([np.exp(law.log_density(y)) for y in support])
    mass = mass * (0.01 if family in ("gaussian", "gamma") else 1)
    assert mass.sum(0) == pytest.approx(1, abs=2e-3)
    values = np.array(support)
    mean = (mass * values).sum(0)
    assert mean == pytest.approx(law.expected(), abs=0.02)
    assert (mass * values**2).sum(0) - mean**2 == pytest.approx(law.variance(), abs=0.05)
    for y in support[1:3]:
        jump = law.cdf(y) - law.below(y)
        discrete = family not in ("gaussian", "gamma")
        assert jump == pytest.approx(np.exp(law.log_density(y)) if discrete else 0, abs=1e-9)


def test_dispersion_of_given_means_maximises_the_likelihood():
    rng = np.random.default_rng(3)
    mean = rng.uniform(1, 8, 2000)
    for family, y, wanted in (
        ("gamma", rng.gamma(4, mean / 4), 0.25),
        ("negative-binomial", rng.negative_binomial(2, 2 / (2 + mean)).astype(float), 0.5),
        ("gaussian", mean + rng.normal(size=2000), 1.0),
    ):
        found = dispersion_of(family, mean, y)
        assert found == pytest.approx(wanted, rel=0.12)
        at = [Law.of(family, mean, found * s).log_density(y).sum() for s in (0.9, 1, 1.1)]
        assert at[1] > max(at[0], at[2])
