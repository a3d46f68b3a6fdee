"""The same run on several processes, by torch's own FSDP2; loaded where there are several."""

from __future__ import annotations

from blankfill.parallel.engine import ParallelEngine
from blankfill.parallel.meeting import joined
from blankfill.parallel.ranks import Ranks

__all__ = ["ParallelEngine", "Ranks", "joined"]
