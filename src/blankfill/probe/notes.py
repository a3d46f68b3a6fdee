"""What a reader of a probe should know before believing it."""

from __future__ import annotations

from collections.abc import Iterator

from blankfill.probe.names import LINKS
from blankfill.probe.outcome import ProbeResult
from blankfill.probe.penalised import PENALTIES
from blankfill.probe.words import say
from blankfill.report.words import Language

__all__ = ["notes_of"]

COLLINEAR = 30.0
"""Condition number above which columns are collinear (Belsley, Kuh and Welsch 1980)."""
FEW_ITEMS = 200
LEVEL = 0.01
"""Below this probability a test of the fit is told."""


def notes_of(result: ProbeResult, lang: Language) -> list[str]:
    """Give the notes of a probe as sentences."""
    return [say(key, lang, *values) for key, values in _notes(result)]


def _notes(result: ProbeResult) -> Iterator[tuple[str, tuple[object, ...]]]:
    yield "note probe", ()
    if result.at != "blank" and "MASK]" not in result.text:
        yield "note no blank", ()
    if result.cleaning.kept < FEW_ITEMS:
        yield "note few", (result.cleaning.kept,)
    yield from _of_beside(result)
    if len(result.layers) > 1 and result.layers[0].layer > 0:
        yield "note first", ()
    penalty = next(each.penalty for each in result.layers if each.layer == result.layer)
    if penalty in (PENALTIES[0], PENALTIES[-1]):
        yield "note edge", (f"{penalty:g}",)
    if result.collinearity.number > COLLINEAR:
        yield "note collinear", (f"{result.collinearity.number:.3g}",)
    if result.link != LINKS[result.family][0]:
        yield "note link", (LINKS[result.family][0], result.link)
    yield from _of_fit(result)


def _of_beside(result: ProbeResult) -> Iterator[tuple[str, tuple[object, ...]]]:
    mine = result.score.explained
    beside = {score.name: score for score in result.beside}
    for name, key in (("words", "note words"), ("untrained", "note untrained")):
        if name in beside and beside[name].explained >= mine:
            yield key, (f"{beside[name].explained:.3f}", f"{mine:.3f}")
    if "control" in beside and result.selectivity <= 0:
        yield "note control", ()
    chance = beside.get("permuted")
    if chance is not None and chance.gain > 3 * chance.gain_error > 0:
        yield "note permuted", ()


def _of_fit(result: ProbeResult) -> Iterator[tuple[str, tuple[object, ...]]]:
    fit = result.explained
    if fit is None:
        return
    if fit.separated:
        yield "note separated", (fit.separated,)
    yield "note conditional", ()
    if fit.clustered:
        yield "note independent", ()
    for test in fit.tests:
        if test.name == "normality" and test.p_value < LEVEL:
            yield "note misfit", (f"{test.p_value:.2g}", result.family)
        is_poisson = test.name == "dispersion" and result.family == "poisson"
        if is_poisson and test.p_value < LEVEL and test.found > 1:
            yield "note dispersed", (f"{test.found:.3g}",)
