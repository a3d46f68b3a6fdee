"""`pretrain`'s options stand on the values of its preset."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from blankfill.config.presets import is_preset, preset

__all__ = ["named_preset", "preset_defaults", "with_preset"]

_PARTS = ("model", "objective", "train")


def preset_defaults(name: str) -> dict[str, Any]:
    """Give the configurations of a preset by the parameter that takes each.

    Raises:
        ConfigError: there is no such preset.
    """
    chosen = preset(name)
    return {part: getattr(chosen, part) for part in _PARTS}


def with_preset(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Put a preset's configurations, changed as the options say, in place of single fields.

    Args:
        name: of the preset.
        options: by parameter; a configuration's field by its dotted name, such as `train.steps`.

    Raises:
        ConfigError: there is no such preset, or a value cannot be used.
    """
    values = {key: value for key, value in options.items() if "." not in key}
    for part, default in preset_defaults(name).items():
        changed = {
            key.removeprefix(f"{part}."): value
            for key, value in options.items()
            if key.startswith(f"{part}.")
        }
        values[part] = dataclasses.replace(default, **changed)
    return values


def named_preset(words: Sequence[str]) -> str:
    """Find the preset whose values a page of help shows: the one that is named, or tiny."""
    return next((word for word in words if is_preset(word)), "tiny")
