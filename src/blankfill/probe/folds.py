"""Folds: which items are left out together, so that no document is on both sides.

Shapes: n items, F folds.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from blankfill.errors import DataError
from blankfill.probe.families import Float64
from blankfill.probe.likelihood import Groups

__all__ = ["Folds", "draw_folds", "given_folds", "require_apart"]

Folds = list[npt.NDArray[np.int64]]
"""`[F]` the numbers of the items that each leaves out."""


def draw_folds(y: Float64, groups: Groups, count: int, *, seed: int, stratified: bool) -> Folds:
    """Deal groups out to folds of about equal size.

    Args:
        y: `[n]` targets.
        groups: `[n]`.
        count: F, at most the number of groups.
        seed: decides the deal.
        stratified: whether each fold has about the same share of every class.
    """
    # scikit-learn takes seeds of 32 bits.
    seed = seed % 2**32
    with warnings.catch_warnings():
        # A class that is rarer than the folds are many; targets were checked before.
        warnings.simplefilter("ignore", UserWarning)
        if stratified and np.bincount(y.astype(int)).max() >= count:
            made = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
            parts = list(made.split(np.zeros(len(y)), y.astype(int), groups))
        else:
            made = GroupKFold(count, shuffle=True, random_state=seed)
            parts = list(made.split(np.zeros(len(y)), y, groups))
    folds = [np.sort(left) for _, left in parts]
    folds = [fold for fold in folds if len(fold)]
    require_apart(folds, groups)
    return folds


def given_folds(names: Sequence[str]) -> Folds:
    """Make a fold of the items of each name."""
    _, owner = np.unique(np.asarray(names), return_inverse=True)
    return [np.flatnonzero(owner == number) for number in range(int(owner.max()) + 1)]


def require_apart(folds: Folds, groups: Groups, names: Sequence[str] = ()) -> None:
    """Check that no group is in two folds.

    Args:
        folds: which items each leaves out.
        groups: `[n]`.
        names: of the groups, by their number.

    Raises:
        DataError: one is, and is named.
    """
    fold_of: dict[int, int] = {}
    for number, fold in enumerate(folds):
        for group in np.unique(groups[fold]).tolist():
            if fold_of.setdefault(group, number) != number:
                name = names[group] if names else str(group)
                raise DataError(
                    f"the group {name!r} is in two folds, so what is left out would have been "
                    "seen; give each group one fold, or leave --fold-by out"
                )
