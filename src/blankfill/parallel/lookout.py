"""What the training thread of a process is doing: whether it works, waits for others, or hangs.

The thread itself says so, at each wait for a collective operation and at each part of a step; a
second thread looks at that several times a second, and at whether the process uses its cores. It
does not look at the stack of a thread that runs, which is not safe in every Python (3.11 crashes in
`frame.f_back`), but for once, at one that has stood still for long.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

__all__ = ["Lookout", "Standing", "waits_told_to"]

OWN_CODE = f"{Path(__file__).parents[1].name}/"
MOST_BETWEEN_LOOKS = 0.5
"""Seconds that count between two looks: a process that was kept from its core, or whose machine
slept, has not stood still for all that time."""
IDLE_SHARE = 0.01
"""Share of a core below which a process does nothing: it neither computes nor reads."""
IDLE_SECONDS = 0.5
"""Over which that is measured."""
HANDED_ON_SECONDS = 2.0
"""Idleness from which on a process waits where another of its threads does, as one that saves."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """What a thread was seen to do."""

    waiting: bool = False
    """Whether it waits for other processes."""
    where: str = "a place that is not known"
    """File, line and function of our own code that it is in, where it stands still for long."""
    still_seconds: float = 0.0
    """Since when it has begun nothing new."""
    idle_seconds: float = 0.0
    """Since when the whole process has done nothing."""
    in_step: bool = False
    """Whether it is between the begin of a step's passes and its update."""


class Lookout:
    """Looks after the thread that makes it.

    Args:
        long_seconds: of standing still from which on the place is worth knowing.
        clock: seconds.
    """

    def __init__(
        self, long_seconds: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._thread, self._clock, self._long = threading.get_ident(), clock, long_seconds
        self._waits: Counter[int] = Counter()
        self._last = clock()
        self._looked = self._since = self._busy = 0.0
        self._spent = self._cpu = self._cpu_at = 0.0
        self._mark = self._seen = 0
        self._in_step, self._counted_since = False, None
        self._counted = self._waited = 0.0

    # -- said by the thread itself ----------------------------------------------------------------

    def mark(self, *, in_step: bool) -> None:
        """Note that the thread gets further: a step's passes begin, or its update is done."""
        self._mark += 1
        self._in_step = in_step
        if in_step and self._counted_since is None:
            self._counted_since = self._clock()

    def pause(self) -> None:
        """Count no time as a step's until the next one begins."""
        self._counted, self._counted_since = self._counted_seconds(), None
        self._mark += 1
        self._in_step = False

    @contextmanager
    def waits(self) -> Generator[None]:
        """Note that this thread waits for other processes until the block ends."""
        thread, begun = threading.get_ident(), self._clock()
        self._waits[thread] += 1
        self._mark += 1
        try:
            yield
        finally:
            self._mark += 1
            self._waits[thread] -= 1
            if thread == self._thread and self._counted_since is not None:
                self._waited += self._clock() - begun

    def own_seconds(self) -> tuple[float, float]:
        """Give the seconds of steps so far in which the thread worked, and in which it waited."""
        return max(0.0, self._counted_seconds() - self._waited), self._waited

    def forget(self) -> None:
        """Count from here on."""
        self._counted = self._waited = 0.0
        if self._counted_since is not None:
            self._counted_since = self._clock()

    def _counted_seconds(self) -> float:
        since = self._counted_since
        return self._counted + (0.0 if since is None else self._clock() - since)

    # -- seen from beside it ----------------------------------------------------------------------

    def look(self) -> float:
        """Look once; from a thread beside.

        Returns:
            Seconds since the last look, as far as they count.
        """
        now = self._clock()
        counted = min(now - self._last, MOST_BETWEEN_LOOKS)
        self._looked += counted
        self._last = now
        if self._mark != self._seen:
            self._seen, self._since = self._mark, self._looked
        self._measure_activity(now)
        return counted

    def standing(self) -> Standing:
        """Tell what was seen."""
        still, idle = self._looked - self._since, self._looked - self._busy
        others_wait = any(
            n > 0 for thread, n in list(self._waits.items()) if thread != self._thread
        )
        waiting = self._waits[self._thread] > 0 or (others_wait and idle > HANDED_ON_SECONDS)
        where = self._where() if still > self._long and not waiting else Standing().where
        return Standing(
            waiting=waiting, where=where, still_seconds=still, idle_seconds=idle,
            in_step=self._in_step,
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
            self._busy = self._looked
        self._cpu, self._cpu_at = cpu, now

    def _where(self) -> str:
        """Name the innermost place in our own code; of a thread that stands still."""
        frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage] - documented
        frame = frames.get(self._thread)
        while frame is not None:
            path = frame.f_code.co_filename.replace("\\", "/")
            _, found, name = path.rpartition(OWN_CODE)
            if found:
                return f"{name} line {frame.f_lineno}, in {frame.f_code.co_name}"
            frame = frame.f_back
        return "no code of ours"


@contextmanager
def waits_told_to(lookout: Lookout) -> Generator[None]:
    """Tell a lookout of every wait for a collective operation, those of torch's FSDP2 as well."""
    of_torch: Any = dist.Work
    wait = of_torch.wait

    def told(work: dist.Work, *args: Any, **options: Any) -> Any:
        with lookout.waits():
            return wait(work, *args, **options)

    of_torch.wait = told
    try:
        yield
    finally:
        of_torch.wait = wait
