"""The heartbeat of a run's processes: each tells the others that it lives, and where it stands.

A thread writes this process's state to the store in which torch's processes find one another
(TCPStore) about once a second, and reads that of a few others. A process that has ended, that
gives no sign, or that stands still while others wait for it is at fault; the first that sees it
writes so, and all processes end: the thread that trains waits in a collective operation and cannot
be woken (gloo's `abort` does not), so the whole process is ended from beside it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from blankfill.parallel.fault import Fault, FaultKind, Guest, State, read, written
from blankfill.parallel.guests import has_ended
from blankfill.parallel.lookout import Lookout

if TYPE_CHECKING:
    from torch.distributed import Store

__all__ = ["Pulse"]

log = logging.getLogger(__name__)

FAULT, LEFT = "blankfill/fault", "blankfill/left"
"""Keys of the store: what ended the run, and how many processes have left it."""
LOOKS_PER_SECOND = 10
SLOWEST_BEAT_SECONDS = 1.0
BEATS_OF_TIMEOUT = 20
"""Beats in the time-out at least, where it is short."""
SILENCE = 1 / 2
"""Share of the time-out after which a process counts as lost; the rest is for ending."""
CERTAINTY = 1 / 4
"""Share of that silence for which all are listened to once more, before any is named."""
ENDING = 1 / 12
"""Share of the time-out that a process has to end once the fault is known; one that is saving, or
cleaning up, has a third."""
MOST_ENDING_SECONDS = 5.0
NEIGHBOURS = 3
"""Processes whose beat each one follows, in a ring: so the store is read as often on 768 as it is
on 4, and three see whatever happens to one."""
EXIT_CODE = 2


class Pulse:
    """The heartbeat of this process; its thread that trains makes it.

    Args:
        store: of all processes, on a connection of its own.
        rank: this process's number.
        guests: all processes, in the order of their numbers.
        timeout_seconds: within which all others end when one is lost.
        hosts_store: whether the store ends with process 0, and not with its launcher.
        lookout: sees where this process's training thread stands.
        end: ends the process.
    """

    def __init__(
        self, store: Store, rank: int, guests: list[Guest], timeout_seconds: float, *,
        hosts_store: bool = False, lookout: Lookout | None = None,
        end: Callable[[int], object] = os._exit,
    ) -> None:  # fmt: skip
        self.rank, self.guests = rank, guests
        self.lookout = lookout or Lookout(SILENCE * timeout_seconds / 2)
        self.step: int | None = None
        """0-based optimizer step that is at hand; None before the first."""
        self._store, self._end, self._hosts_store = store, end, hosts_store
        self._timeout, self._limit = timeout_seconds, SILENCE * timeout_seconds
        self.beat_seconds = min(SLOWEST_BEAT_SECONDS, timeout_seconds / BEATS_OF_TIMEOUT)
        """Between two beats."""
        self._fault: Fault | None = None
        self._known, self._left = threading.Event(), threading.Event()
        self._wake = threading.Event()
        self._beat, self._unheard_seconds = 0, 0.0
        self._first_step: int | None = None
        self._is_store_lost = False
        self._heard: dict[int, tuple[int, float]] = {}
        self._threads = [
            threading.Thread(target=run, name="pulse", daemon=True)
            for run in (self._talk, self._look)
        ]

    @property
    def count(self) -> int:
        """Processes of the run."""
        return len(self.guests)

    @property
    def ending_seconds(self) -> float:
        """For which a process waits until the one that speaks has spoken."""
        return min(MOST_ENDING_SECONDS, ENDING * self._timeout)

    def begin_step(self, step: int) -> None:
        """Note that the passes of a step begin."""
        self._first_step = step if self.step is None else self._first_step
        self.step = step
        self.lookout.mark(in_step=True)

    def start(self) -> None:
        """Begin to beat."""
        for thread in self._threads:
            thread.start()

    def leave(self) -> None:
        """Beat no more: this process has done its part, or the fault is known to all."""
        self._left.set()
        self._wake.set()
        if self._is_store_lost:
            return
        with contextlib.suppress(RuntimeError):
            self._tell(left=True)
            self._store.add(LEFT, 1)
            # The store must last until all have heard what it says.
            until = time.monotonic() + self.ending_seconds
            while self._hosts_store and self.rank == 0 and time.monotonic() < until:
                if self._store.add(LEFT, 0) >= self.count:
                    break
                time.sleep(0.01)

    def blame_self(self, cause: str) -> Fault:
        """Tell all that this process cannot go on; give the fault that was known first."""
        return self._post(self._fault_of("error", [self.rank], cause, self.step))

    def blame_nobody(self, cause: str) -> Fault:
        """Tell all that another process is lost, which nobody has named."""
        return self._post(self._fault_of("unreachable", [self.rank], cause, self.step))

    def fault(self, wait_seconds: float = 0.0) -> Fault | None:
        """Give what ended the run, as soon as it is known; None where it is not by then."""
        self._wake.set()
        self._known.wait(wait_seconds)
        return self._fault

    # -- beside the thread that trains ------------------------------------------------------------

    def _look(self) -> None:
        """See where the training thread stands, and end the process when it has to."""
        known_at = None
        while not self._left.wait(1 / LOOKS_PER_SECOND):
            self._unheard_seconds += self.lookout.look()
            if self._unheard_seconds > self._limit:
                self._lose_store("does not answer any more")
            now = time.monotonic()
            if self._fault is None:
                continue
            known_at = known_at or now
            stands = self.lookout.standing().waiting or self.rank in self._fault.ranks
            allowed = self.ending_seconds if stands else self._timeout / 3
            if now - known_at > allowed:
                self._end_process(self._fault)

    def _talk(self) -> None:
        """Beat, listen, and judge."""
        while not self._left.is_set():
            try:
                self._tell()
                if self._store.check([FAULT]):
                    self._take(read(Fault, self._store.get(FAULT)))
                if self._fault is None:
                    self._judge()
                self._unheard_seconds = 0.0
            except RuntimeError as error:  # of torch, whatever has become of the connection
                if not self._left.is_set():
                    self._lose_store(f"cannot be reached any more ({str(error).splitlines()[0]})")
            self.lookout.spent_beside(time.thread_time())
            self._wake.wait(self.beat_seconds if self._fault is None else 3600)
            self._wake.clear()

    def _tell(self, *, left: bool = False) -> None:
        """Write this process's state."""
        self._beat += 1
        state = State(
            beat=self._beat, step=self.step, first_step=self._first_step, left=left,
            standing=self.lookout.standing(),
        )  # fmt: skip
        self._store.set(_key(self.rank), written(state))

    def _read(self, ranks: Iterable[int]) -> dict[int, State]:
        """Read the states of processes that have not left."""
        keys = {rank: _key(rank) for rank in ranks}
        there = [rank for rank, key in keys.items() if self._store.check([key])]
        told = self._store.multi_get([keys[rank] for rank in there]) if there else []
        states = {rank: State() for rank in keys} | {
            rank: read(State, text) for rank, text in zip(there, told, strict=True)
        }
        return {rank: state for rank, state in states.items() if not state.left}

    def _judge(self) -> None:
        """Look for a process that is lost."""
        others = [(self.rank + k) % self.count for k in range(1, min(NEIGHBOURS + 1, self.count))]
        here = self.guests[self.rank].machine
        near = [g for g in self.guests if g.machine == here and g.rank != self.rank]
        if ended := [guest.rank for guest in near if has_ended(guest)]:
            self._blame_ended(ended)
            return
        states, now = self._read(others), time.monotonic()
        for rank in others:
            beat = states[rank].beat if rank in states else -1
            if rank not in self._heard or self._heard[rank][0] != beat:
                self._heard[rank] = beat, now
        if any(now - self._heard[rank][1] > self._limit for rank in states):
            self._blame_silent()
            return
        mine = self.lookout.standing()
        if mine.waiting and mine.still_seconds > self._limit:
            self._blame_stuck()

    def _blame_ended(self, ranks: list[int]) -> None:
        """Blame processes of this machine that have ended and had not left."""
        time.sleep(self.beat_seconds / 5)  # what they wrote last may still be on its way
        if not (states := self._read(ranks)):
            return
        self._blame("ended", states, "has ended without a word (it was killed, perhaps for want of "
                    "memory)")  # fmt: skip

    def _blame_silent(self) -> None:
        """Blame all processes that do not beat any more."""
        before = self._read(range(self.count))
        until = time.monotonic() + CERTAINTY * self._limit
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, self.beat_seconds))
            self._tell()  # others may be looking as well, and at this one
        now = self._read(range(self.count))
        silent = {r: s for r, s in now.items() if r in before and s.beat == before[r].beat}
        silent.pop(self.rank, None)
        if silent:
            self._blame("silent", silent, f"has given no sign for {self._limit:.0f} s (it was "
                        "stopped, or its machine cannot be reached)")  # fmt: skip

    def _blame_stuck(self) -> None:
        """Blame the processes that this one waits for, where they do not get further."""
        states = self._read(range(self.count))
        stuck = {rank: state for rank, state in states.items() if state.is_stuck(self._limit)}
        if stuck:
            at = next(iter(stuck.values())).standing
            self._blame("stuck", stuck, f"hangs: for {at.still_seconds:.0f} s it has been at "
                        f"{at.where}, and others wait for it,")  # fmt: skip
        elif all(state.waits_idly(self._limit) for state in states.values()):
            self._blame("unreachable", states, f"wait for one another for {self._limit:.0f} s, as "
                        "where the connection between machines is lost,")  # fmt: skip

    def _blame(self, kind: FaultKind, states: dict[int, State], cause: str) -> None:
        """Tell all whose fault it is that the run ends."""
        steps = [
            step for step in (self.step, *(s.step for s in states.values())) if step is not None
        ]
        self._post(self._fault_of(kind, sorted(states), cause, max(steps, default=None)))

    def _fault_of(self, kind: FaultKind, ranks: list[int], cause: str, step: int | None) -> Fault:
        return Fault(
            kind=kind, ranks=tuple(ranks), hosts=tuple(self.guests[r].host for r in ranks),
            count=self.count, step=step, cause=cause, by=self.rank,
        )  # fmt: skip

    def _post(self, fault: Fault) -> Fault:
        """Write a fault where none is known yet, and give the one that all know."""
        with contextlib.suppress(RuntimeError):
            fault = read(Fault, self._store.compare_set(FAULT, "", written(fault)))
        return self._take(fault)

    def _take(self, fault: Fault) -> Fault:
        """Remember what ended the run; what was known first stays."""
        if self._fault is None:
            self._fault = fault
            self._end_stopped(fault)
            self._known.set()
        return self._fault

    def _end_stopped(self, fault: Fault) -> None:
        """End the processes of this machine that give no sign: stopped ones hear nothing else."""
        if fault.kind != "silent":
            return
        here = self.guests[self.rank].machine
        for guest in (self.guests[rank] for rank in fault.ranks):
            if guest.machine == here and guest.rank != self.rank and not has_ended(guest):
                with contextlib.suppress(OSError):
                    os.kill(guest.pid, signal.SIGKILL)

    def _lose_store(self, how: str) -> None:
        """Settle without the store who is lost, and who says so: on each machine one process."""
        self._is_store_lost = True
        if self._fault is not None:
            return
        here = self.guests[self.rank].machine
        alive = [g.rank for g in self.guests if g.machine == here and not has_ended(g)]
        first = self.guests[0]
        what = f"has ended or cannot be reached: the store that it keeps {how}"
        if not self._hosts_store:
            what = f"or its launcher is lost: the store of all processes {how}"
        self._take(
            Fault(
                kind="unreachable", ranks=(0,), hosts=(first.host,), count=self.count,
                step=self.step, cause=what, by=min(alive, default=self.rank),
            )
        )  # fmt: skip

    def _end_process(self, fault: Fault) -> None:
        """End this process, whatever its training thread does."""
        if fault.by == self.rank:
            if sys.stderr.isatty():
                sys.stderr.write("\x1b[?25h")  # a bar had hidden the cursor
            log.error("blankfill: %s", fault.sentence())
        self.leave()
        if fault.by != self.rank:
            time.sleep(self.ending_seconds)  # the launcher ends all as soon as one has
        self._end(EXIT_CODE)


def _key(rank: int) -> str:
    return f"blankfill/pulse/{rank}"
