"""`--family auto`: which families a target admits, and which of them describes it best.

Those that it admits are fitted by maximum likelihood on the same few components of the same items,
and compared by Schwarz's criterion (BIC), which does not prefer a family for holding another one as
a special case. Whole numbers are compared by their probabilities, a continuous family by that of
the unit around each; other numbers by densities.

Shapes: n items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from blankfill.probe.components import is_separated
from blankfill.probe.families import Float64
from blankfill.probe.likelihood import NoFitError
from blankfill.probe.names import CATEGORICAL, COUNTS, LINKS, FamilyName
from blankfill.probe.nested import Task
from blankfill.probe.outcome import ComparedFamily

__all__ = ["Admission", "admissions", "choose_family", "compare"]

MOST_LEVELS = 12
"""Most distinct whole numbers that may be levels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Admission:
    """Whether a target admits a family."""

    family: FamilyName
    reason: str
    """Why not; empty where it does. A key of the report's words."""


def admissions(
    values: Sequence[object], *, ordered: bool, exposed: bool = False
) -> list[Admission]:
    """Tell which families a target admits.

    Args:
        values: all numbers, or all words; booleans are words.
        ordered: whether the caller has named the order of the words.
        exposed: whether there is an exposure, which counts alone take.
    """
    reasons = _reasons(values, ordered)
    if exposed:
        for family in LINKS:
            if family not in COUNTS:
                reasons[family] = reasons[family] or "exposure"
    return [Admission(family=family, reason=reason) for family, reason in reasons.items()]


def _reasons(values: Sequence[object], ordered: bool) -> dict[FamilyName, str]:
    distinct = set(values)
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    reasons: dict[FamilyName, str] = dict.fromkeys(LINKS, "")
    if len(numbers) < len(values):
        for family in LINKS:
            if family not in CATEGORICAL:
                reasons[family] = "words"
        if len(distinct) == 2:
            reasons["multinomial"] = reasons["ordinal"] = "two values"
        else:
            reasons["binomial"] = "more than two values"
            reasons["ordinal"] = "" if ordered else "no order"
            if ordered:
                reasons["multinomial"] = "ordered"
        return reasons
    y = np.asarray(numbers, np.float64)
    whole = bool((y == np.round(y)).all())
    if len(distinct) == 2 and whole:
        return {f: "" if f == "binomial" else "two values" for f in LINKS}
    reasons["binomial"] = "more than two values"
    if not whole:
        for family in ("multinomial", "ordinal", "poisson", "negative-binomial"):
            reasons[family] = "not whole"
    elif len(distinct) > MOST_LEVELS:
        reasons["multinomial"] = reasons["ordinal"] = "too many values"
    if (y < 0).any():
        reasons["poisson"] = reasons["negative-binomial"] = reasons["gamma"] = "negative"
    elif (y == 0).any():
        reasons["gamma"] = "zero"
    return reasons


def compare(
    task: Task, levels: Task | None, components: Float64, admitted: Sequence[Admission]
) -> list[ComparedFamily]:
    """Fit every family that is admitted.

    Args:
        task: the target as numbers; of words their numbers.
        levels: the target as levels from 0, where it may be; its family is not read.
        components: `[n, k]` the same for all.
        admitted: what `admissions` gave.
    """
    whole = bool((task.y == np.round(task.y)).all())
    return [_one(each, task, levels, components, whole) for each in admitted]


def choose_family(compared: Sequence[ComparedFamily]) -> FamilyName:
    """Give the family of the lowest BIC.

    Raises:
        NoFitError: none could be fitted.
    """
    fitted = [each for each in compared if not each.refused]
    if not fitted:
        raise NoFitError(
            "no family that the target admits has a maximum likelihood fit; name one with --family "
            "and take --fit predict"
        )
    return min(fitted, key=lambda each: each.bic).family


def _one(
    admission: Admission, task: Task, levels: Task | None, components: Float64, whole: bool
) -> ComparedFamily:
    from blankfill.probe.explain import fit_task

    family = admission.family
    nothing = ComparedFamily(
        family=family, refused=admission.reason, log_likelihood=np.nan, parameters=0, aic=np.nan,
        bic=np.nan,
    )  # fmt: skip
    if admission.reason:
        return nothing
    of = levels if family in CATEGORICAL and levels is not None else task
    of = replace(of, family=family)
    if is_separated(family, components, of.y, of.num_classes):
        return replace(nothing, refused="separated")
    try:
        fitted = fit_task(of, LINKS[family][0], components)
    except NoFitError:
        return replace(nothing, refused="no fit")
    law = fitted.law(components, of.exposure)
    each = law.log_mass(of.y) if whole and family not in CATEGORICAL else law.log_density(of.y)
    total, count = float(each.sum()), fitted.num_parameters
    return ComparedFamily(
        family=family, refused="", log_likelihood=total, parameters=count,
        aic=2 * count - 2 * total, bic=float(np.log(len(of.y))) * count - 2 * total,
    )  # fmt: skip
