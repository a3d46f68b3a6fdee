"""The names of families, links and places: what a caller may ask a probe for."""

from __future__ import annotations

from typing import Literal

__all__ = ["CATEGORICAL", "COUNTS", "LINKS", "FamilyName", "LinkName"]

FamilyName = Literal[
    "binomial", "multinomial", "ordinal", "poisson", "negative-binomial", "gaussian", "gamma"
]
LinkName = Literal["logit", "probit", "cloglog", "log", "sqrt", "identity", "inverse"]

LINKS: dict[FamilyName, tuple[LinkName, ...]] = {
    "binomial": ("logit", "probit", "cloglog"),
    "multinomial": ("logit",),
    "ordinal": ("logit", "probit"),
    "poisson": ("log", "sqrt"),
    "negative-binomial": ("log",),
    "gaussian": ("identity", "log"),
    "gamma": ("log", "inverse"),
}
"""The links of each family, the usual one first."""
CATEGORICAL: frozenset[FamilyName] = frozenset({"binomial", "multinomial", "ordinal"})
"""Families of which a law is a probability of each class."""
COUNTS: frozenset[FamilyName] = frozenset({"poisson", "negative-binomial"})
"""Families that take an exposure."""
