"""`pretrain`'s fields of a configuration: the values that help shows, and those that were typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blankfill.config.presets import is_preset, preset

__all__ = ["named_preset", "preset_defaults", "with_changes"]


def preset_defaults(name: str) -> dict[str, Any]:
    """Give the configuration of a preset by the parameter that takes it.

    Raises:
        ConfigError: there is no such preset.
    """
    return {"config": preset(name)}


def with_changes(options: Mapping[str, Any]) -> dict[str, Any]:
    """Put single fields of a run's configuration together as the parameter that takes them.

    Args:
        options: by parameter; a configuration's field by its dotted name, such as `train.steps`.
    """
    values = {key: value for key, value in options.items() if "." not in key}
    fields = {key: value for key, value in options.items() if "." in key}
    return values | ({"changes": fields} if fields else {})


def named_preset(words: Sequence[str]) -> str:
    """Find the preset whose values a page of help shows: the one that is named, or tiny."""
    return next((word for word in words if is_preset(word)), "tiny")
