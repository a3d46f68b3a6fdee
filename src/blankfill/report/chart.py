"""Line charts as inline SVG: drawn small, so that a page sets them side by side or one by one.

A chart is drawn in a box of 400 x 240 units that a page shows about 330 to 420 pixels wide; its
text therefore is as large on a phone as on a desktop. Colours are variables of the page
(`--c0` ..), which differ in light, dark and print.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from blankfill.report.labels import Labels
from blankfill.report.read import Point

__all__ = ["NUM_COLOURS", "Chart", "Line", "draw_chart", "format_value"]

NUM_COLOURS = 8
"""Colours of the page; more lines begin again."""
MAX_POINTS = 300
"""A line of more points is drawn by the means of as many stretches."""
LOG_SPREAD = 50.0
"""A chart that may be logarithmic is when its largest value is this many times the median."""

FIRST_STEPS = 0.02
"""Share of the steps whose values do not stretch the axis of a chart that falls from its start."""

WIDTH, HEIGHT = 400, 256
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 12, 44
PLOT = f'y="{TOP}" width="{WIDTH}" height="{HEIGHT - TOP}" viewBox="0 {TOP} {WIDTH} {HEIGHT - TOP}"'
"""Attributes of what is cut off above the axes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of a chart."""

    name: str
    """For the legend."""
    points: Sequence[Point]
    """By step."""
    colour: int = 0
    """Which colour of the page."""
    style: Literal["line", "dots", "points", "level"] = "line"
    """dots marks each point; points are not joined; level is a dashed line at the value of its only
    point."""
    noisy: bool = True
    """Whether a running mean is drawn over a line of many points."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """Lines over one pair of axes."""

    title: str
    """What is shown."""
    unit: str
    """Unit of the values, or what they are."""
    lines: Sequence[Line]
    """In the order of the legend."""
    x_name: str
    """What runs to the right."""
    from_zero: bool = False
    """Whether the axis begins at 0."""
    percent: bool = False
    """Whether values are shares, shown in percent."""
    falls: bool = False
    """Whether values fall from a high start, which is told in words and does not set the axis."""
    start_note: str = ""
    """How that start is told; of a value and a step."""
    may_be_log: bool = False
    """Whether values of very different size are put on a logarithmic axis."""
    names_shown: bool = False
    """Whether a single line has its name in the legend, too."""
    log_note: str = ""
    """What to say beside the unit when they are."""


def draw_chart(chart: Chart) -> str:
    """Draw a chart as an HTML figure; an empty string where no line has a point."""
    lines = [line for line in chart.lines if line.points]
    if not lines:
        return ""
    axes = _Axes(chart, lines)
    drawn = "".join(_draw_line(line, axes) for line in lines if line.style != "level")
    labels = _draw_labels(lines, axes, chart)
    unit = f"{chart.unit}, {chart.log_note}" if axes.log and chart.log_note else chart.unit
    label = f"{chart.title}, {unit}"
    return (
        '<figure class="chart">'
        f'<figcaption><b>{escape(chart.title)}</b> <span class="unit">{escape(unit)}</span>'
        f"</figcaption>{_legend(lines, chart.names_shown)}"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"{axes.draw(chart)}"
        f"<svg {PLOT}>{drawn}</svg>{labels}"
        f'<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/></svg>'
        f'<script type="application/json">{_values(lines, axes, chart)}</script>'
        "</figure>"
    )


def format_value(value: float, *, percent: bool = False) -> str:
    """Write a number as an axis or a cursor shows it."""
    if percent:
        return f"{100 * value:.3g}\u2009%"
    size = abs(value)
    for limit, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.4g}{unit}"
    if 0 < size < 1e-3:
        return f"{value:.3g}" if size < 1e-4 else f"{value:.7f}".rstrip("0")
    return f"{value:.4g}"


class _Axes:
    """The ranges of a chart and where values lie in its box."""

    def __init__(self, chart: Chart, lines: Sequence[Line]) -> None:
        values = [point.value for line in lines for point in line.points]
        steps = [p.step for line in lines if line.style != "level" for p in line.points] or [0.0]
        self.x = (min(*steps, 0.0), max(*steps, 0.0) or 1.0)
        positive = sorted(v for v in values if v > 0)
        self.log = (
            chart.may_be_log
            and len(positive) == len(values)
            and positive[-1] > LOG_SPREAD * positive[len(positive) // 2]
        )
        low, high = min(values), max(values)
        self.start = None if self.log or not chart.falls else self._start(lines)
        if self.start:
            high = self.start[1]
        if self.log:
            self.ticks = _decades(low, high)
            self.y = (math.log10(min(low, self.ticks[0])), math.log10(max(high, self.ticks[-1])))
        else:
            low = min(0.0, low) if chart.from_zero else low
            margin = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
            self.y = (low if chart.from_zero and low >= 0 else low - margin, high + margin)
            self.ticks = _ticks(*self.y, 6)

    def _start(self, lines: Sequence[Line]) -> tuple[Point, float] | None:
        """Find the highest of the first values, and the highest value after them.

        None where the first ones are no higher, or where no curve has two values after them: what
        is left would be the end of a line that falls from outside.
        """
        curves = [line for line in lines if line.style != "level"]
        first = self.x[0] + FIRST_STEPS * (self.x[1] - self.x[0])
        early = [p for line in curves for p in line.points if p.step <= first]
        late = [p.value for line in lines for p in line.points
                if line.style == "level" or p.step > first]  # fmt: skip
        after = (sum(p.step > first for p in line.points) for line in curves)
        if not early or max(after) < 2:
            return None
        top = max(early, key=lambda point: point.value)
        return (top, max(late)) if top.value > max(late) else None

    def place(self, point: Point) -> tuple[float, float]:
        """Give a point's place in the box; what lies above it is cut off where it is drawn."""
        value = math.log10(point.value) if self.log else point.value
        x = LEFT + (point.step - self.x[0]) / (self.x[1] - self.x[0]) * (WIDTH - LEFT - RIGHT)
        share = (value - self.y[0]) / (self.y[1] - self.y[0] or 1.0)
        return round(x, 1), round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    def draw(self, chart: Chart) -> str:
        """Draw the grid and its numbers."""
        parts: list[str] = []
        for tick in self.ticks:
            _, y = self.place(Point(self.x[0], tick))
            parts.append(f'<path class="grid" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
            shown = format_value(tick, percent=chart.percent)
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{shown}</text>')
        for tick in _ticks(*self.x, 6):
            x, _ = self.place(Point(tick, 10 ** self.y[0] if self.log else self.y[0]))
            anchor = "end" if x > WIDTH - 24 else "middle"
            parts.append(
                f'<text x="{x}" y="{HEIGHT - BOTTOM + 17}" text-anchor="{anchor}">'
                f"{format_value(tick)}</text>"
            )
        parts.append(
            f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - BOTTOM + 34}" text-anchor="end">'
            f"{escape(chart.x_name)} \u2192</text>"
        )
        parts.append(f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
        return "".join(parts)


def _draw_labels(lines: Sequence[Line], axes: _Axes, chart: Chart) -> str:
    """Draw the levels, each with its name and value, and say where a cut-off start lies."""
    curves = [
        [axes.place(point) for point in _thin(line.points)]
        for line in lines
        if line.style != "level"
    ]
    levels = [(line, axes.place(line.points[0])[1]) for line in lines if line.style == "level"]
    labels = Labels([*curves, *([(LEFT, y), (WIDTH - RIGHT, y)] for _, y in levels)])
    drawn: list[str] = []
    for line, y in levels:
        colour = f"var(--c{line.colour % NUM_COLOURS})"
        drawn.append(f'<path class="level" stroke="{colour}" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
        text = f"{line.name} {format_value(line.points[0].value, percent=chart.percent)}"
        drawn.append(labels.draw(text, [
            (x, baseline, anchor)
            for baseline in (y - 4, y + 14)
            if TOP + 8 <= baseline <= HEIGHT - BOTTOM - 3
            for x, anchor in ((WIDTH - RIGHT, "end"), (LEFT + 4, "start"), (WIDTH / 2, "start"))
        ]))  # fmt: skip
    if axes.start and chart.start_note:
        top = axes.start[0]
        text = chart.start_note.format(format_value(top.value), format_value(top.step))
        drawn.append(labels.draw(text, [
            (LEFT + x, TOP + y, "start")
            for y in (10.0, 24.0)
            for x in (8.0, 24.0, 48.0, 90.0, 140.0)
        ]))  # fmt: skip
    return "".join(drawn)


def _draw_line(line: Line, axes: _Axes) -> str:
    colour = f"var(--c{line.colour % NUM_COLOURS})"
    places = [axes.place(point) for point in _thin(line.points)]
    path = "M" + "L".join(f"{x} {y}" for x, y in places)
    smooth = _smooth(line.points) if line.style == "line" and line.noisy else None
    if smooth is not None:
        bold = "M" + "L".join(f"{x} {y}" for x, y in (axes.place(p) for p in _thin(smooth)))
        return (
            f'<path class="raw" stroke="{colour}" d="{path}"/>'
            f'<path class="line" stroke="{colour}" d="{bold}"/>'
        )
    joined = line.style != "points"
    drawn = f'<path class="line" stroke="{colour}" d="{path}"/>' if joined else ""
    if line.style in ("dots", "points") or len(places) == 1:
        drawn += "".join(f'<circle fill="{colour}" cx="{x}" cy="{y}" r="3"/>' for x, y in places)
    return drawn


def _legend(lines: Sequence[Line], always: bool) -> str:
    items = [
        f'<li><i class="{line.style}" style="--c:var(--c{line.colour % NUM_COLOURS})"></i>'
        f"{escape(line.name)}</li>"
        for line in lines
        if line.style != "level" and line.name
    ]
    return f'<ul class="legend">{"".join(items)}</ul>' if always or len(items) > 1 else ""


def _values(lines: Sequence[Line], axes: _Axes, chart: Chart) -> str:
    """Give the cursor its numbers: places in the box, and what stands there."""
    content = {
        "x": chart.x_name,
        "lines": [
            {
                "name": line.name,
                "colour": line.colour % NUM_COLOURS,
                "points": [
                    [
                        axes.place(point)[0],
                        format_value(point.step),
                        format_value(point.value, percent=chart.percent),
                    ]
                    for point in _thin(line.points)
                ],
            }
            for line in lines
            if line.style != "level"
        ],
    }
    # Inside a script element only `<` could end the element or begin a comment.
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _thin(points: Sequence[Point]) -> list[Point]:
    """Take means of equal stretches where there are too many points to draw; keep the last."""
    if len(points) <= MAX_POINTS:
        return list(points)
    bounds = [len(points) * i // MAX_POINTS for i in range(MAX_POINTS + 1)]
    means = [_mean(points[a:b]) for a, b in itertools.pairwise(bounds)]
    return [*means[:-1], points[-1]]


def _smooth(points: Sequence[Point]) -> list[Point] | None:
    """Give a centred running mean over a twentieth of the points; None where they are few."""
    reach = len(points) // 40
    if reach < 1:
        return None
    sums = [0.0, *itertools.accumulate(point.value for point in points)]
    bounds = [(max(0, i - reach), min(len(points), i + reach + 1)) for i in range(len(points))]
    return [
        Point(point.step, (sums[b] - sums[a]) / (b - a))
        for point, (a, b) in zip(points, bounds, strict=True)
    ]


def _mean(points: Sequence[Point]) -> Point:
    n = len(points)
    return Point(sum(p.step for p in points) / n, sum(p.value for p in points) / n)


def _ticks(low: float, high: float, wanted: int) -> list[float]:
    """Choose round numbers inside a range: multiples of 1, 2 or 5 times a power of ten."""
    span = high - low
    if not span > 0:
        return [low]
    size = 10.0 ** math.floor(math.log10(span / wanted))
    step = next((size * m for m in (1, 2, 5) if span / (size * m) <= wanted), size * 10)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = max(1, len(exponents) // 5)
    return [10.0**e for e in exponents][::every]
