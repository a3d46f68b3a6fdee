"""Files of one JSON object a line with its `step`, as a run appends them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

__all__ = ["read_lines"]


def read_lines(path: Path) -> list[dict[str, object]]:
    """Read the lines that are whole; one cut short by a crash is left out, and so is any other."""
    if not path.is_file():
        return []
    rows: list[dict[str, object]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            row: object = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            found = cast("dict[str, object]", row)
            if isinstance(found.get("step"), int):
                rows.append(found)
    return rows
