"""When checkpoints are written, and which of them stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from blankfill.config.common import COMMON
from blankfill.config.ranges import MOST_STEPS, Range, Steps, check_numbers

__all__ = ["CheckpointConfig", "CheckpointName"]

CheckpointName = str | int
"""How a user names a checkpoint of a run: `last`, `best` (the lowest loss on held-out data), or the
step (`500`, or `step-00000500` as its folder is called)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointConfig:
    """Checkpoints."""

    every: Annotated[int, Range(1, MOST_STEPS), COMMON] = 500
    """Steps between two checkpoints; the last step is always saved."""
    keep: Annotated[int, Range(1, MOST_STEPS)] = 2
    """Newest checkpoints that stay on disk."""
    keep_every: Steps = 0
    """Checkpoints at multiples of this many steps stay as well; 0 is off."""
    keep_best: bool = False
    """The checkpoint with the lowest validation loss stays as well."""
    in_background: bool = True
    """Write checkpoints beside the steps, from a copy in memory."""
    on_error: Literal["stop", "go_on"] = "stop"
    """When a checkpoint cannot be written: end the run, or train on and try again when the next
    one is due. The last good checkpoint stays either way."""

    def __post_init__(self) -> None:
        check_numbers(self, "checkpoint")
