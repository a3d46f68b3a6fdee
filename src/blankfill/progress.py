"""Progress of long work on stderr: a bar with rate and time left, or a line now and then.

A bar is drawn where stderr is a terminal. Elsewhere a log line is written every ten seconds, so
that a log file of a long job tells how far it is. `BLANKFILL_PROGRESS=0` asks for lines as well.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["Meter", "bar", "track"]

log = logging.getLogger(__name__)
T = TypeVar("T")

_LINE_SECONDS = 10.0


class Meter:
    """Where a loop reports how far it is."""

    def __init__(self, description: str, total: float | None, unit: str, progress: Progress | None):
        self._description, self._total, self._unit = description, total, unit
        self._progress = progress
        self._task = (
            None if progress is None else progress.add_task(description, total=total, note="")
        )
        self._start = self._last_line = time.monotonic()
        self._done = 0.0

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Count `amount` more units; `note` is shown behind the rate."""
        self._done += amount
        seconds = time.monotonic() - self._start
        rate = f"{_short(self._done / seconds)} {self._unit}/s" if seconds > 0 else ""
        shown = f"{rate}  {note}" if note else rate
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=amount, note=shown)
        elif time.monotonic() - self._last_line >= _LINE_SECONDS:
            self._last_line = time.monotonic()
            log.info("%s: %s, %s%s", self._description, self._position(), shown, self._left())

    def finish(self) -> None:
        """Write the closing line where there is no bar."""
        if self._progress is None:
            seconds = time.monotonic() - self._start
            log.info("%s: %s in %.1f s", self._description, self._position(), seconds)

    def _position(self) -> str:
        done = _short(self._done)
        return f"{done} {self._unit}" if not self._total else f"{done} of {_short(self._total)}"

    def _left(self) -> str:
        if not self._total or not self._done:
            return ""
        seconds = time.monotonic() - self._start
        return f", {seconds / self._done * max(0.0, self._total - self._done):.0f} s left"


@contextmanager
def bar(description: str, total: float | None = None, unit: str = "steps") -> Generator[Meter]:
    """Show progress for as long as the block runs.

    Args:
        description: what is being done.
        total: units in all, where known.
        unit: what is counted, plural.

    Yields:
        A `Meter` to advance.
    """
    if sys.stderr.isatty() and os.environ.get("BLANKFILL_PROGRESS") != "0":
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as progress:
            yield Meter(description, total, unit, progress)
    else:
        meter = Meter(description, total, unit, None)
        yield meter
        meter.finish()


def track(
    items: Iterable[T], description: str, *, total: float | None = None, unit: str = "items"
) -> Iterator[T]:
    """Pass items on while showing how many went by."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # pyright: ignore[reportArgumentType]  # checked in the line above
    with bar(description, total, unit) as meter:
        for item in items:
            yield item
            meter.advance()


def _short(number: float) -> str:
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= limit:
            scale = {"G": 1e9, "M": 1e6, "k": 1e3}[suffix]
            return f"{number / scale:.1f}{suffix}"
    return f"{number:.0f}" if number >= 100 or number == int(number) else f"{number:.1f}"
