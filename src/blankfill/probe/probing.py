"""A whole probe: from hidden states and targets to what its page shows.

Shapes: n items, D hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from blankfill.probe.beside import control_task, count_words, lengths, online_code, permuted
from blankfill.probe.choose import admissions, choose_family, compare
from blankfill.probe.components import learn_components, varying_columns
from blankfill.probe.diagnose import diagnose, variance_points, worm
from blankfill.probe.explain import Explained, explain_target
from blankfill.probe.families import Float64
from blankfill.probe.folds import Folds
from blankfill.probe.likelihood import Groups, NoFitError
from blankfill.probe.names import FamilyName, LinkName
from blankfill.probe.nested import Nested, Task, cross_validate, margin_of, most_frequent
from blankfill.probe.outcome import (
    ComparedFamily,
    ProbeCoefficient,
    ProbeExplained,
    ProbeLayer,
    ProbeScore,
    ProbeStability,
)
from blankfill.probe.penalised import Features
from blankfill.probe.scoring import explained, score_law
from blankfill.probe.table import Value

__all__ = [
    "Choice",
    "Probed",
    "Settings",
    "choose",
    "explain_layer",
    "predict_layers",
    "steps_of",
    "usable",
]

AUTO_COMPONENTS = 4
"""Components on which families are compared."""
WORM_POINTS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How a probe is made."""

    seed: int
    seeds: int
    """How many deals of folds."""
    num_folds: int
    given: Folds | None
    """Folds of the caller's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which family `auto` took, and beside which."""

    family: FamilyName
    compared: tuple[ComparedFamily, ...]
    without_folds: tuple[str, ...]
    """What it would have taken without each fold."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Probed:
    """What the penalised fits gave."""

    nested: Nested
    layer: int
    layers: tuple[ProbeLayer, ...]
    score: ProbeScore
    beside: tuple[ProbeScore, ...]
    selectivity: float
    stability: ProbeStability


def usable(layers: Mapping[int, Float64]) -> dict[int, Float64]:
    """Give the layers that differ between items at all, without columns that do not."""
    found: dict[int, Float64] = {}
    for layer, features in layers.items():
        kept = varying_columns(features)
        if kept.any():
            found[layer] = np.ascontiguousarray(features[:, kept])
    return found


def choose(
    values: Sequence[Value], task: Task, levels: Task | None, features: Float64, folds: Folds, *,
    ordered: bool, exposed: bool,
) -> Choice:  # fmt: skip
    """Choose the family of a target.

    Args:
        values: `[n]` as they were given.
        task: the target as numbers; its family is not read.
        levels: the target as levels, where it may be.
        features: `[n, D]` of the layer on whose components families are compared.
        folds: for how the choice moves.
        ordered: whether the caller has named the order of its words.
        exposed: whether there is an exposure, which counts alone take.
    """
    admitted = admissions(values, ordered=ordered, exposed=exposed)

    def compared(items: Groups) -> list[ComparedFamily]:
        learnt = learn_components(features[items])
        design = learnt.apply(features[items], min(AUTO_COMPONENTS, learnt.rank))
        return compare(task.take(items), levels and levels.take(items), design, admitted)

    alone: list[FamilyName] = [each.family for each in admitted if not each.reason]
    everything = compared(np.arange(len(task.y)))
    if len(alone) == 1:  # nothing to compare it with, whether or not it has a fit
        return Choice(
            family=alone[0], compared=tuple(everything), without_folds=(alone[0],) * len(folds)
        )
    without: list[str] = []
    for fold in folds:
        kept = np.setdiff1d(np.arange(len(task.y)), fold)
        try:
            without.append(choose_family(compared(kept)))
        except NoFitError:
            without.append("none")
    return Choice(
        family=choose_family(everything), compared=tuple(everything), without_folds=tuple(without)
    )


def predict_layers(
    task: Task, trained: Mapping[int, Float64], untrained: Mapping[int, Float64],
    tokens: Sequence[Groups], texts: Sequence[str], types: Sequence[int], vocab_size: int,
    settings: Settings, families: tuple[str, ...], advance: Callable[[int], None],
) -> Probed:  # fmt: skip
    """Predict the target from every layer, and from what stands beside them.

    Args:
        task: targets and groups.
        trained: `[n, D]` of each layer.
        untrained: the same of the first weights; layers may be missing.
        tokens: `[n]` ids of each text.
        texts: `[n]`.
        types: `[n]` what the control task gives its values by.
        vocab_size: V.
        settings: seeds and folds.
        families: what `auto` would have taken without each fold.
        advance: called as work is done; see `steps_of`.
    """
    seed = settings.seed
    folds = settings.given or task.draw(settings.num_folds, seed)
    nested = cross_validate(task, trained, folds, seed=seed, advance=advance)
    first = (
        cross_validate(task, untrained, folds, seed=seed, advance=advance) if untrained else None
    )
    layer = int(most_frequent(list(nested.layers)))
    score = score_law("representation", task, nested.chosen, nested.marginal)
    others: dict[str, tuple[Task, Features]] = {
        "words": (task, count_words(tokens, vocab_size)),
        "length": (task, lengths(tokens, texts)),
        "control": (control_task(task, types, seed), trained[layer]),
        "permuted": (permuted(task, seed), trained[layer]),
    }
    beside: list[ProbeScore] = []
    if first is not None:
        beside.append(score_law("untrained", task, first.chosen, first.marginal))
    for name, (of, features) in others.items():
        if len(np.unique(of.y)) < 2:
            continue
        found = cross_validate(of, {0: features}, folds, seed=seed, advance=advance)
        beside.append(score_law(name, of, found.chosen, found.marginal))
    control = next((each.explained for each in beside if each.name == "control"), math.nan)
    layers = [
        _layer(task, number, trained, untrained, nested, first, seed, advance)
        for number in trained
    ]  # fmt: skip
    seeds = [explained(task.y, nested.by_layer[layer], nested.marginal)]
    for more in range(1, settings.seeds if settings.given is None else 1):
        again = task.draw(settings.num_folds, seed + more)
        found = cross_validate(task, {layer: trained[layer]}, again, seed=seed + more,
                               advance=advance)  # fmt: skip
        seeds.append(explained(task.y, found.chosen, found.marginal))
    return Probed(
        nested=nested, layer=layer, layers=tuple(layers), score=score, beside=tuple(beside),
        selectivity=score.explained - control,
        stability=ProbeStability(
            folds=tuple(_of_items(task, nested, fold) for fold in folds), seeds=tuple(seeds),
            layers=nested.layers, families=families,
        ),
    )  # fmt: skip


def steps_of(num_layers: int, num_untrained: int, num_folds: int, seeds: int) -> int:
    """Count what `predict_layers` tells of."""
    return num_folds * (num_layers + num_untrained + 4 + seeds - 1) + num_layers


def explain_layer(
    task: Task, link: LinkName, features: Float64, folds: Folds, classes: Sequence[str],
    places: Sequence[str], seed: int,
) -> ProbeExplained:  # fmt: skip
    """Fit components of one layer by maximum likelihood, and examine the fit.

    Args:
        task: targets and groups.
        link: one that the family has.
        features: `[n, D]`.
        folds: the outer ones.
        classes: names of classes or levels.
        places: `[n]` where the items stand.
        seed: of inner folds, intervals and residuals.

    Raises:
        NoFitError: no number of components has a maximum likelihood fit.
    """
    found = explain_target(task, link, features, folds, classes, seed=seed)
    fitted = found.fitted
    seen = diagnose(task, link, fitted, found.design, seed=seed)
    marginal = margin_of(task, folds)
    z = fitted.params / np.where(fitted.errors > 0, fitted.errors, np.nan)
    coefficients = tuple(
        ProbeCoefficient(name=name, value=float(value), error=float(error), p_value=float(p))
        for name, value, error, p in zip(
            fitted.names, fitted.params, fitted.errors, 2 * stats.norm.sf(np.abs(z)), strict=True
        )
    )
    return ProbeExplained(
        components=found.design.shape[1], chosen=found.chosen,
        tried={str(k): gain for k, gain in found.tried.items()}, separated=found.separated,
        method="generalized least squares" if fitted.correlation else "maximum likelihood",
        clustered=fitted.clustered or fitted.correlation > 0, correlation=fitted.correlation,
        dispersion=fitted.dispersion, log_likelihood=fitted.log_likelihood,
        null_deviance=found.null.deviance, deviance=fitted.deviance, aic=fitted.aic,
        bic=fitted.bic(len(task.y)),
        left_out=score_law("components", task, found.left_out, marginal),
        coefficients=coefficients, steps=found.steps, effects=found.effects, tests=seen.tests,
        influential=len(seen.influential),
        most_influential=tuple(places[i] for i in seen.influential[:5]),
        largest_influence=float(seen.influence.max()), worm=_worm(seen.residuals),
        variance=_variance(task, found),
    )  # fmt: skip


def _layer(
    task: Task, number: int, trained: Mapping[int, Float64], untrained: Mapping[int, Float64],
    nested: Nested, first: Nested | None, seed: int, advance: Callable[[int], None],
) -> ProbeLayer:  # fmt: skip
    mine = score_law("representation", task, nested.by_layer[number], nested.marginal)
    nothing = score_law("untrained", task, nested.marginal, nested.marginal)
    if first is not None and number in first.by_layer:
        nothing = score_law("untrained", task, first.by_layer[number], first.marginal)
    code = online_code(task, trained[number], seed=seed)
    other = online_code(task, untrained[number], seed=seed) if number in untrained else 0.0
    advance(1)
    return ProbeLayer(
        layer=number, trained=mine, untrained=nothing, penalty=nested.penalties[number], code=code,
        untrained_code=other,
    )  # fmt: skip


def _of_items(task: Task, nested: Nested, items: Groups) -> float:
    return explained(task.y[items], nested.chosen.take(items), nested.marginal.take(items))


def _worm(residuals: Float64) -> tuple[tuple[float, float, float], ...]:
    """Thin a worm plot: its ends whole, where it tells most."""
    normal, above, band = worm(residuals)
    n = len(normal)
    index = np.arange(n)
    if n > WORM_POINTS:
        ends = WORM_POINTS // 8
        inner = np.linspace(ends, n - ends - 1, WORM_POINTS - 2 * ends).astype(int)
        index = np.unique(np.concatenate([np.arange(ends), inner, np.arange(n - ends, n)]))
    return tuple((float(normal[i]), float(above[i]), float(band[i])) for i in index)


def _variance(task: Task, found: Explained) -> tuple[tuple[float, float, float], ...]:
    return variance_points(found.fitted.law(found.design, task.exposure), task.y)
