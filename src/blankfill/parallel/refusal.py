"""What a process refuses before all have met, written where they would have met; one says it.

Processes that have met settle by their heartbeats who speaks (`meeting`). Before that each stands
alone: an option that nobody knows is found by every one of them, and a launcher such as `srun` ends
nobody. So the first that cannot begin writes into their store why, those that wait there for it end
with that, and all stay until the others know: the store may end with process 0, and a launcher ends
all as soon as one has ended.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from blankfill.errors import ConfigError, ProcessLostError
from blankfill.parallel.fault import Refusal, read, written
from blankfill.processes import deaf, settle_speaker

if TYPE_CHECKING:
    from torch.distributed import Store

__all__ = [
    "first_refusal", "give_up", "is_refused", "look_seconds", "require_no_refusal",
    "wait_until_heard",
]  # fmt: skip

REFUSAL, HEARD, GONE = "refusal", "heard", "gone"
"""What is in the store: what was refused first, how many processes know of it, and how many of them
ask for nothing more."""
HEARING_SECONDS = 30.0
"""For which a process stays until all others know."""
GOING_SECONDS = 3.0
"""For which process 0 lets the others go first."""
WAITING_SECONDS = 5.0
"""The same where some have not come, so that those know that have."""


def is_refused(store: Store) -> bool:
    """Tell whether a process has refused to begin."""
    return store.check([_key(REFUSAL)])


def first_refusal(store: Store, rank: int, sentence: str) -> Refusal:
    """Write down what this process refuses where nobody has refused yet; give what stands."""
    mine = written(Refusal(by=rank, sentence=sentence))
    return read(Refusal, store.compare_set(_key(REFUSAL), "", mine))


def require_no_refusal(store: Store, rank: int, count: int) -> None:
    """Look whether a process has refused to begin.

    Raises:
        ProcessLostError: it has, and says so itself.
    """
    if is_refused(store):
        refusal = read(Refusal, store.get(_key(REFUSAL)))
        error = ProcessLostError(refusal.sentence)
        settle_speaker(error, refusal.by)
        with deaf():
            wait_until_heard(store, rank, count)
        raise error


def give_up(store: Store, rank: int, count: int, sentence: str) -> NoReturn:
    """Wait no longer for processes that do not come; of those that do so, one says why.

    Args:
        store: of all processes.
        rank: this one.
        count: how many have come.
        sentence: what it has to say.

    Raises:
        ConfigError: with what was said first.
    """
    refusal = first_refusal(store, rank, sentence)
    error = ConfigError(refusal.sentence)
    settle_speaker(error, refusal.by)
    with deaf():
        wait_until_heard(store, rank, count, WAITING_SECONDS)
    raise error


def wait_until_heard(store: Store, rank: int, count: int, seconds: float = HEARING_SECONDS) -> None:
    """Note that this process knows what was refused, and stay until all do.

    Process 0, which may keep the store, goes last: torch prints a page where a store is lost.
    """
    with suppress(RuntimeError):  # it has ended all the same
        store.add(_key(HEARD), 1)
        _wait_for(store, HEARD, count, seconds)
        if rank:
            store.add(_key(GONE), 1)
        else:
            _wait_for(store, GONE, count - 1, GOING_SECONDS)


def look_seconds(count: int) -> float:
    """Give the time between two looks into the store, which answers all processes one by one."""
    return max(0.01, 1e-4 * count)


def _wait_for(store: Store, what: str, count: int, seconds: float) -> None:
    """Wait until so many processes have counted themselves."""
    until = time.monotonic() + seconds
    while store.add(_key(what), 0) < count and time.monotonic() < until:
        time.sleep(look_seconds(count))


def _key(what: str) -> str:
    """Name a key; a launcher that starts all again may give them the store of before."""
    return f"blankfill/{what}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
