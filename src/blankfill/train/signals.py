"""SIGINT and SIGTERM as a wish to stop."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

__all__ = ["stop_on_signals"]

log = logging.getLogger(__name__)


@contextmanager
def stop_on_signals(wish: threading.Event) -> Generator[None]:
    """Turn SIGINT and SIGTERM into `wish`; a second one raises KeyboardInterrupt at once.

    Outside the main thread, which alone may set handlers, signals stay as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: Any) -> None:
        if wish.is_set():
            raise KeyboardInterrupt
        log.warning(
            "%s: finishing this step, then saving; once more ends at once",
            signal.Signals(number).name,
        )
        wish.set()

    before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
