"""How well a target was predicted of items that were left out, beside what knows no item.

Shapes: n items.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy import stats

from blankfill.evaluate.statistics import ratio_of_sums
from blankfill.probe.families import Float64, Law
from blankfill.probe.names import CATEGORICAL
from blankfill.probe.nested import Task
from blankfill.probe.outcome import ProbeScore

__all__ = ["explained", "score_law"]


def score_law(name: str, task: Task, law: Law, marginal: Law) -> ProbeScore:
    """Score predictions.

    Args:
        name: what they were made from.
        task: the targets.
        law: what was predicted.
        marginal: what knows no item, of the same folds.
    """
    gains = law.log_density(task.y) - marginal.log_density(task.y)
    gain = ratio_of_sums(gains, np.ones(len(gains)), [str(group) for group in task.groups])
    measure, value, baseline = _measure(task, law, marginal)
    return ProbeScore(
        name=name, explained=explained(task.y, law, marginal), gain=gain.value,
        gain_error=gain.standard_error or 0.0, measure=measure, value=value, baseline=baseline,
    )  # fmt: skip


def explained(y: Float64, law: Law, marginal: Law) -> float:
    """Give the share of the margin's deviance that a law explains, both of its dispersion."""
    nothing = Law.of(law.family, marginal.mean, law.dispersion)
    return 1 - float(law.deviance(y).sum() / nothing.deviance(y).sum())


def _measure(task: Task, law: Law, marginal: Law) -> tuple[str, float, float]:
    y = task.y
    if law.family in CATEGORICAL and law.family != "ordinal":
        right = [float((each.mean.argmax(1) == y).mean()) for each in (law, marginal)]
        return "accuracy", right[0], right[1]
    said = law.expected()
    if law.family == "gaussian":
        return "R2", 1 - float(((y - said) ** 2).sum() / ((y - y.mean()) ** 2).sum()), 0.0
    if not said.std() or not y.std():
        return "rank", 0.0, 0.0
    with warnings.catch_warnings():
        # Predictions that differ in their last digits alone have no ranks.
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        found: Any = stats.spearmanr(said, y)
    return "rank", float(np.nan_to_num(found.statistic)), 0.0
