"""The processes of a run meet: each introduces itself, and knows the others from then on."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import torch.distributed as dist

from blankfill.errors import ConfigError
from blankfill.parallel.fault import Guest, read, written
from blankfill.processes import this_place

if TYPE_CHECKING:
    from torch.distributed import Store

__all__ = ["began_at", "has_ended", "introduce", "meet", "store_is_launchers"]

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
        raise ConfigError(
            f"the other processes cannot be reached at {':'.join(address)} within "
            f"{timeout_seconds:.0f} s ({_first_line(error)}); start all with torchrun, with the "
            "same --rdzv-endpoint on every machine"
        ) from error


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


def introduce(store: Store, rank: int, count: int, timeout_seconds: float) -> list[Guest]:
    """Introduce this process to the others, and wait for them.

    Raises:
        ConfigError: one has not come within the time-out.
    """
    host, pid = socket.gethostname(), os.getpid()
    guest = Guest(rank=rank, host=host, machine=_machine(host), pid=pid, began=began_at(pid))
    store.set(_key(rank), written(guest))
    keys = [_key(r) for r in range(count)]
    until = time.monotonic() + timeout_seconds
    while not store.check(keys):
        if time.monotonic() > until:
            missing = [r for r, key in enumerate(keys) if not store.check([key])]
            named = ", ".join(map(str, missing[:8])) + (", .." if len(missing) > 8 else "")
            raise ConfigError(
                f"of {count} processes those with the numbers {named} have not come within "
                f"{timeout_seconds:.0f} s; see what they say, or give them longer with "
                "--parallel.timeout-seconds"
            )
        time.sleep(0.01)
    return [read(Guest, text) for text in store.multi_get(keys)]


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


def _key(rank: int) -> str:
    return f"blankfill/guest/{rank}"


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
