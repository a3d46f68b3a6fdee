"""Which of several processes of one run this is, as its launcher says; and a run of one.

`torchrun` starts the same command several times and tells each its place in the environment. What
joins them (`blankfill.parallel`) is loaded where there are several.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn, Protocol, TypeVar

from blankfill.errors import BlankfillError, ConfigError

__all__ = ["Alone", "Place", "Processes", "deaf", "settle_speaker", "speaker_of", "this_place"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A process among those of its run."""

    rank: int = 0
    """Its number; 0 leads."""
    count: int = 1
    """How many there are."""
    local_rank: int = 0
    """Its number on this machine."""
    local_count: int = 1
    """How many there are on this machine."""


def this_place() -> Place:
    """Read what the launcher says; without one this process is alone.

    Raises:
        ConfigError: what it says is no number, or the numbers do not fit each other.
    """
    count = _number("WORLD_SIZE", 1)
    if count == 1:
        return Place()
    rank = _number("RANK", None)
    place = Place(
        rank=rank, count=count, local_rank=_number("LOCAL_RANK", rank),
        local_count=_number("LOCAL_WORLD_SIZE", count),
    )  # fmt: skip
    if not 0 <= place.rank < count:
        raise ConfigError(
            f"RANK={place.rank} is not one of WORLD_SIZE={count} processes; start them with "
            "torchrun, which sets both"
        )
    return place


def _number(name: str, default: int | None) -> int:
    value = os.environ.get(name, "" if default is None else str(default))
    if value.isascii() and value.isdecimal() and (int(value) or name != "WORLD_SIZE"):
        return int(value)
    raise ConfigError(
        f"{name}={value!r} in the environment is not a number of processes; start them with "
        "torchrun, which sets it, or unset WORLD_SIZE"
    )


def settle_speaker(error: BaseException, rank: int) -> None:
    """Note on an error that ends several processes which of them says it; the others are silent."""
    error.__dict__["speaker"] = rank


def speaker_of(error: BaseException) -> int | None:
    """Give the process that says an error; None where they have not settled it."""
    return error.__dict__.get("speaker")


@contextmanager
def deaf() -> Generator[None]:
    """Hear no wish to end while this process ends anyway and has yet to say why: a launcher tells
    all to end as soon as one has ended. Handlers are the main thread's; elsewhere nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]
    before = {n: signal.signal(n, signal.SIG_IGN) for n in numbers if n is not None}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Processes(Protocol):
    """What the processes of a run know alike."""

    @property
    def leads(self) -> bool:
        """Whether this process writes the run's files and speaks for it; one does."""
        ...

    @property
    def rank(self) -> int:
        """Number of this one."""
        ...

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    def once(self, decide: Callable[[], T]) -> T:
        """Let the leading process find something out, and tell it to all."""
        ...

    def gather(self, items: Sequence[T]) -> list[T]:
        """Give all processes what each of them has, in the order of their ranks."""
        ...

    def place_of(self, rank: int) -> str:
        """Name a process, with its machine where that is known."""
        ...

    def who(self, is_so: bool) -> str:
        """Name the processes for which something is so, with their machines; nothing where it is so
        for none, or there is one process, which everybody knows."""
        ...

    def refuse(self, error: BlankfillError) -> NoReturn:
        """Raise what every process has found alike, so that one says it for all."""
        ...


class Alone:
    """A run of one process."""

    leads = True
    rank, count = 0, 1

    def once(self, decide: Callable[[], T]) -> T:
        """Find something out."""
        return decide()

    def gather(self, items: Sequence[T]) -> list[T]:
        """Give the items: there are no others."""
        return list(items)

    def place_of(self, rank: int) -> str:
        """Name a process."""
        return f"process {rank} of {self.count}"

    def who(self, is_so: bool) -> str:
        """Name nobody: there is no other process."""
        return ""

    def refuse(self, error: BlankfillError) -> NoReturn:
        """Raise an error."""
        try:
            raise error
        finally:
            del error  # else it and this frame hold each other, and what its callers hold, as locks
