"""Which fields of a configuration are common, and which parameters may be left out when.

    steps: Annotated[Steps, COMMON]
    preset: Annotated[str | None, Unless("resume", "config")]

A verb's `--help` shows its own options and these; `--help-all` shows the rest as well. Some have a
short name besides: `--steps` is `--train.steps`.
"""

from __future__ import annotations

import enum
import typing
from typing import Any, Final

__all__ = ["COMMON", "SHORT_NAMES", "Common", "Unless", "is_common", "unless"]


class Common(enum.Enum):
    """The mark of a field that many runs set."""

    COMMON = "common"


class Unless:
    """The mark of a parameter that a command line needs unless others are given.

    Args:
        names: of the others.
    """

    def __init__(self, *names: str) -> None:
        self.names = names


COMMON: Final = Common.COMMON

SHORT_NAMES: Final = {
    "steps": "train.steps",
    "lr": "schedule.peak_lr",
    "warmup-steps": "schedule.warmup_steps",
    "batch-rows": "train.batch_rows",
    "row-length": "train.row_length",
    "threads": "train.threads",
    "seed": "train.seed",
    "validate-every": "validation.every",
    "save-every": "checkpoint.every",
}
"""Short names of fields on the command line, and the fields. A verb's own option of that name comes
before them."""


def is_common(hint: Any) -> bool:
    """Tell whether an annotation marks its field as common, at any depth."""
    return hint is COMMON or any(is_common(part) for part in typing.get_args(hint))


def unless(hint: Any) -> tuple[str, ...]:
    """Tell which parameters make one unnecessary; none where it is no such parameter."""
    marks = [part for part in typing.get_args(hint) if isinstance(part, Unless)]
    return marks[0].names if marks else ()
