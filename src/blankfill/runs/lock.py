"""One process at a time trains in a run's folder."""

from __future__ import annotations

import os
import weakref
from pathlib import Path

from blankfill.disk.locks import try_lock
from blankfill.errors import CheckpointError

__all__ = ["RunLock"]


class RunLock:
    """A lock on a folder that ends with `release`, with this object, or with the process.

    Args:
        run: the folder; it exists.

    Raises:
        CheckpointError: another process holds it.
    """

    def __init__(self, run: Path) -> None:
        handle = os.open(run, os.O_RDONLY)
        self._release = weakref.finalize(self, os.close, handle)
        if try_lock(handle) is False:
            self._release()
            raise CheckpointError(
                f"another process trains in {run}; wait until it has ended, or stop it"
            )

    def release(self) -> None:
        """Let other processes have the folder; more than once does no harm."""
        self._release()
