"""SIGINT, SIGTERM and SIGHUP as a wish to stop."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

__all__ = ["stop_on_signals", "work_at_hand"]

log = logging.getLogger(__name__)

HANG_UP = getattr(signal, "SIGHUP", None)
"""A terminal was closed; not every system has it."""
ECHO_SECONDS = 1.0
"""For which a further signal is taken for an echo of the first."""
LONG_STEP = 5.0
"""Seconds of a step above which somebody who stops the run is told how long it takes."""
ENDING = (signal.SIGINT, signal.SIGTERM, *(() if HANG_UP is None else (HANG_UP,)))
"""Signals that ask a run to end: Ctrl-C, a batch system, a terminal that was closed."""


@contextmanager
def stop_on_signals(
    wish: threading.Event, at_hand: Callable[[], str] = lambda: "this step"
) -> Generator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into `wish`; a second one raises KeyboardInterrupt at once.

    A launcher passes on to its processes what the terminal has told them already: what comes in
    the moment after the first is the same wish.

    An ignored SIGHUP stays so: `nohup` does that so that a run outlives its terminal. Outside the
    main thread, which alone may set handlers, signals stay as they are.

    Args:
        wish: set by the first signal.
        at_hand: says what will be finished before the run ends.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    heard = -math.inf

    def stop(number: int, _frame: Any) -> None:
        nonlocal heard
        if wish.is_set():
            if time.monotonic() - heard < ECHO_SECONDS:
                return
            raise KeyboardInterrupt
        heard = time.monotonic()
        log.warning(
            "%s: finishing %s, then saving; once more ends at once",
            signal.Signals(number).name,
            at_hand(),
        )
        wish.set()

    before = {
        number: signal.signal(number, stop)
        for number in ENDING
        if number != HANG_UP or signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def work_at_hand(step_seconds: float | None, *, validating: bool) -> str:
    """Say what is finished before a signal ends the run, and how long that takes.

    Args:
        step_seconds: of a step; nothing before the first.
        validating: whether it is a validation.
    """
    if validating:
        return "this validation"
    if not step_seconds:
        return "the first step, however long it takes"
    lasting = f", which takes about {step_seconds:.0f} s" if step_seconds >= LONG_STEP else ""
    return f"this step{lasting}"
