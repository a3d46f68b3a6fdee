"""The charts of a probe's page."""

from __future__ import annotations

from blankfill.probe.outcome import ProbeExplained, ProbeResult
from blankfill.probe.words import say
from blankfill.report.chart import Chart, Line
from blankfill.report.read import Point
from blankfill.report.words import Language

__all__ = ["calibration_chart", "code_chart", "layer_chart", "variance_chart", "worm_chart"]

GREY = 7
"""Colour of what a chart is held against."""


def layer_chart(result: ProbeResult, lang: Language) -> Chart:
    """Chart the deviance that each layer explains, beside the untrained model."""
    return _by_layer(
        result, "by layer", say("share", lang),
        [each.trained.explained for each in result.layers],
        [each.untrained.explained for each in result.layers], lang,
    )  # fmt: skip


def code_chart(result: ProbeResult, lang: Language) -> Chart:
    """Chart the online code length of each layer."""
    return _by_layer(
        result, "code", say("bits", lang), [each.code for each in result.layers],
        [each.untrained_code for each in result.layers], lang,
    )  # fmt: skip


def calibration_chart(result: ProbeResult, lang: Language) -> Chart:
    """Chart what came true against what was predicted."""
    points = result.calibration.points
    ends = sorted({points[0][0], points[-1][0]})
    return Chart(
        title=say("calibration", lang), unit=say("observed", lang), x_name=say("predicted", lang),
        lines=[
            _line(say("right", lang), [Point(x, x) for x in ends], GREY),
            Line(name=say("observed", lang), points=[Point(x, y) for x, y, _, _ in points],
                 style="points"),
        ],
    )  # fmt: skip


def variance_chart(fit: ProbeExplained, lang: Language) -> Chart:
    """Chart the family's variance function beside the squared residuals."""
    return Chart(
        title=say("variance chart", lang), unit=say("variance", lang), x_name=say("mean", lang),
        from_zero=True,
        lines=[
            _line(say("as family", lang), [Point(x, y) for x, y, _ in fit.variance], GREY),
            Line(name=say("as seen", lang), points=[Point(x, y) for x, _, y in fit.variance],
                 style="points"),
        ],
    )  # fmt: skip


def worm_chart(fit: ProbeExplained, lang: Language) -> Chart:
    """Chart the detrended normal plot of the quantile residuals, in its band."""
    return Chart(
        title=say("worm", lang), unit=say("above", lang), x_name=say("normal", lang),
        lines=[
            _line(say("band", lang), [Point(x, band) for x, _, band in fit.worm], GREY),
            _line("", [Point(x, -band) for x, _, band in fit.worm], GREY),
            Line(name=say("above", lang), points=[Point(x, y) for x, y, _ in fit.worm],
                 style="points"),
        ],
    )  # fmt: skip


def _by_layer(
    result: ProbeResult, title: str, unit: str, trained: list[float], untrained: list[float],
    lang: Language,
) -> Chart:  # fmt: skip
    numbers = [each.layer for each in result.layers]
    values = ((say("trained", lang), trained, 0), (say("not trained", lang), untrained, GREY))
    return Chart(
        title=say(title, lang), unit=unit, x_name=say("layer", lang),
        lines=[
            Line(name=name, points=[Point(x, y) for x, y in zip(numbers, ys, strict=True)],
                 colour=colour, style="dots")
            for name, ys, colour in values
        ],
    )  # fmt: skip


def _line(name: str, points: list[Point], colour: int) -> Line:
    return Line(name=name, points=points, colour=colour, noisy=False)
