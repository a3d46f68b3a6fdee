"""`pretrain`'s options stand on the values of its preset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blankfill.config.presets import is_preset, preset

__all__ = ["named_preset", "preset_defaults", "with_preset"]


def preset_defaults(name: str) -> dict[str, Any]:
    """Give the configuration of a preset by the parameter that takes it.

    Raises:
        ConfigError: there is no such preset.
    """
    return {"config": preset(name)}


def with_preset(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Put a preset's configuration, changed as the options say, in place of single fields.

    Args:
        name: of the preset.
        options: by parameter; a configuration's field by its dotted name, such as `train.steps`.

    Raises:
        ConfigError: there is no such preset, or a value cannot be used.
    """
    values = {key: value for key, value in options.items() if "." not in key}
    fields = {key: value for key, value in options.items() if "." in key}
    return values | {"config": preset(name).changed(fields)}


def named_preset(words: Sequence[str]) -> str:
    """Find the preset whose values a page of help shows: the one that is named, or tiny."""
    return next((word for word in words if is_preset(word)), "tiny")
