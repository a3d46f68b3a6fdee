"""Saves a run while it trains: checkpoints are written beside the steps."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from blankfill.config.checkpoint import CheckpointConfig
from blankfill.config.optimizer import OptimizerConfig
from blankfill.errors import CheckpointError
from blankfill.runs import Part, Saver, TrainingState, save_checkpoint

__all__ = ["Keeper", "restored_parts"]

log = logging.getLogger(__name__)


class Keeper:
    """Saves one run.

    Args:
        cfg: which checkpoints stay, and what to do when one cannot be written.
        run: the run's folder.
    """

    def __init__(self, cfg: CheckpointConfig, run: Path) -> None:
        self.saved_at = -1
        """Step that was saved last, or is being saved."""
        self._cfg, self._run = cfg, run
        self._saver = Saver(background=cfg.in_background)
        self._failing = False

    def save(
        self, step: int, parts: dict[Part, dict[str, torch.Tensor]], training: TrainingState
    ) -> None:
        """Copy `parts` and write the checkpoint of `step` beside what follows.

        Args:
            step: optimizer steps done.
            parts: `model`, `optimizer` and `ema` tensors; they may change when this returns.
            training: what training goes on from.

        Raises:
            CheckpointError: the save before this one failed, or this one where not in background.
        """

        def write(copies: dict[Part, dict[str, torch.Tensor]]) -> None:
            save_checkpoint(
                self._run, step, copies, training, keep=self._cfg.keep,
                keep_every=self._cfg.keep_every, keep_best=self._cfg.keep_best,
            )  # fmt: skip
            if self._failing:
                log.info("checkpoints can be written again; step %d is saved", step)
                self._failing = False

        self._saver.save(parts, write)
        self.saved_at = step

    def check_background_save(self, *, wait: bool = False) -> None:
        """Look whether the save that was begun last has failed.

        Args:
            wait: wait until it has ended.

        Raises:
            CheckpointError: it has, and checkpoint.on_error is stop.
        """
        try:
            if wait:
                self._saver.wait()
            else:
                self._saver.check()
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
        self._saver.wait()


def restored_parts(cfg: OptimizerConfig) -> list[Part]:
    """List what a run takes up again of a checkpoint, and so has to be as it was written."""
    return ["model", "optimizer", *(["ema"] if cfg.ema_decay else [])]
