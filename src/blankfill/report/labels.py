"""Where a chart's labels stand: beside what they name, off the curves and off each other."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["Labels", "Spot", "text_width"]

Place = tuple[float, float]
Spot = tuple[float, float, str]
"""Where a label's baseline starts or ends, and which of them: start or end."""
_Box = tuple[float, float, float, float]

LATIN_WIDTH, HAN_WIDTH, ASCENT, DESCENT = 6.6, 12.0, 10.0, 3.0
"""Of the page's 12 unit letters, rounded up."""
APART = 8.0
"""Room between two labels on one height."""
STEP = 4.0
"""How close the points are by which a curve is known."""


class Labels:
    """The labels of one chart and what is drawn in it.

    Args:
        curves: the corners of each drawn line, in the units of the box.
    """

    def __init__(self, curves: Iterable[Sequence[Place]]) -> None:
        self._points = [point for curve in curves for point in _walked(curve)]
        self._boxes: list[_Box] = []

    def draw(self, text: str, spots: Sequence[Spot]) -> str:
        """Draw a label where it covers least, at the first of equal spots, which is then taken."""
        spot = min(spots, key=lambda spot: self._covered(_box(text, spot)))
        self._boxes.append(_box(text, spot))
        x, y, anchor = spot
        return f'<text class="level" x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'

    def _covered(self, wanted: _Box) -> float:
        left, top, right, bottom = wanted
        points = sum(
            left - STEP <= x <= right + STEP and top <= y <= bottom for x, y in self._points
        )
        # Another label is worse than any curve.
        return points + 1000.0 * sum(
            left < box[2] + APART and box[0] < right + APART and top < box[3] and box[1] < bottom
            for box in self._boxes
        )


def text_width(text: str) -> float:
    """Bound the width of a text, in the units of the box."""
    return sum(HAN_WIDTH if unicodedata.east_asian_width(c) in "WF" else LATIN_WIDTH for c in text)


def _box(text: str, spot: Spot) -> _Box:
    x, y, anchor = spot
    width = text_width(text)
    left = x if anchor == "start" else x - width
    return left, y - ASCENT, left + width, y + DESCENT


def _walked(curve: Sequence[Place]) -> Iterable[Place]:
    """Give points of a line of corners, so close that none slips through a label."""
    if len(curve) == 1:
        yield curve[0]
    for (x, y), (to_x, to_y) in itertools.pairwise(curve):
        pieces = max(1, int(max(abs(to_x - x), abs(to_y - y)) / STEP) + 1)
        for i in range(pieces + 1):
            yield x + (to_x - x) * i / pieces, y + (to_y - y) * i / pieces
