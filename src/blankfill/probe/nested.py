"""Nested cross-validation of the `predict` fit, layer by layer.

Of each outer fold, the inner folds of what is left choose the penalty of every layer, then the
layer; both are fitted on all of what is left and predict the fold. So no item was seen by anything
that predicts it: not by the standardisation, nor by the choice of penalty or layer.

Shapes: n items, D columns, K classes, F folds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from blankfill.probe.families import Float64, Law, dispersion_of, marginal_law
from blankfill.probe.folds import Folds, draw_folds
from blankfill.probe.likelihood import Groups
from blankfill.probe.names import CATEGORICAL, FamilyName
from blankfill.probe.penalised import PENALTIES, Features, mean_of

__all__ = [
    "INNER_FOLDS",
    "Nested",
    "Task",
    "choose_penalty",
    "cross_validate",
    "margin_of",
    "most_frequent",
]

INNER_FOLDS = 3


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Task:
    """What is to be predicted of some items."""

    family: FamilyName
    y: Float64
    """`[n]` targets; of classes and levels their numbers from 0."""
    groups: Groups
    """`[n]`."""
    exposure: Float64
    """`[n]`; ones where there is none."""
    num_classes: int = 0
    """K; 0 where there are none."""

    def take(self, items: Groups) -> Task:
        """Give the same of some items."""
        return Task(
            family=self.family, y=self.y[items], groups=self.groups[items],
            exposure=self.exposure[items], num_classes=self.num_classes,
        )  # fmt: skip

    def draw(self, count: int, seed: int) -> Folds:
        """Draw folds of the items, as many as their groups allow."""
        count = min(count, len(np.unique(self.groups)))
        return draw_folds(self.y, self.groups, count, seed=seed,
                          stratified=self.family in CATEGORICAL)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Nested:
    """What was predicted of items that were left out."""

    by_layer: dict[int, Law]
    """Of each layer, with the penalty that its inner folds chose."""
    chosen: Law
    """With the layer that they chose, too."""
    marginal: Law
    """Of what was left: shares of classes, or one rate."""
    layers: tuple[int, ...]
    """`[F]` the layer of each fold."""
    penalties: dict[int, float]
    """Of each layer, the penalty that most folds chose."""
    folds: Folds


def cross_validate(
    task: Task, layers: Mapping[int, Features], folds: Folds, *, seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> Nested:  # fmt: skip
    """Predict every item from those of the other folds.

    Args:
        task: targets and groups.
        layers: `[n, D]` features of each layer.
        folds: the outer ones; every item is in one.
        seed: of the inner folds.
        advance: called with 1 after each layer of each fold.
    """
    parts: dict[int, list[Law]] = {layer: [] for layer in layers}
    chosen: list[Law] = []
    best_layers: list[int] = []
    picked: dict[int, list[float]] = {layer: [] for layer in layers}
    for fold in folds:
        kept = np.setdiff1d(np.arange(len(task.y)), fold)
        known = task.take(kept)
        lacks: dict[int, float] = {}
        inner = known.draw(INNER_FOLDS, seed)
        for layer, features in layers.items():
            penalty, lack, spread = choose_penalty(known, features[kept], inner)
            mean = mean_of(task.family, features[kept], known.y, penalty, known.exposure,
                           task.num_classes)(features[fold], task.exposure[fold])  # fmt: skip
            parts[layer].append(Law.of(task.family, mean, spread))
            picked[layer].append(penalty)
            lacks[layer] = lack
            if advance is not None:
                advance(1)
        best = min(lacks, key=lambda layer: lacks[layer])
        best_layers.append(best)
        chosen.append(parts[best][-1])
    return Nested(
        by_layer={layer: Law.joined(laws, folds) for layer, laws in parts.items()},
        chosen=Law.joined(chosen, folds), marginal=margin_of(task, folds),
        layers=tuple(best_layers), folds=folds,
        penalties={layer: most_frequent(values) for layer, values in picked.items()},
    )  # fmt: skip


def margin_of(task: Task, folds: Folds) -> Law:
    """Predict every item by the margin of the other folds."""
    parts: list[Law] = []
    for fold in folds:
        known = task.take(np.setdiff1d(np.arange(len(task.y)), fold))
        nothing = marginal_law(task.family, known.y, known.exposure, task.num_classes)
        parts.append(nothing(task.exposure[fold]))
    return Law.joined(parts, folds)


def most_frequent(values: list[Any]) -> Any:
    """Give the value that stands most often in a list; of several the first."""
    return max(values, key=values.count)


def choose_penalty(task: Task, features: Features, inner: Folds) -> tuple[float, float, float]:
    """Give the penalty that predicts best, its lack in nats an item, and its dispersion."""
    best = (PENALTIES[-1], np.inf, 1.0)
    order = np.argsort(np.concatenate(inner))
    for penalty in PENALTIES:
        means: list[Float64] = []
        for fold in inner:
            kept = np.setdiff1d(np.arange(len(task.y)), fold)
            mean = mean_of(task.family, features[kept], task.y[kept], penalty, task.exposure[kept],
                           task.num_classes)(features[fold], task.exposure[fold])  # fmt: skip
            means.append(mean)
        joined = Law.of(task.family, np.concatenate(means)[order]).mean
        spread = dispersion_of(task.family, joined, task.y)
        lack = -float(Law.of(task.family, joined, spread).log_density(task.y).mean())
        if lack < best[1]:
            best = (penalty, lack, spread)
    return best
