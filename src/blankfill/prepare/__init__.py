"""From a configuration and folders to a trainer."""

from __future__ import annotations

from blankfill.prepare.build import build_trainer
from blankfill.prepare.describe import passes_in, say_start
from blankfill.prepare.plan import require_new_run
from blankfill.prepare.sources import open_stores, open_stores_apart

__all__ = [
    "build_trainer",
    "open_stores",
    "open_stores_apart",
    "passes_in",
    "require_new_run",
    "say_start",
]
