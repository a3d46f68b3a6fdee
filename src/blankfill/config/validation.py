"""How a run is watched on text that it does not train on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from blankfill.config.common import COMMON
from blankfill.config.ranges import Range, Steps, check_numbers

__all__ = ["ValidationConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationConfig:
    """Validation; it needs held-out data."""

    every: Annotated[Steps, COMMON] = 0
    """Steps between two validations, which need held-out data. 0 validates only before the first
    step and after the last; these two are done in any case where there is held-out data."""
    blanks: Annotated[int, Range(0, 10**6)] = 64
    """Held-out blanks of each language that a validation fills greedily as well; 0 fills none."""
    show_fills: Annotated[int, Range(0, 10**6)] = 6
    """Of those, how many of each language are kept as text, in samples.jsonl and TensorBoard."""
    forgetting_limit: Annotated[float, Range(0, 1000)] = 0.0
    """Share by which the loss on a held-out store may exceed its best so far, the weights that the
    run started from included, such as 0.05; 0 is off."""
    on_forgetting: Literal["warn", "stop"] = "warn"
    """What a validation beyond forgetting_limit does."""

    def __post_init__(self) -> None:
        check_numbers(self, "validation")
