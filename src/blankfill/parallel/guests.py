"""The processes of a run meet: each introduces itself, and knows the others from then on.

One that cannot begin says so there instead (`refusal.py`).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import torch.distributed as dist

from blankfill.errors import ConfigError
from blankfill.parallel.fault import Guest, place_of, read, written
from blankfill.parallel.refusal import (
    first_refusal,
    give_up,
    is_refused,
    look_seconds,
    require_no_refusal,
    wait_until_heard,
)
from blankfill.processes import settle_speaker, this_place

if TYPE_CHECKING:
    from torch.distributed import Store

__all__ = [
    "began_at",
    "has_ended",
    "introduce",
    "meet",
    "own_connection",
    "refuse_alone",
    "store_is_launchers",
]

CALL = "blankfill/call"
"""Key of the word by which process 0 calls the others."""
PATIENCE_SECONDS = 60.0
"""For which a process that cannot begin looks for process 0: all may be loading torch from a slow
disk."""
LAUNCHER_SECONDS = 5.0
"""For which it looks for a store that the launcher keeps, and so was there before."""
RETRY_SECONDS = 0.5
FIELD_STATE, FIELD_BEGAN = 0, 19
"""Of /proc/PID/stat behind the program's name: state, and start in ticks since the machine's."""


def meet(timeout_seconds: float) -> tuple[Store, int, int]:
    """Find the store that all processes share.

    Returns:
        The store, this process's number, and how many there are.

    Raises:
        ConfigError: it cannot be reached within the time-out.
    """
    address = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    try:
        if not hosts_store():
            _wait_for_answer(address[0], int(address[1]), timeout_seconds)
        return next(dist.rendezvous("env://", timeout=timedelta(seconds=timeout_seconds)))
    except (dist.DistError, ValueError, OSError) as error:
        unreached = ConfigError(
            f"the other processes cannot be reached at {':'.join(address)} within "
            f"{timeout_seconds:.0f} s ({_first_line(error)}); start all with torchrun, with the "
            "same --rdzv-endpoint on every machine"
        )
        # Nobody can be told: the first process of each machine speaks.
        settle_speaker(unreached, this_place().rank - this_place().local_rank)
        raise unreached from error


def hosts_store() -> bool:
    """Tell whether the store is this process's, and not the launcher's or another process's."""
    return not store_is_launchers() and this_place().rank == 0


def store_is_launchers() -> bool:
    """Tell whether the store is the launcher's, so that it outlives the processes."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _wait_for_answer(host: str, port: int, timeout_seconds: float) -> None:
    """Wait until something answers at an address; torch would wait with pages of its own.

    Raises:
        OSError: nothing does.
    """
    until = time.monotonic() + timeout_seconds
    while True:
        try:
            left = max(0.1, until - time.monotonic())
            socket.create_connection((host, port), timeout=left).close()
            return
        except OSError:
            if time.monotonic() > until - RETRY_SECONDS:
                raise
            time.sleep(RETRY_SECONDS)


def introduce(
    store: Store, rank: int, count: int, timeout_seconds: float
) -> tuple[list[Guest], Store]:
    """Introduce this process to the others, and wait for them.

    A launcher that starts all again may give them the store of before, with what was written then;
    so process 0 calls by a word of its own, and counts who answers to that.

    Returns:
        The processes, and a part of the store in which nothing was written before.

    Raises:
        ConfigError: one has not come within the time-out, or the store has ended meanwhile.
        ProcessLostError: one has refused to begin.
    """
    try:
        return _introduce(store, rank, count, timeout_seconds)
    except dist.DistError as error:
        lost = ConfigError(
            f"the store in which {count} processes meet has ended before all had come "
            f"({_first_line(error)}): process 0, or its launcher, was ended; start all again"
        )
        # Nobody can be told: on each machine the first process speaks that is not process 0.
        settle_speaker(lost, max(rank - this_place().local_rank, 0 if store_is_launchers() else 1))
        raise lost from error


def _introduce(
    store: Store, rank: int, count: int, timeout_seconds: float
) -> tuple[list[Guest], Store]:
    host, pid = socket.gethostname(), os.getpid()
    me = Guest(rank=rank, host=host, machine=_machine(host), pid=pid, began=began_at(pid))
    until, word = time.monotonic() + timeout_seconds, ""
    if rank == 0:
        store.set(CALL, uuid4().hex)
    while time.monotonic() < until:
        called = store.get(CALL).decode() if store.check([CALL]) else ""
        if called != word:
            word = called
            store.set(_answer(word, rank), written(me))
        guests = _all_that_answered(store, word, rank, count)
        if guests and guests[rank] == me:  # else it is a list of before
            return guests, dist.PrefixStore(f"blankfill/{word}", own_connection(store))
        require_no_refusal(store, rank, count)
        time.sleep(look_seconds(count))
    missing = [r for r in range(count) if not store.check([_answer(word, r)])] if word else [0]
    named = ", ".join(map(str, missing[:8] or [0])) + (", .." if len(missing) > 8 else "")
    give_up(
        store, rank, count - len(missing) if word else 1,
        f"of {count} processes those with the numbers {named} have not come within "
        f"{timeout_seconds:.0f} s; see what they say, or give them longer with "
        "--parallel.timeout-seconds",
    )  # fmt: skip


def refuse_alone(sentence: str, say: Callable[[str], object]) -> None:
    """Say what this process refuses before it has met any other, unless another one says it.

    Process 0 says it at once. Any other one waits whether process 0 refuses too. Where that waits
    for the others instead, the first that refuses says so by its name.

    Args:
        sentence: what it has to say.
        say: says it.
    """
    place = this_place()
    if place.rank == 0:
        say(sentence)
        with suppress(RuntimeError, ValueError, OSError):
            store = _store_to_tell_by(place.count)
            first_refusal(store, place.rank, sentence)
            wait_until_heard(store, place.rank, place.count)
        return
    named = f"{place_of([place.rank], [socket.gethostname()], place.count)}: {sentence}"
    until = time.monotonic() + PATIENCE_SECONDS
    try:
        store, *_ = meet(PATIENCE_SECONDS)
        while not (is_refused(store) or store.check([CALL]) or time.monotonic() > until):
            time.sleep(look_seconds(place.count))
        is_mine = first_refusal(store, place.rank, named).by == place.rank
    except (RuntimeError, ConfigError):  # nobody is there whom it could tell
        say(named)
        return
    if is_mine:
        say(named)
    wait_until_heard(store, place.rank, place.count)


def _store_to_tell_by(count: int) -> Store:
    """Give process 0 the store without waiting for other processes.

    Raises:
        OSError: the launcher keeps it, and does not answer.
    """
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if not hosts_store():
        _wait_for_answer(host, port, LAUNCHER_SECONDS)
    return dist.TCPStore(
        host, port, count, hosts_store(),
        timedelta(seconds=PATIENCE_SECONDS), wait_for_workers=False, multi_tenant=True,
    )  # fmt: skip


def _all_that_answered(store: Store, word: str, rank: int, count: int) -> list[Guest]:
    """List the processes that answered to a word, as process 0 saw them; none before it has."""
    whole = f"blankfill/{word}/all"
    if not word:
        return []
    if rank == 0:
        answers = [_answer(word, r) for r in range(count)]
        if not store.check(answers):
            return []
        store.set(whole, b"\n".join(store.multi_get(answers)).decode())
    if not store.check([whole]):
        return []
    return [read(Guest, line) for line in store.get(whole).splitlines()]


def own_connection(store: Store) -> Store:
    """Give a store on a connection that no other thread uses."""
    return store.clone()  # pyright: ignore[reportAttributeAccessIssue] - torch's stub lacks it


def has_ended(guest: Guest) -> bool:
    """Tell whether a process of this machine has ended, also where nobody has asked for its end."""
    try:
        os.kill(guest.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    fields = _stat(guest.pid)
    return bool(fields) and (fields[FIELD_STATE] in "ZX" or began_at(guest.pid) != guest.began)


def _answer(word: str, rank: int) -> str:
    return f"blankfill/{word}/answer/{rank}"


def _machine(host: str) -> str:
    """Name what processes share that see one another's numbers: a container has its own."""
    with suppress(OSError):
        return f"{host} {os.readlink('/proc/self/ns/pid')}"
    return host


def began_at(pid: int) -> int:
    """Tell when a process of this machine began, in the machine's own count; 0 where it is not
    known."""
    fields = _stat(pid)
    return int(fields[FIELD_BEGAN]) if fields else 0


def _stat(pid: int) -> list[str]:
    """Read what Linux says of a process; nothing elsewhere."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
