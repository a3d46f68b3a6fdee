"""Progress of long work on stderr: a bar with the time left, or a line now and then.

A bar is drawn where stderr is a terminal, and fitted into its width: what is done, its share and
the time that is left stand there always, the rest as there is room. Elsewhere a log line is written
every ten seconds, so that a log file of a long job tells how far it is. `BLANKFILL_PROGRESS=0` asks
for lines as well.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions
from rich.live import Live
from rich.text import Text

__all__ = ["Meter", "bar", "duration", "fitted_line", "track"]

log = logging.getLogger(__name__)
T = TypeVar("T")

_LINE_SECONDS = 10.0
_QUICK_SECONDS = 2.0
"""Work that was done sooner leaves no line."""
_SHORTEST_BAR, _LONGEST_BAR = 10, 30
"""Columns of a bar: it yields to notes down to the first, and takes what they leave up to the
second."""


class Meter:
    """Where a loop reports how far it is.

    Args:
        description: what is being done.
        total: units in all, where known.
        unit: what is counted, plural.
        drawn: whether somebody draws it; else it writes lines.
    """

    def __init__(self, description: str, total: float | None, unit: str, *, drawn: bool) -> None:
        self._description, self._total, self._unit = description, total, unit
        self._drawn = drawn
        self._start = self._last_line = time.monotonic()
        self._done = 0.0
        self._notes: tuple[str, ...] = ()

    def advance(self, amount: float = 1, *notes: str) -> None:
        """Count `amount` more units.

        Args:
            amount: units.
            notes: shown as there is room; the rate stands after the first of them.
        """
        self._done += amount
        self._notes = notes
        if not self._drawn and time.monotonic() - self._last_line >= _LINE_SECONDS:
            self._last_line = time.monotonic()
            seconds = self._seconds_left()
            left = () if seconds is None else (f"{duration(seconds)} left",)
            shown = (self._position(), *self._rest(), *left)
            log.info("%s: %s", self._description, ", ".join(shown))

    def restart(self) -> None:
        """Measure the rate from now on."""
        self._start = self._last_line = time.monotonic()

    def finish(self) -> None:
        """Write the closing line where there is no bar."""
        if not self._drawn:
            done = f"{self._position()} in " if self._done else ""
            level = logging.DEBUG if self.was_quick() else logging.INFO
            log.log(level, "%s: %s%s", self._description, done, duration(self._seconds()))

    def was_quick(self) -> bool:
        """Tell whether the work so far is too little to be told of afterwards."""
        return self._seconds() < _QUICK_SECONDS

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Draw it in one line of a terminal."""
        seconds = self._seconds_left()
        if self._total:
            share = min(1.0, self._done / self._total)
            left = f"{'-:--' if seconds is None else _clock(seconds)} h left"
            left = left if share < 1 else f"in {duration(self._seconds())}"
            notes = self._rest()
        else:
            share, left = None, duration(self._seconds())
            notes = (self._position(), *self._rest())
        yield fitted_line(
            options.max_width, self._description, share, left, notes, plain=options.ascii_only
        )

    def _seconds(self) -> float:
        return time.monotonic() - self._start

    def _seconds_left(self) -> float | None:
        if not self._total or not self._done:
            return None
        return self._seconds() / self._done * max(0.0, self._total - self._done)

    def _rest(self) -> tuple[str, ...]:
        """Give the notes with the rate among them."""
        if not self._done:
            return self._notes
        rate = f"{_short(self._done / max(self._seconds(), 1e-9))} {self._unit}/s"
        return (*self._notes[:1], rate, *self._notes[1:])

    def _position(self) -> str:
        done = _short(self._done)
        if not self._total:
            return f"{done} {self._unit if self._done != 1 else _singular(self._unit)}"
        share = _percent(min(1.0, self._done / self._total))
        return f"{done} of {_short(self._total)} {self._unit} ({share} %)"


def _singular(units: str) -> str:
    """Give one of several: a pass of passes, a row of rows."""
    return units.removesuffix("es" if units.endswith("sses") else "s")


def fitted_line(
    width: int, description: str, share: float | None, left: str, notes: Sequence[str], *,
    plain: bool = False,
) -> Text:  # fmt: skip
    """Fit what is known of some work into one line.

    Args:
        width: columns of the terminal.
        description: what is being done; cut short where even the bar and the time do not fit.
        share: done of it, 0 to 1; None where that is not known, then there is no bar.
        left: the time that is left, such as `4:50 h left`, or what is known in its place.
        notes: shown as there is room, the first ones first.
        plain: draw in ASCII.
    """
    if share is None:
        always = f"  {left}"
        bar_width = shortest = 0
    else:
        always = f" {_percent(share):3d} %  {left}"
        shortest = min(_SHORTEST_BAR, max(0, width - len(always) - 1))
        bar_width = shortest + 1
    description = set_cell_size(
        description, min(cell_len(description), max(0, width - len(always) - bar_width))
    )
    free = width - cell_len(description) - len(always) - bar_width
    shown = ""
    for note in notes:
        if cell_len(note) + 2 > free:
            break
        shown += f"  {note}"
        free -= cell_len(note) + 2
    line = Text(description, no_wrap=True, overflow="crop", end="")
    if share is not None:
        bar_width = shortest + max(0, min(_LONGEST_BAR - shortest, free))
        done = _percent(share) * bar_width // 100
        whole, rest = ("#", "-") if plain else ("\u2501", "\u2500")
        line.append(" ").append(whole * done, "green").append(rest * (bar_width - done), "dim")
    return line.append(always, "bold").append(shown)


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
    if _on_terminal():
        meter = Meter(description, total, unit, drawn=True)
        # Log lines are written above the bar; stdout is left alone, which may be a file.
        with Live(meter, console=Console(stderr=True), redirect_stdout=False) as live:
            yield meter
            live.transient = meter.was_quick()
    else:
        meter = Meter(description, total, unit, drawn=False)
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


def duration(seconds: float) -> str:
    """Say a time in words: `4 h 50 min`, `12 min`, `45 s`, `0.3 s`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _clock(seconds: float) -> str:
    """Write a time as hours and minutes, begun minutes counted: `0:01` is the last one."""
    hours, minutes = divmod(-(-int(seconds) // 60), 60)
    return f"{hours}:{minutes:02d}"


def _percent(share: float) -> int:
    """Round down, so that 100 % is done."""
    return int(100 * share + 1e-9)


def _on_terminal() -> bool:
    """Tell whether a line of stderr can be drawn again and again."""
    draws = sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    return draws and os.environ.get("BLANKFILL_PROGRESS") != "0"


def _short(number: float) -> str:
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= limit:
            scale = {"G": 1e9, "M": 1e6, "k": 1e3}[suffix]
            return f"{number / scale:.1f}{suffix}"
    return f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:.1f}"
