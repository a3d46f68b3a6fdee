"""What processes of a run tell one another: who they are, where they stand, and what ended it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from blankfill.disk import typed_json
from blankfill.parallel.lookout import Standing

__all__ = ["Fault", "FaultKind", "Guest", "Refusal", "State", "place_of", "read", "written"]

T = TypeVar("T", "Fault", "Guest", "Refusal", "State")

COMPUTING_SECONDS = 1800.0
"""For which a process that computes outside a step may keep others waiting: it may be reading a
large checkpoint. As long as torch itself waits."""

MOST_NAMED = 8
"""Processes that a sentence names; of a cluster that is lost there may be hundreds."""

FaultKind = Literal["error", "ended", "silent", "stuck", "unreachable"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Guest:
    """A process of the run, as it introduced itself."""

    rank: int
    """Its number."""
    host: str
    """Name of its machine."""
    machine: str
    """The same for processes that see one another's numbers (pid)."""
    pid: int
    """Its number on that machine."""
    began: int
    """When it began, in the machine's own count, so that its pid is not taken for another's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """Why a run ended."""

    kind: FaultKind
    ranks: tuple[int, ...]
    """The processes that are at fault."""
    hosts: tuple[str, ...]
    """Their machines."""
    count: int
    """Processes of the run."""
    cause: str
    """What happened, as the end of a sentence that begins with the processes."""
    by: int
    """The process that says so; the others end without a word."""
    step: int | None = None
    """0-based optimizer step that they were at; None before the first."""

    def sentence(self) -> str:
        """Say it in a sentence, with the way out."""
        who = place_of(self.ranks, self.hosts, self.count)
        if self.kind == "error":
            return f"{who}, {_when(self.step)}: {self.cause}"
        return (
            f"{who} {self._cause()} {_when(self.step)}; the others have ended too: the same "
            "command with --resume goes on from the last checkpoint"
        )

    def _cause(self) -> str:
        """Say the cause of as many processes as there are."""
        for one, several in (("has ", "have "), ("hangs", "hang")):
            if len(self.ranks) > 1 and self.cause.startswith(one):
                return several + self.cause.removeprefix(one)
        return self.cause


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Why a process does not begin; before they have met."""

    by: int
    """The process that says so; the others end without a word."""
    sentence: str
    """What it says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """What a process tells the others with each beat."""

    beat: int = 0
    """Beats so far."""
    step: int | None = None
    """0-based optimizer step that is at hand; None before the first."""
    first_step: int | None = None
    """The first that it did."""
    left: bool = False
    """Whether it has left the run as it should."""
    standing: Standing = field(default_factory=Standing)
    """Where the thread stands that trains."""

    def is_stuck(self, limit: float) -> bool:
        """Tell whether it does not get further for so many seconds, and waits for no other."""
        at = self.standing
        if at.waiting:
            return False
        if at.in_step and self.step != self.first_step:
            return at.still_seconds > limit
        idle = min(at.still_seconds, at.idle_seconds) > limit
        return idle or at.still_seconds > COMPUTING_SECONDS

    def waits_idly(self, limit: float) -> bool:
        """Tell whether it has done nothing but wait for others for so many seconds."""
        at = self.standing
        return at.waiting and min(at.still_seconds, at.idle_seconds) > limit


def place_of(ranks: Sequence[int], hosts: Sequence[str], count: int) -> str:
    """Name processes with their machines: `process 2 of 4 on node-7`.

    Args:
        ranks: their numbers.
        hosts: their machines; none where they are not known.
        count: processes of the run.
    """
    on = [f" on {host}" for host in hosts] or [""] * len(ranks)
    named = [f"{rank}{where}" for rank, where in zip(ranks, on, strict=True)]
    if len(named) == 1:
        return f"process {ranks[0]} of {count}{on[0]}"
    more = [f"{len(named) - MOST_NAMED} more"] if len(named) > MOST_NAMED else []
    *most, last = [*named[:MOST_NAMED], *more]
    return f"processes {', '.join(most)} and {last} of {count}"


def _when(step: int | None) -> str:
    return "before the first step" if step is None else f"at step {step}"


def written(value: Fault | Guest | Refusal | State) -> str:
    """Give a value as text, for the store that all processes read."""
    return json.dumps(typed_json.to_json(value))


def read(cls: type[T], text: bytes | str) -> T:
    """Take up what `written` gave."""
    return typed_json.from_json(cls, json.loads(text))
