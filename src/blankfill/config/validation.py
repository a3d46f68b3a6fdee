"""How a run is watched on text that it does not train on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from blankfill.config.common import COMMON
from blankfill.config.ranges import Range, Steps, check_numbers

__all__ = ["ValidationConfig"]

VALIDATIONS: Final = 10
"""Validations of a run whose validation.every is auto, beside the one before it."""
LEAST_AUTO: Final = 100
"""Least steps between them: a validation takes about as long as ten steps of `tiny`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationConfig:
    """Validation; it needs held-out data."""

    every: Annotated[Steps | Literal["auto"], COMMON] = "auto"
    """Steps between two validations, which need held-out data; auto is a tenth of the run, but 100
    steps at least. 0 validates only before the first step and after the last; these two are done in
    any case where there is held-out data."""
    blanks: Annotated[int, Range(0, 10**6)] = 64
    """Held-out blanks of each language that a validation fills greedily as well; 0 fills none."""
    show_fills: Annotated[int, Range(0, 10**6)] = 6
    """Of those, how many of each language are kept as text, in samples.jsonl and TensorBoard."""
    forgetting_limit: Annotated[float, Range(0, 1000)] = 0.0
    """Share by which the loss on a held-out store may exceed its best so far, the weights that the
    run started from included, such as 0.05; 0 is off."""
    on_forgetting: Literal["warn", "stop"] = "warn"
    """What a validation beyond forgetting_limit does."""

    def every_steps(self, steps: int) -> int:
        """Give the steps between two validations; 0 where there are none between first and last.

        Args:
            steps: of the run.
        """
        if self.every != "auto":
            return self.every
        return max(LEAST_AUTO, -(-steps // VALIDATIONS))

    def __post_init__(self) -> None:
        check_numbers(self, "validation")
