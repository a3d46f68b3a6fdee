"""What the training thread of a process is doing, seen from beside it.

A second thread looks at its stack many times a second. A thread that stands in one of torch's
collective operations waits for other processes; anywhere else it works. So the time that a process
works in a step is known whatever the layout, and where it stands when it hangs.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

__all__ = ["Lookout", "Standing"]

WAITING = tuple(
    f"torch/distributed/{name}"
    for name in ("distributed_c10d.py", "c10d_logger.py", "_functional_collectives.py", "fsdp/")
)
"""Files of torch in which a thread waits for other processes."""
INNERMOST = 3
"""Frames in which such a file is looked for: what it calls is work, as a block in a wrapper is."""
BACKWARD = "torch/autograd/graph.py"
"""Where the training thread stands while torch computes gradients, on a GPU in another thread."""
OWN_CODE = f"{Path(__file__).parents[1].name}/"
IDLE_SHARE = 0.01
"""Share of a core below which a process does nothing: it neither computes nor reads."""
IDLE_SECONDS = 0.5
"""Over which that is measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """What a thread was seen to do."""

    waiting: bool = False
    """Whether it waits for other processes."""
    where: str = "nowhere yet"
    """File, line and function of our own code that it is in."""
    still_seconds: float = 0.0
    """Since when nothing of that has changed."""
    idle_seconds: float = 0.0
    """Since when the whole process has done nothing."""
    in_step: bool = False
    """Whether it is between the begin of a step's passes and its update."""


class Lookout:
    """Looks at the thread that makes it.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._thread, self._clock = threading.get_ident(), clock
        self._beside: set[int] = set()
        self._lock = threading.Lock()
        self._seen: tuple[object, ...] = ()
        self._waiting, self._where = False, "nowhere yet"
        self._last = self._since = self._busy = clock()
        self._spent = self._cpu = self._cpu_at = 0.0
        self._mark, self._in_step, self._counts = 0, False, False
        self._seconds = [0.0, 0.0]

    def mark(self, *, in_step: bool) -> None:
        """Note that the thread gets further: a step's passes begin, or its update is done."""
        self._mark += 1
        self._in_step = in_step
        self._counts = self._counts or in_step

    def pause(self) -> None:
        """Count no time as a step's until the next one begins."""
        self._counts = self._in_step = False

    def own_seconds(self) -> tuple[float, float]:
        """Give the seconds of steps so far in which the thread worked, and in which it waited."""
        with self._lock:
            return self._seconds[0], self._seconds[1]

    def forget(self) -> None:
        """Count from here on."""
        with self._lock:
            self._seconds = [0.0, 0.0]

    def look(self) -> None:
        """Look once; from a thread beside."""
        self._beside.add(threading.get_ident())
        frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage] - documented
        frame = frames.get(self._thread)
        now = self._clock()
        if frame is not None:
            others = (f for t, f in frames.items() if t != self._thread and t not in self._beside)
            at_backward = BACKWARD in frame.f_code.co_filename
            self._waiting = _waits(frame) or (at_backward and any(map(_waits, others)))
            seen = (self._mark, self._waiting, *_stack(frame))
            if seen != self._seen:
                self._seen, self._since, self._where = seen, now, _where(frame)
        if self._counts:
            with self._lock:
                self._seconds[self._waiting] += now - self._last
        self._last = now
        self._measure_activity(now)

    def standing(self) -> Standing:
        """Tell what was seen."""
        now = self._clock()
        return Standing(
            waiting=self._waiting, where=self._where, still_seconds=now - self._since,
            idle_seconds=now - self._busy, in_step=self._in_step,
        )  # fmt: skip

    def spent_beside(self, seconds: float) -> None:
        """Leave out of the process's activity what a thread beside has used of the processor."""
        self._spent = seconds

    def _measure_activity(self, now: float) -> None:
        """See whether the process has used its cores, for more than looking."""
        over = now - self._cpu_at
        if over < IDLE_SECONDS:
            return
        cpu = time.process_time() - time.thread_time() - self._spent
        if cpu - self._cpu > IDLE_SHARE * over:
            self._busy = now
        self._cpu, self._cpu_at = cpu, now


def _stack(frame: FrameType | None) -> list[tuple[int, int]]:
    """List what a thread is at, from the inside to the outside."""
    found: list[tuple[int, int]] = []
    while frame is not None:
        found.append((id(frame.f_code), frame.f_lineno))
        frame = frame.f_back
    return found


def _waits(frame: FrameType | None) -> bool:
    """Tell whether a thread waits for other processes."""
    for _ in range(INNERMOST):
        if frame is None:
            return False
        path = frame.f_code.co_filename.replace("\\", "/")
        if any(name in path for name in WAITING):
            return True
        frame = frame.f_back
    return False


def _where(frame: FrameType | None) -> str:
    """Name the innermost place in our own code."""
    while frame is not None:
        path = frame.f_code.co_filename.replace("\\", "/")
        _, found, name = path.rpartition(OWN_CODE)
        if found:
            return f"{name} line {frame.f_lineno}, in {frame.f_code.co_name}"
        frame = frame.f_back
    return "no code of ours"
