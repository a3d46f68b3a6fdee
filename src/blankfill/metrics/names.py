"""Names: of folders, short, for legends and keys; of metrics, in groups, for TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

__all__ = ["board_tag", "unique_names"]

VALIDATION = "validation_"
"""What the name of a metric of held-out data begins with."""
_SPEED = ("_per_second", "mfu")
"""What names of rates have in them."""


def board_tag(metric: str) -> str:
    """Put a metric into one of TensorBoard's groups: `validation/`, `speed/` or `train/`.

    In metrics.jsonl `validation/loss_nats` keeps its plain name, `validation_loss_nats`.
    """
    if metric.startswith(VALIDATION):
        return f"validation/{metric.removeprefix(VALIDATION)}"
    return f"{'speed' if any(word in metric for word in _SPEED) else 'train'}/{metric}"


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
