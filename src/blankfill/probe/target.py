"""A target as a family takes it: checked value by value, classes and levels as numbers.

Shapes: n items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from blankfill.errors import DataError
from blankfill.probe.families import Float64
from blankfill.probe.names import CATEGORICAL, COUNTS, FamilyName
from blankfill.probe.table import Value

__all__ = ["Target", "code_target", "require_varied"]

MOST_CLASSES = 200


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A target of one family."""

    y: Float64
    """`[n]`; of classes and levels their numbers from 0."""
    classes: tuple[str, ...]
    """Their names; empty of numbers."""


def require_varied(values: Sequence[Value], name: str) -> None:
    """Refuse a target that is the same everywhere.

    Raises:
        DataError: it is.
    """
    if len(set(values)) < 2:
        raise DataError(f"the target {name!r} is {_named(values[0])} in every row, so there is "
                        "nothing to predict; name a field with two values or more")  # fmt: skip


def code_target(
    family: FamilyName, values: Sequence[Value], places: Sequence[str], name: str,
    order: Sequence[str], folds: int,
) -> Target:  # fmt: skip
    """Turn values into what a family is fitted to.

    Args:
        family: which one.
        values: `[n]` all numbers, or all words.
        places: `[n]` where they stand.
        name: of the field.
        order: of the levels, lowest first; empty where numbers say it.
        folds: how many; each class needs as many items.

    Raises:
        DataError: a value is none of the family's, or classes are too many or too rare.
    """
    require_varied(values, name)
    if family in CATEGORICAL:
        return _code_classes(family, values, places, name, order, folds)
    y = np.zeros(len(values))
    for i, (value, place) in enumerate(zip(values, places, strict=True)):
        y[i] = _number(family, value, place, name)
    return Target(y, ())


def _number(family: FamilyName, value: Value, place: str, name: str) -> float:
    said = f"{place}: the target {name!r} is {_named(value)}, and"
    if isinstance(value, str):
        raise DataError(f"{said} {family} takes numbers; take --family multinomial")
    if family in COUNTS and value < 0:
        raise DataError(f"{said} a count of {family} is 0 or more; take --family gaussian, or "
                        "leave the row out")  # fmt: skip
    if family in COUNTS and value != round(value):
        raise DataError(f"{said} a count of {family} is a whole number; take --family gamma or "
                        "gaussian")  # fmt: skip
    if family == "gamma" and value <= 0:
        raise DataError(f"{said} gamma takes numbers above 0; take --family gaussian, or leave the "
                        "row out")  # fmt: skip
    return float(value)


def _code_classes(
    family: FamilyName, values: Sequence[Value], places: Sequence[str], name: str,
    order: Sequence[str], folds: int,
) -> Target:  # fmt: skip
    names = [_named(value) for value in values]
    levels = list(order) or [_named(value) for value in sorted(set(values), key=_key)]
    if family == "ordinal" and not order and isinstance(values[0], str):
        raise DataError(f"the levels of {name!r} are words, whose order is not known; give it, "
                        f"lowest first: --order {' '.join(levels[:4])}")  # fmt: skip
    for word, place in zip(names, places, strict=True):
        if word not in levels:
            raise DataError(f"{place}: the target {name!r} is {word!r}, which is not among --order "
                            f"{' '.join(levels)}; add it")  # fmt: skip
    counts = Counter(names)
    if unused := [level for level in levels if level not in counts]:
        raise DataError(f"no row has the level {unused[0]!r} of --order; leave it out")
    if family == "binomial" and len(levels) != 2:
        raise DataError(f"the target {name!r} has {len(levels):,} values and binomial takes two; "
                        "take --family multinomial")  # fmt: skip
    if len(levels) > MOST_CLASSES:
        raise DataError(f"the target {name!r} has {len(levels):,} values, more classes than "
                        f"{MOST_CLASSES}; take a family of numbers, or fewer classes")  # fmt: skip
    rare = min(levels, key=lambda level: counts[level])
    if counts[rare] < folds:
        raise DataError(f"{rare!r} of {name!r} stands in {counts[rare]} row"
                        f"{'s' * (counts[rare] > 1)}, fewer than the {folds} folds; take fewer "
                        "folds, or leave it out")  # fmt: skip
    number = {level: i for i, level in enumerate(levels)}
    return Target(np.array([number[word] for word in names], np.float64), tuple(levels))


def _named(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:.17g}"


def _key(value: Value) -> tuple[float, str]:
    return (0.0, value) if isinstance(value, str) else (float(value), "")
