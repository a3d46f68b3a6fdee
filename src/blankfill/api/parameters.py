"""What functions of the API take: a path as `str` or `Path`, one value or several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from blankfill.config.checkpoint import CheckpointName
from blankfill.errors import ConfigError

__all__ = ["CheckpointName", "PathLike", "Paths", "Texts", "as_list", "as_path"]

PathLike = str | Path
"""A path."""
Paths = PathLike | Sequence[PathLike]
"""One path, or several."""
Texts = str | Sequence[str]
"""One text, or several."""


def as_path(value: PathLike, name: str) -> Path:
    """Take a path.

    Args:
        value: as it was given.
        name: of the parameter, for the error.

    Raises:
        ConfigError: it is empty, or no path.
    """
    if not isinstance(value, str | Path):  # pyright: ignore[reportUnnecessaryIsInstance]  # a caller without a type checker
        raise ConfigError(f"{name} must be a path, not {value!r}")
    if not str(value):
        raise ConfigError(f"{name} is empty; name a path")
    return Path(value)


def as_list(values: Paths | Texts | None, name: str) -> list[Any]:
    """Take one path or text, or several, as a list; a string is one, not its letters.

    Args:
        values: as they were given; `None` is none.
        name: of the parameter, for the error.

    Raises:
        ConfigError: one of them is neither.
    """
    if values is None:
        return []
    if isinstance(values, str | Path):
        return [values]
    try:
        found = [*cast("Sequence[object]", values)]
    except TypeError:
        found = [values]
    for value in found:
        if not isinstance(value, str | Path):
            raise ConfigError(f"{name} must be a path or text, or a list of them, not {value!r}")
    return found
