"""Files of one JSON object a line with its `step`, as a run appends them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["read_lines"]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the lines that are whole; one cut short by a crash is left out, and so is any other."""
    if not path.is_file():
        return []
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows
