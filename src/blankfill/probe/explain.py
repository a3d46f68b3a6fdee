"""What a few components explain: how many are taken, what each adds, and what it is worth.

The number of components is chosen by cross-validation: in every fold they are learnt from what is
left, each number is fitted, and what was left out is predicted. An outer layer of folds, whose
choice is made inside, says how good the chosen fit is. The fit that is reported is of all items.

Shapes: n items, D columns, k components.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from blankfill.probe.components import Components, is_separated, learn_components
from blankfill.probe.families import Float64, Law, marginal_law
from blankfill.probe.folds import Folds
from blankfill.probe.likelihood import Fitted, Groups, NoFitError, fit_likelihood
from blankfill.probe.names import CATEGORICAL, COUNTS, FamilyName, LinkName
from blankfill.probe.nested import INNER_FOLDS, Task
from blankfill.probe.outcome import ComponentEffect, DevianceStep
from blankfill.rng import generator

__all__ = ["Explained", "explain_target", "fit_task", "rarest"]

NUMBERS = (1, 2, 4, 8, 16, 32)
"""Numbers of components that are tried."""
ITEMS_A_COEFFICIENT = 10
"""Items, or items of the rarest class, that each coefficient needs (Peduzzi et al. 1996)."""
MOST_COEFFICIENTS = 150
DRAWS = 1000
"""Draws of the coefficients from which the interval of an effect is taken."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Explained:
    """The fit that explains."""

    fitted: Fitted
    components: Components
    design: Float64
    """`[n, k]` components of all items."""
    chosen: tuple[int, ...]
    """Number of components that each outer fold chose."""
    tried: dict[int, float]
    """Of each number, the mean nats an item by which it predicts better than the margin."""
    left_out: Law
    """What the outer folds predicted, each with its own number."""
    separated: int
    """The least number of components that separates classes; 0 where none does."""
    steps: tuple[DevianceStep, ...]
    null: Fitted
    effects: tuple[ComponentEffect, ...]


def explain_target(
    task: Task, link: LinkName, features: Float64, folds: Folds, classes: Sequence[str], *,
    seed: int = 0,
) -> Explained:  # fmt: skip
    """Fit a target on components of one layer.

    Args:
        task: targets and groups.
        link: one that the family has.
        features: `[n, D]`.
        folds: the outer ones.
        classes: names of the classes or levels.
        seed: of the inner folds and the intervals.

    Raises:
        NoFitError: no number of components has a maximum likelihood fit.
    """
    everything = learn_components(features)
    numbers, separated = _numbers(task, everything, features)
    if not numbers:
        raise NoFitError(
            "one component already separates the classes perfectly, so maximum likelihood has no "
            "finite answer; take --fit predict, whose penalty keeps it finite"
        )
    laws: list[Law] = []
    chosen: list[int] = []
    for fold in folds:
        kept = np.setdiff1d(np.arange(len(task.y)), fold)
        known = task.take(kept)
        gains = _gains(known, link, features[kept], known.draw(INNER_FOLDS, seed), numbers)
        number = max(gains, key=lambda k: gains[k])
        chosen.append(number)
        laws.append(_predict(task, link, features, kept, fold, [number])[number])
    tried = _gains(task, link, features, folds, numbers)
    number = max(tried, key=lambda k: tried[k])
    design = everything.apply(features, number)
    fitted = fit_task(task, link, design, clustered=True)
    joined = Law.joined(laws, folds)
    null, steps = _steps(task, link, design)
    return Explained(
        fitted=fitted, components=everything, design=design, chosen=tuple(chosen), tried=tried,
        left_out=joined, separated=separated, steps=steps, null=null,
        effects=_effects(task, fitted, design, classes, seed),
    )  # fmt: skip


def fit_task(task: Task, link: LinkName, components: Float64, *, clustered: bool = False) -> Fitted:
    """Fit all of a task; with errors that know of its groups where these are asked for."""
    return fit_likelihood(
        task.family, link, components, task.y, exposure=task.exposure,
        num_classes=task.num_classes, groups=task.groups if clustered else None,
    )  # fmt: skip


def rarest(family: FamilyName, y: Float64) -> int:
    """Count the items that bound how many coefficients can be told apart."""
    if family in CATEGORICAL:
        return int(np.bincount(y.astype(int)).min())
    return len(y) if family not in COUNTS else max(int(min(y.sum(), len(y))), 1)


def _numbers(task: Task, everything: Components, features: Float64) -> tuple[list[int], int]:
    """Give the numbers of components that can be fitted, and the least that separates."""
    per_component = max(task.num_classes - 1, 1) if task.family == "multinomial" else 1
    items = rarest(task.family, task.y) * (task.num_classes if task.num_classes else 1)
    most = min(
        items * 2 // 3 // ITEMS_A_COEFFICIENT // per_component,
        MOST_COEFFICIENTS // per_component, everything.rank,
    )  # fmt: skip
    numbers = [k for k in NUMBERS if k <= max(most, 1) and k <= everything.rank]
    for k in list(numbers):
        if is_separated(task.family, everything.apply(features, k), task.y, task.num_classes):
            return [each for each in numbers if each < k], k
    return numbers, 0


def _gains(
    task: Task, link: LinkName, features: Float64, folds: Folds, numbers: Sequence[int]
) -> dict[int, float]:
    """Give the nats an item that each number of components gains over the margin, left out."""
    sums = dict.fromkeys(numbers, 0.0)
    for fold in folds:
        kept = np.setdiff1d(np.arange(len(task.y)), fold)
        nothing = marginal_law(task.family, task.y[kept], task.exposure[kept], task.num_classes)
        floor = nothing(task.exposure[fold]).log_density(task.y[fold]).sum()
        for k, law in _predict(task, link, features, kept, fold, numbers).items():
            sums[k] += float(law.log_density(task.y[fold]).sum() - floor)
    return {k: total / len(task.y) for k, total in sums.items()}


def _predict(
    task: Task, link: LinkName, features: Float64, kept: Groups, fold: Groups,
    numbers: Sequence[int],
) -> dict[int, Law]:  # fmt: skip
    """Predict a fold with each number of components; where one has no fit, by the margin."""
    known = task.take(kept)
    learnt = learn_components(features[kept])
    laws: dict[int, Law] = {}
    for k in numbers:
        try:
            fitted = fit_task(known, link, learnt.apply(features[kept], k))
            laws[k] = fitted.law(learnt.apply(features[fold], k), task.exposure[fold])
        except NoFitError:
            nothing = marginal_law(task.family, known.y, known.exposure, task.num_classes)
            laws[k] = nothing(task.exposure[fold])
    return laws


def _steps(task: Task, link: LinkName, design: Float64) -> tuple[Fitted, tuple[DevianceStep, ...]]:
    """Add components one by one, after the eighth twice as many at a time."""
    count = design.shape[1]
    ends = [k for k in (*range(1, 9), 16, 32) if k < count] + [count]
    before = null = fit_task(task, link, design[:, :0])
    steps: list[DevianceStep] = []
    for end in ends:
        fitted = fit_task(task, link, design[:, :end])
        ratio = max(2 * (fitted.log_likelihood - before.log_likelihood), 0.0)
        degrees = fitted.num_parameters - before.num_parameters
        steps.append(DevianceStep(
            components=end, deviance=fitted.deviance, ratio=ratio, degrees=degrees,
            p_value=float(stats.chi2.sf(ratio, degrees)),
        ))  # fmt: skip
        before = fitted
    return null, tuple(steps)


def _effects(
    task: Task, fitted: Fitted, design: Float64, classes: Sequence[str], seed: int
) -> tuple[ComponentEffect, ...]:
    """Give what one more of each of the first components changes, of several classes the one whose
    probability changes most."""
    rng = generator(seed, "effects")
    root = _root(fitted.covariance)
    draws = fitted.params + rng.standard_normal((DRAWS, len(fitted.params))) @ root.T
    # Averages over the items need no more of them than this.
    shown = design if len(design) <= 500 else design[rng.choice(len(design), 500, replace=False)]
    ones = np.ones(len(shown))

    def changes(params: Float64, component: int) -> Float64:
        more = shown.copy()
        more[:, component] += 1
        moved = fitted.mean_of(params, more, ones) - fitted.mean_of(params, shown, ones)
        if task.family == "ordinal":
            moved = moved @ np.arange(moved.shape[1])
        return np.atleast_1d(moved.mean(0))

    effects: list[ComponentEffect] = []
    for component in range(min(design.shape[1], 8)):
        at = changes(fitted.params, component)
        drawn = np.stack([changes(each, component) for each in draws])
        which = _shown_class(task.family, at)
        low, high = np.quantile(drawn[:, which], [0.025, 0.975])
        name = classes[which] if task.family in ("binomial", "multinomial") else ""
        effects.append(ComponentEffect(
            component=component + 1, of=name, value=float(at[which]), low=float(low),
            high=float(high),
        ))  # fmt: skip
    return tuple(effects)


def _shown_class(family: FamilyName, changes: Float64) -> int:
    if family == "binomial":
        return 1
    return int(np.abs(changes).argmax())


def _root(covariance: Float64) -> Float64:
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    return vectors * np.sqrt(np.clip(values, 0.0, None))
