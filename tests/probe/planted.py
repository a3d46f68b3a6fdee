"""Data sets of which the family and the coefficients are known."""

import numpy as np
from scipy import stats

from blankfill.probe.nested import Task

SLOPES = np.array([0.4, 0.5, -0.6, 0.3])
"""Intercept and three coefficients, on the scale of the link."""
WHOLE = {"binomial", "multinomial", "ordinal", "poisson", "negative-binomial"}


def plant(family, link, n=600, seed=0):
    """Return `[n, 3]` columns, `[n]` targets, the coefficients of the fit, and the classes."""
    rng = np.random.default_rng(seed)
    columns = rng.normal(size=(n, 3))
    eta = SLOPES[0] + columns @ SLOPES[1:]
    if family == "binomial":
        share = {"logit": lambda e: 1 / (1 + np.exp(-e)), "probit": stats.norm.cdf,
                 "cloglog": lambda e: 1 - np.exp(-np.exp(e))}[link](eta)  # fmt: skip
        return columns, rng.binomial(1, share).astype(float), SLOPES, 2
    if family == "multinomial":
        each = np.column_stack([np.zeros(4), SLOPES, -SLOPES, 0.5 * SLOPES])
        share = np.exp(np.column_stack([np.ones(n), columns]) @ each)
        share /= share.sum(1, keepdims=True)
        y = np.array([rng.choice(4, p=p) for p in share]).astype(float)
        return columns, y, each[:, 1:].flatten("F"), 4
    if family == "ordinal":
        noise = rng.logistic(size=n) if link == "logit" else rng.normal(size=n)
        y = np.digitize(columns @ SLOPES[1:] + noise, [-1, 0, 1]).astype(float)
        return columns, y, SLOPES[1:], 4
    slopes = SLOPES
    if link == "sqrt":
        slopes = SLOPES + np.array([3, 0, 0, 0])
    if link == "inverse":
        slopes = np.array([2, 0.1, -0.12, 0.06])
    eta = slopes[0] + columns @ slopes[1:]
    mean = {"log": np.exp, "sqrt": np.square, "identity": lambda e: e,
            "inverse": lambda e: 1 / e}[link](eta)  # fmt: skip
    draw = {
        "poisson": lambda: rng.poisson(mean), "gamma": lambda: rng.gamma(3, mean / 3),
        "negative-binomial": lambda: rng.negative_binomial(2, 2 / (2 + mean)),
        "gaussian": lambda: mean + 0.7 * rng.normal(size=n),
    }[family]  # fmt: skip
    return columns, draw().astype(float), slopes, 0


def task_of(family, y, num_classes=0, groups=None):
    groups = np.arange(len(y)) if groups is None else groups
    return Task(family=family, y=y, groups=groups, exposure=np.ones(len(y)),
                num_classes=num_classes)  # fmt: skip
