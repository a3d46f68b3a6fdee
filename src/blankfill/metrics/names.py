"""Short names of folders, for legends and keys."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

__all__ = ["unique_names"]


def unique_names(paths: Sequence[Path]) -> list[str]:
    """Name each folder by as many of its last parts as tell it from the others.

    Bytes of a path that are not UTF-8 are shown as escapes, for keys and legends are text.
    """
    parts = [_shown(str(path.resolve())).split(os.sep) for path in paths]
    for depth in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{_shown(str(path))} ({i + 1})" for i, path in enumerate(paths)]


def _shown(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode()
