"""SIGINT, SIGTERM and SIGHUP as a wish to stop."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

__all__ = ["stop_on_signals"]

log = logging.getLogger(__name__)

HANG_UP = getattr(signal, "SIGHUP", None)
"""A terminal was closed; not every system has it."""
ENDING = (signal.SIGINT, signal.SIGTERM, *(() if HANG_UP is None else (HANG_UP,)))
"""Signals that ask a run to end: Ctrl-C, a batch system, a terminal that was closed."""


@contextmanager
def stop_on_signals(
    wish: threading.Event, at_hand: Callable[[], str] = lambda: "this step"
) -> Generator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into `wish`; a second one raises KeyboardInterrupt at once.

    An ignored SIGHUP stays so: `nohup` does that so that a run outlives its terminal. Outside the
    main thread, which alone may set handlers, signals stay as they are.

    Args:
        wish: set by the first signal.
        at_hand: says what will be finished before the run ends.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: Any) -> None:
        if wish.is_set():
            raise KeyboardInterrupt
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
