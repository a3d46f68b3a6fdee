"""What counts as an incident of training, and what follows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from blankfill.config.ranges import Range, check_numbers

__all__ = ["GuardConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardConfig:
    """The guard of losses and gradient norms."""

    on_spike: Literal["log", "skip", "rollback", "stop"] = "log"
    """When loss or gradient norm spikes or is not finite: log goes on after a spike and stops where
    nothing is finite, and on a GPU judges steps when they are logged, so that it is not waited for;
    skip drops the update; rollback returns to the last checkpoint and leaves those rows out; stop
    saves and ends. The batch is written to incidents/ in any case."""
    spike_window: Annotated[int, Range(2, 10**6)] = 128
    """Steps whose losses and gradient norms say what is usual; a quarter of them must be known."""
    spike_threshold: Annotated[float, Range(1e-9, 1e9)] = 8.0
    """A spike is this many robust standard deviations (1.4826 MAD) above the window's median."""

    def __post_init__(self) -> None:
        check_numbers(self, "guard")
