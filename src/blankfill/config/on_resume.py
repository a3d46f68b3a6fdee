"""What of a configuration may change when a run goes on, said beside the field.

    seed: Annotated[Seed, NEVER] = 1

A section says it once for all its fields where `RunConfig` has the section; where neither says
anything, a change must be named (`--allow-change schedule.peak_lr`).
"""

from __future__ import annotations

import enum
import typing
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from blankfill.config.ranges import hints_of

__all__ = ["BY_NAME", "FREE", "NEVER", "OnResume", "on_resume"]


class OnResume(enum.Enum):
    """How a field may change when a run is resumed."""

    FREE = "free"
    """Without a word: it changes neither weights nor losses, or belongs to the machine."""
    BY_NAME = "by name"
    """Where it is named: it belongs to the recipe."""
    NEVER = "never"
    """Not at all: with another value it would be another run."""


FREE: Final = OnResume.FREE
BY_NAME: Final = OnResume.BY_NAME
NEVER: Final = OnResume.NEVER


def on_resume(config: type[Any]) -> Mapping[str, OnResume]:
    """Tell of each field, by its dotted name, whether it may change when a run is resumed.

    Args:
        config: a dataclass of sections, such as `RunConfig`.
    """
    found: dict[str, OnResume] = {}
    sections = hints_of(config)
    for section in fields(config):
        of_section = _said(sections[section.name]) or BY_NAME
        of_fields = hints_of(typing.get_type_hints(config)[section.name])
        for name, hint in of_fields.items():
            found[f"{section.name}.{name}"] = _said(hint) or of_section
    return found


def _said(hint: Any) -> OnResume | None:
    """Find what an annotation says, at any depth; None where it says nothing."""
    if isinstance(hint, OnResume):
        return hint
    return next((found for part in typing.get_args(hint) if (found := _said(part))), None)
