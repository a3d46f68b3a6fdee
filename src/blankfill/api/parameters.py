"""What functions of the API take: a path as `str` or `Path`, one value or several.

`config.arguments` holds callers to these types; the functions here give what was taken one form.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from blankfill.config.checkpoint import CheckpointName
from blankfill.errors import ConfigError

__all__ = [
    "CheckpointName",
    "PathLike",
    "Paths",
    "Spans",
    "Texts",
    "as_list",
    "as_path",
    "as_picture",
]

PathLike = str | Path
"""A path."""
Paths = PathLike | Sequence[PathLike]
"""One path, or several."""
Texts = str | Sequence[str]
"""One text, or several."""
Spans = Texts | tuple[int, int] | Sequence[tuple[int, int]]
"""Token ranges: half-open pairs `(2, 4)`, or words such as `2:4`, one or several."""

PICTURE_ENDINGS = (".png", ".svg", ".pdf")
"""What a picture's name may end in."""


def as_path(value: PathLike) -> Path:
    """Take a path."""
    return Path(value)


def as_list(values: Paths | Texts) -> list[Any]:
    """Take one path or text, or several, as a list; a string is one, not its letters."""
    return [values] if isinstance(values, str | Path) else [*cast("Sequence[object]", values)]


def as_picture(option: str, value: PathLike) -> Path:
    """Take the path of a picture that is to be drawn.

    Raises:
        ConfigError: its name does not say a format that can be drawn.
        OutputError: it cannot be written there, or would replace what is no picture of ours.
    """
    path = as_path(value)
    if path.suffix not in PICTURE_ENDINGS:
        raise ConfigError(f"{option} {path} must end in {' or '.join(PICTURE_ENDINGS)}")
    from blankfill.disk.new_file import require_writable
    from blankfill.objective.render import PICTURE

    require_writable(path, *PICTURE)
    return path
