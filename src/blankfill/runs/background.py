"""Saving beside the steps: tensors are copied at once and written by a thread.

The copy is what a step waits for; hashing, writing, flushing and reading back run on a thread of
lower priority while training goes on. Errors of the thread are raised by the next call.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from blankfill.config.checkpoint import CheckpointConfig
from blankfill.config.optimizer import OptimizerConfig
from blankfill.errors import CheckpointError
from blankfill.runs.folder import Part
from blankfill.runs.record import TrainingState
from blankfill.runs.save import NewCheckpoint

if TYPE_CHECKING:
    import torch

__all__ = ["BackgroundWriter", "CheckpointSaver", "restored_parts"]

log = logging.getLogger(__name__)

NICENESS = 10
"""Niceness of the writing thread, so that it yields to the threads that train (Linux)."""

Tensors = dict[str, "torch.Tensor"]


class BackgroundWriter:
    """Writes the tensors of one checkpoint at a time.

    Args:
        background: write on a thread; otherwise `start` returns when all is written.
    """

    def __init__(self, *, background: bool = True) -> None:
        self._background = background
        self._memory: dict[Part, Tensors] = {}
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def has_failed(self) -> bool:
        """Whether the last save has ended with an error that was not raised yet."""
        return self._error is not None

    def start(
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


class CheckpointSaver:
    """Saves one run while it trains, beside its steps.

    Args:
        cfg: which checkpoints stay, and what to do when one cannot be written.
        run: the run's folder.
        write: writes the tensors of a checkpoint and commits it; may run on a thread.
    """

    def __init__(
        self, cfg: CheckpointConfig, run: Path,
        write: Callable[[NewCheckpoint, dict[Part, Tensors]], object],
    ) -> None:  # fmt: skip
        self.saved_at = -1
        """Step that was saved last, or is being saved."""
        self._cfg, self._run, self._write = cfg, run, write
        self._writer = BackgroundWriter(background=cfg.in_background)
        self._failing = False

    def save(self, step: int, parts: dict[Part, Tensors], training: TrainingState) -> None:
        """Copy `parts` and write the checkpoint of `step` beside what follows.

        Args:
            step: optimizer steps done.
            parts: `model`, `optimizer` and `ema` tensors; they may change when this returns.
            training: what training goes on from.

        Raises:
            CheckpointError: the save before this one failed, or this one where not in background.
        """

        new = NewCheckpoint(
            run=self._run, step=step, training=training, keep=self._cfg.keep,
            keep_every=self._cfg.keep_every, keep_best=self._cfg.keep_best,
        )  # fmt: skip

        def write(copies: dict[Part, Tensors]) -> None:
            self._write(new, copies)
            if self._failing:
                log.info("checkpoints can be written again; step %d is saved", step)
                self._failing = False

        self._writer.start(parts, write)
        self.saved_at = step

    @property
    def has_failed(self) -> bool:
        """Whether the save that was begun last has failed, and nobody was told yet."""
        return self._writer.has_failed

    def check_background_save(self) -> None:
        """Wait until the save that was begun last has ended, and look whether it has failed.

        Raises:
            CheckpointError: it has, and checkpoint.on_error is stop.
        """
        try:
            self._writer.wait()
        except CheckpointError as error:
            self.saving_failed(error)

    def saving_failed(self, error: CheckpointError) -> None:
        """End the run, or warn once that training goes on without the checkpoint.

        Raises:
            CheckpointError: checkpoint.on_error is stop.
        """
        self.saved_at = -1
        if self._cfg.on_error == "stop":
            raise error
        if not self._failing:
            log.warning("%s. Training goes on; the next checkpoint is tried when it is due", error)
        self._failing = True

    def finish(self) -> None:
        """Wait until the last save stands.

        Raises:
            CheckpointError: it failed.
        """
        self._writer.wait()


def restored_parts(cfg: OptimizerConfig) -> list[Part]:
    """List what a run takes up again of a checkpoint, and so has to be as it was written."""
    return ["model", "optimizer", *(["ema"] if cfg.ema_decay else [])]
