"""What functions of the API take: a path as `str` or `Path`, one value or several.

`config.arguments` holds callers to these types; the functions here give what was taken one form.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from blankfill.config.checkpoint import CheckpointName

__all__ = ["CheckpointName", "PathLike", "Paths", "Spans", "Texts", "as_list", "as_path"]

PathLike = str | Path
"""A path."""
Paths = PathLike | Sequence[PathLike]
"""One path, or several."""
Texts = str | Sequence[str]
"""One text, or several."""
Spans = Texts | tuple[int, int] | Sequence[tuple[int, int]]
"""Token ranges: half-open pairs `(2, 4)`, or words such as `2:4`, one or several."""


def as_path(value: PathLike) -> Path:
    """Take a path."""
    return Path(value)


def as_list(values: Paths | Texts) -> list[Any]:
    """Take one path or text, or several, as a list; a string is one, not its letters."""
    return [values] if isinstance(values, str | Path) else [*cast("Sequence[object]", values)]
