"""How long each process works in a step, and which of them the others wait for.

A step lasts as long for all: who is early waits in the next collective operation. So what tells is
the time in which a process does not wait (`lookout`), of the host: where a GPU computes while its
host waits for it, a slow GPU is not told from the others.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from statistics import median_low
from typing import Protocol

from blankfill.parallel.lookout import Lookout

__all__ = ["Pace"]

log = logging.getLogger(__name__)

LEAST_SECONDS = 5.0
"""Of steps that are judged together: a moment in which a core was taken is no slow process."""
SLOW = 1.3
"""Times the median at which a process is named."""
MOST_NAMED = 4


class _Ranks(Protocol):
    """The processes of a run."""

    @property
    def leads(self) -> bool:
        """Whether this process speaks."""
        ...

    def gather(self, items: Sequence[tuple[float, float, int]]) -> list[tuple[float, float, int]]:
        """Give all processes what each of them has."""
        ...

    def place_of(self, rank: int) -> str:
        """Name a process."""
        ...


class Pace:
    """Step time by process.

    Args:
        ranks: the processes.
        lookout: sees where this process's training thread stands.
    """

    def __init__(self, ranks: _Ranks, lookout: Lookout) -> None:
        self._ranks, self._lookout = ranks, lookout
        self._steps = 0
        self._before: list[int] = []
        self._slow: list[int] = []

    def count(self) -> None:
        """Count a step."""
        self._steps += 1

    def read(self, step: int) -> dict[str, float]:
        """Compare the processes since the last time; all call this alike.

        Args:
            step: optimizer step at hand, which is named.

        Returns:
            Seconds that a process works in a step, and which one works longest; nothing while there
            is too little to compare.
        """
        working, waiting = self._lookout.own_seconds()
        of_all = self._ranks.gather([(working, waiting, self._steps)])
        if sum(of_all[0][:2]) < LEAST_SECONDS or not of_all[0][2]:
            return {}
        self._lookout.forget()
        self._steps = 0
        seconds = [working / max(1, steps) for working, _, steps in of_all]
        middle, most = median_low(seconds), max(seconds)
        now = [rank for rank, one in enumerate(seconds) if one > SLOW * middle]
        slow = [rank for rank in now if rank in self._before]  # once may be chance
        if self._ranks.leads:
            self._tell(step, slow, seconds, middle)
        self._before, self._slow = now, slow
        return {
            "process_seconds_median": middle, "process_seconds_max": most,
            "slowest_process": float(seconds.index(most)),
        }  # fmt: skip

    def _tell(
        self, step: int, slow: Sequence[int], seconds: Sequence[float], middle: float
    ) -> None:
        """Name the processes that became slow, or say that none is any more."""
        if slow and slow != self._slow:
            named = ", ".join(
                f"{self._ranks.place_of(rank)} works {seconds[rank]:.3g} s"
                for rank in sorted(slow, key=lambda rank: -seconds[rank])[:MOST_NAMED]
            )
            log.warning(
                "step %d: the others wait: in a step %s, the median process %.3g s",
                step, named, middle,
            )  # fmt: skip
        elif self._slow and not slow:
            log.info("step %d: no process is slow any more: %.3g s in a step", step, max(seconds))
