"""Some rows of a run, forward and backward through its model, to be timed in more than one way."""

from __future__ import annotations

from collections.abc import Callable

import torch

from blankfill.config.run import RunConfig
from blankfill.engine.compiled import mark_varying
from blankfill.engine.device import choose_attention
from blankfill.engine.gradient import forward_backward
from blankfill.engine.transfer import to_tensors
from blankfill.model.glm import GLM, device_of
from blankfill.objective.batch import Batch

__all__ = ["Trial"]

POSITIONS = 2048
"""Positions of the rows that are timed, as far as whole rows allow: enough for whole products."""


class Trial:
    """One micro-batch or less of a run; the model is left as it was, without gradients.

    Args:
        cfg: the run.
        model: on the device where it trains.
        rows: makes a batch of so many rows of it.
        compiled: whether the model's blocks are.
    """

    def __init__(
        self, cfg: RunConfig, model: GLM, rows: Callable[[int], Batch], *, compiled: bool = False
    ) -> None:
        train, device = cfg.train, device_of(model)
        self._model, self._z_loss, self._compiled = model, train.z_loss, compiled
        self._num_rows = max(1, min(train.micro_batch_rows, POSITIONS // train.row_length))
        self._of_run = train.batch_rows / self._num_rows * train.steps
        kind = choose_attention(
            train.attention, device.type, torch.float32, dropout=cfg.model.attention_dropout_rate
        )
        self._batch = to_tensors(rows(self._num_rows), kind, device)
        self.num_targets = len(self._batch.targets.index)
        """Targets of its rows; where there are none it tells nothing."""

    def __str__(self) -> str:
        """Say what is timed."""
        return f"{self._num_rows} rows forward and backward"

    def step(self, dtype: torch.dtype) -> None:
        """Compute the gradient of its rows, and drop it."""
        if self._compiled:
            mark_varying(self._batch.mask, self._batch.targets.index)
        forward_backward(
            self._model, [self._batch], dtype, float(self.num_targets), z_loss=self._z_loss
        )
        self._model.zero_grad(set_to_none=True)

    def seconds_of_run(self, seconds: float) -> float:
        """Tell how long the run takes at least, where its rows take `seconds`."""
        return seconds * self._of_run
