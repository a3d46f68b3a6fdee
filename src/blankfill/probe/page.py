"""A probe as one HTML page: no network, no fonts or scripts from elsewhere, light and dark.

Its sections are the article's words for a generalized linear model: data preparation, choice of
family, variation explained, variance, value, validation; then whether the fit is right, and what
none of this shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from blankfill.probe.charts import (
    calibration_chart,
    code_chart,
    layer_chart,
    variance_chart,
    worm_chart,
)
from blankfill.probe.notes import notes_of
from blankfill.probe.outcome import ProbeExplained, ProbeResult, ProbeScore
from blankfill.probe.words import WORDS, say
from blankfill.report.chart import Chart, draw_chart
from blankfill.report.page import foot, frame_page
from blankfill.report.tables import table
from blankfill.report.words import Language

__all__ = ["build_page", "is_probe"]

MARK = "<!doctype html><!-- blankfill probe -->"
"""How every page begins, so that a later one knows what it may replace."""


def is_probe(path: Path) -> bool:
    """Tell whether a file is the page of a probe, by how it begins."""
    with path.open("rb") as file:
        return file.read(len(MARK)) == MARK.encode()


def build_page(result: ProbeResult, lang: Language) -> str:
    """Build the page of a probe.

    Args:
        result: what was found.
        lang: language of the page.
    """
    sections = [
        _section("variation", _variation(result, lang), lang),
        _section("validation", _validation(result, lang), lang),
        _section("value", _value(result, lang), lang),
        _section("variance", _variance(result, lang), lang),
        _section("fit", _fit(result, lang), lang),
        _section("family", _family(result, lang), lang),
        _section("preparation", _preparation(result, lang), lang),
        _section("notes", _notes(result, lang), lang),
    ]
    title = f"{result.target} - {Path(result.run).name} - {say('title', lang)}"
    body = f"{_head(result, lang)}<main>{''.join(sections)}</main>{foot(lang)}"
    return frame_page(MARK, title, body, lang)


def _head(result: ProbeResult, lang: Language) -> str:
    of = say("of", lang, result.target, Path(result.data).name, result.family, result.link)
    facts = [
        f"{Path(result.run).name}, {say('step', lang, f'{result.step:,}')}",
        say("read", lang, result.text, result.at),
        say("items", lang, f"{result.cleaning.kept:,}", f"{result.cleaning.groups:,}"),
    ]
    score = result.score
    tiles = [
        (say("explained", lang), f"{score.explained:.3f}", ""),
        (say(score.measure, lang), _number(score.value),
         say("margin", lang) + f" {score.baseline:.3f}" if score.measure == "accuracy" else ""),
        (say("gain", lang), say("nats", lang, f"{score.gain:.3f}", f"{score.gain_error:.3f}"), ""),
        (say("selectivity", lang), _number(round(result.selectivity, 3)), ""),
        (say("layer chosen", lang), str(result.layer), ""),
    ]  # fmt: skip
    shown = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
        + (f"<dd class='source'>{escape(source)}</dd>" if source else "")
        + "</div>"
        for name, value, source in tiles
    )
    return (
        f'<header><p class="brand">blank<b>fill</b> <span>{say("title", lang)}</span></p>'
        f"<h1>{escape(result.target)}</h1><p>{escape(of)}</p>"
        f"<p>{escape(', '.join(facts))}</p>"
        f'<dl class="tiles">{shown}</dl></header>'
    )


def _variation(result: ProbeResult, lang: Language) -> str:
    scores = [result.score, *result.beside]
    rows = [_score_row(say(score.name, lang), score, lang) for score in scores]
    if result.explained is not None:
        name = say("components", lang, result.explained.components)
        rows.append(_score_row(name, result.explained.left_out, lang))
    head = [say(key, lang) for key in ("from", "explained", "gain short", "measure")]
    body = _note("scores note", lang) + table(head, rows, kind="numbers")
    body += _grid([layer_chart(result, lang), code_chart(result, lang)])
    if result.explained is not None:
        body += _analysis(result.explained, lang)
    return body


def _analysis(fit: ProbeExplained, lang: Language) -> str:
    rows = [[say("null", lang), _number(fit.null_deviance), "", "", ""]]
    before = 0
    for step in fit.steps:
        span = str(step.components)
        if step.components - before > 1:
            span = f"{before + 1}\u2013{step.components}"
        rows.append([span, _number(step.deviance), _number(step.ratio), str(step.degrees),
                     _chance(step.p_value)])  # fmt: skip
        before = step.components
    head = [say(key, lang) for key in ("up to", "deviance", "ratio", "degrees", "p")]
    return f"<h3>{say('analysis', lang)}</h3>{table(head, rows)}"


def _validation(result: ProbeResult, lang: Language) -> str:
    stability, calibration = result.stability, result.calibration
    rows = [
        [say("of folds", lang), _list(stability.folds)],
        [say("of seeds", lang), _list(stability.seeds)],
        [say("of layers", lang), ", ".join(map(str, stability.layers))],
        [say("calibration", lang), say(
            "slope", lang, _number(calibration.slope), _number(calibration.slope_error),
            _number(calibration.error),
        )],
    ]  # fmt: skip
    return table([], rows) + _grid([calibration_chart(result, lang)])


def _value(result: ProbeResult, lang: Language) -> str:
    fit = result.explained
    if fit is None:
        return f'<p class="note">{escape(say("not explained", lang, result.not_explained))}</p>'
    summary = say(
        "fit summary", lang, say(fit.method, lang), fit.components,
        ", ".join(map(str, fit.chosen)), f"{fit.log_likelihood:.1f}", f"{fit.deviance:.1f}",
        f"{fit.null_deviance:.1f}", f"{fit.aic:.1f}", f"{fit.bic:.1f}", _number(fit.dispersion),
    )  # fmt: skip
    if fit.clustered:
        summary += " " + say("clustered", lang)
    rows = [
        [
            say("component", lang, effect.component),
            escape(_changed(effect.of, result.target, lang)),
            f"{effect.value:+.3g}", f"{effect.low:+.3g} \u2026 {effect.high:+.3g}",
        ]
        for effect in fit.effects
    ]  # fmt: skip
    head = ["", "", say("effect", lang), say("interval", lang)]
    coefficients = [
        [escape(each.name), f"{each.value:+.4g}", f"{each.error:.3g}", _chance(each.p_value)]
        for each in fit.coefficients
    ]
    names = [say(key, lang) for key in ("coefficient", "value", "standard error", "p")]
    return (
        f'<p class="note">{escape(summary)}</p>{_note("effects note", lang)}'
        f"{table(head, rows)}<details><summary>{say('coefficients', lang)}</summary>"
        f"{table(names, coefficients)}</details>"
    )


def _changed(of: str, target: str, lang: Language) -> str:
    return say("on", lang, of) if of else say("on mean", lang, target)


def _variance(result: ProbeResult, lang: Language) -> str:
    if result.explained is None:
        return ""
    return _grid([variance_chart(result.explained, lang)])


def _fit(result: ProbeResult, lang: Language) -> str:
    fit = result.explained
    if fit is None:
        return ""
    rows = [
        [say(test.name, lang), _number(test.statistic), _chance(test.p_value),
         _number(test.found), _number(test.expected)]
        for test in fit.tests
    ]  # fmt: skip
    head = [say(key, lang) for key in ("test", "statistic", "p", "found", "expected")]
    influence = say(
        "influence", lang, fit.influential, _number(fit.largest_influence),
        ", ".join(map(_tail, fit.most_influential)) or "-",
    )  # fmt: skip
    return (
        f"{table(head, rows)}<p class='note'>{escape(influence)}</p>"
        f"{_grid([worm_chart(fit, lang)])}"
    )


def _family(result: ProbeResult, lang: Language) -> str:
    if not result.families:
        return ""
    rows: list[list[str]] = []
    for each in sorted(result.families, key=lambda each: (bool(each.refused), each.bic)):
        taken = each.family == result.family
        key = "words target" if each.refused == "words" else each.refused
        reason = say("taken", lang) if taken else say(key, lang) if key in WORDS else key
        numbers = [f"{each.log_likelihood:.1f}", str(each.parameters), f"{each.aic:.1f}",
                   f"{each.bic:.1f}"]  # fmt: skip
        rows.append([each.family, *(["", "", "", ""] if each.refused else numbers), escape(reason)])
    head = [say("family name", lang), say("log likelihood", lang), say("parameters", lang), "AIC",
            "BIC", ""]  # fmt: skip
    without = ", ".join(result.stability.families)
    return (
        f"{_note('compared', lang)}{table(head, rows)}"
        f'<p class="note">{escape(say("without folds", lang, without))}</p>'
    )


def _preparation(result: ProbeResult, lang: Language) -> str:
    cleaning, columns = result.cleaning, result.collinearity
    counts = [
        (say("records", lang), cleaning.read), (say("unreadable", lang), cleaning.unreadable),
        *((say("missing", lang, name), count) for name, count in cleaning.missing.items()),
        (say("duplicates", lang), cleaning.duplicates), (say("too long", lang), cleaning.too_long),
        (say("contradictions", lang), cleaning.contradictions), (say("kept", lang), cleaning.kept),
    ]  # fmt: skip
    rows = [[escape(name), f"{count:,}"] for name, count in counts]
    of_columns = [
        [say("columns", lang), f"{columns.columns:,}"],
        [say("constant", lang), f"{columns.constant:,}"],
        [say("rank of columns", lang), f"{columns.rank:,}"],
        [say("condition", lang), _number(columns.number)],
        [say("correlation", lang), f"{columns.correlation:.4f}"],
    ]
    left_out = "".join(f"<li>{escape(each)}</li>" for each in cleaning.first)
    folded = f"<details><summary>{say('left out', lang)}</summary><ul>{left_out}</ul></details>"
    return (
        f'{_note("inside", lang)}<div class="parts"><div>{table([], rows)}</div>'
        f"<div>{table([], of_columns)}</div></div>{folded if left_out else ''}"
    )


def _notes(result: ProbeResult, lang: Language) -> str:
    shown = "".join(f"<li>{escape(note)}</li>" for note in notes_of(result, lang))
    return f"<ul>{shown}</ul>"


def _score_row(name: str, score: ProbeScore, lang: Language) -> list[str]:
    measure = f"{say(score.measure, lang)} {score.value:.3f}"
    if score.measure == "accuracy":
        measure = say("against", lang, measure, f"{score.baseline:.3f}")
    gain = f"{score.gain:+.3f} <small>\u00b1 {score.gain_error:.3f}</small>"
    return [escape(name), f"{score.explained:.3f}", gain, escape(measure)]


def _section(key: str, body: str, lang: Language) -> str:
    return f'<section id="{key}"><h2>{say(key, lang)}</h2>{body}</section>' if body else ""


def _grid(charts: Sequence[Chart]) -> str:
    drawn = "".join(map(draw_chart, charts))
    return f'<div class="charts">{drawn}</div>' if drawn else ""


def _note(key: str, lang: Language) -> str:
    return f'<p class="note">{escape(say(key, lang))}</p>'


def _number(value: float) -> str:
    return f"{value:.4g}" if value == value else "\u2013"


def _chance(p: float) -> str:
    if p != p:
        return "\u2013"
    return "&lt; 0.0001" if p < 1e-4 else f"{p:.4f}"


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def _tail(place: str) -> str:
    """Name a file and line without the folders before it."""
    return place.rpartition("/")[2]
