"""Saving beside the steps: tensors are copied at once and written by a thread.

The copy is what a step waits for; hashing, writing, flushing and reading back run on a thread of
lower priority while training goes on. Errors of the thread are raised by the next call.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from blankfill.runs.folder import Part

if TYPE_CHECKING:
    import torch

__all__ = ["Saver"]

NICENESS = 10
"""How far the writing thread steps back behind the threads that train (Linux)."""

Tensors = dict[str, "torch.Tensor"]


class Saver:
    """Writes one checkpoint at a time.

    Args:
        background: write on a thread; otherwise `save` returns when all is written.
    """

    def __init__(self, *, background: bool = True) -> None:
        self._background = background
        self._memory: dict[Part, Tensors] = {}
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(
        self, parts: dict[Part, Tensors], write: Callable[[dict[Part, Tensors]], object]
    ) -> None:
        """Copy tensors to host memory and start writing them; waits for the save before it.

        Args:
            parts: tensors by part and name; they may change as soon as this returns.
            write: is given the copies, on the thread.

        Raises:
            Exception: what the save before this one, or this one if not in background, raised.
        """
        self.wait()
        if not self._background:
            write(parts)
            return
        copies = {part: self._copy(part, tensors) for part, tensors in parts.items()}
        self._thread = threading.Thread(
            target=self._run, args=(write, copies), name="checkpoint", daemon=True
        )
        self._thread.start()

    def check(self) -> None:
        """Raise what the last save ran into, if it has ended; never waits."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Wait until the last save stands, and raise what it ran into."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _copy(self, part: Part, tensors: Tensors) -> Tensors:
        # The memory is kept from save to save: fresh pages would cost more than the copy.
        import torch

        memory = self._memory.setdefault(part, {})
        for name, value in tensors.items():
            held = memory.get(name)
            if held is None or held.shape != value.shape or held.dtype != value.dtype:
                memory[name] = torch.empty_like(value, device="cpu")
            memory[name].copy_(value.detach())
        return {name: memory[name] for name in tensors}

    def _run(
        self, write: Callable[[dict[Part, Tensors]], object], copies: dict[Part, Tensors]
    ) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        try:
            write(copies)
        except BaseException as error:
            self._error = error
