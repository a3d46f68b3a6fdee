"""The engine of one process on one device."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

import torch

from blankfill.config.run import RunConfig
from blankfill.config.train import AttentionKind
from blankfill.engine.compiled import compile_block, mark_varying
from blankfill.engine.device import choose_attention, choose_precision, update_precision
from blankfill.engine.engine import Portion, StepNumbers, UnreadNumbers, misfit
from blankfill.engine.gradient import (
    bad_weights,
    draws_by_row,
    forward_backward,
    gradient_norms,
    lend,
    lost_to_scale,
    move_average,
    seed_dropout,
)
from blankfill.engine.recompute import recompute
from blankfill.engine.transfer import TensorBatch, to_tensors
from blankfill.errors import CheckpointError
from blankfill.model.glm import GLM, device_of
from blankfill.objective.batch import Batch
from blankfill.optim import LossScaler, build_optimizer, shrink_at
from blankfill.processes import Alone, Processes
from blankfill.runs import Checkpoint, Part
from blankfill.runs.parts import load_part, load_weights
from blankfill.runs.save import NewCheckpoint, save_alone

__all__ = ["LocalEngine"]

T = TypeVar("T")


class LocalEngine:
    """The engine of one process on one device.

    Args:
        cfg: the run.
        model: with its weights, on the device where it computes.
        dtype: of matrix products; what `train.precision` comes to unmeasured where not given.
        attention: how attention is computed; what `train.attention` comes to unmeasured where not
            given.
        compiled: whether the blocks are compiled.
        reads_each_step: whether each step waits for its loss and gradient norm; what the device,
            the loss scale and the guard come to where not given (`must_read_each_step`).
        dropout_by_row: whether each row's dropout has an address of its own, as where several
            processes share the rows out; else it follows from torch's generator, pass by pass,
            unless compiled blocks compute something again.

    Raises:
        ConfigError: the device does not have that precision or attention.
    """

    def __init__(
        self,
        cfg: RunConfig,
        model: GLM,
        *,
        dtype: torch.dtype | None = None,
        attention: AttentionKind | None = None,
        compiled: bool = False,
        reads_each_step: bool | None = None,
        dropout_by_row: bool = False,
    ) -> None:
        train = cfg.train
        self.model, self.device = model, device_of(model)
        self.dtype = dtype or choose_precision(cfg.precision, self.device)
        self.attention: AttentionKind = attention or choose_attention(
            train.attention, self.device.type, self.dtype, dropout=cfg.model.attention_dropout_rate
        )
        self.optimizer = build_optimizer(
            model, cfg.optimizer, lr=cfg.schedule.peak_lr,
            muon_dtype=update_precision(self.device, next(model.parameters()).dtype),
        )  # fmt: skip
        self.scaler = LossScaler(train.loss_scale_window) if self.dtype == torch.float16 else None
        self.ema = _copies(model) if cfg.optimizer.ema_decay else {}
        self.processes: Processes = Alone()
        self._cfg = cfg
        self._norm: torch.Tensor | None = None
        self._spoiled: torch.Tensor | None = None
        self.reads_each_step = (
            must_read_each_step(cfg, self.device, self.dtype)
            if reads_each_step is None
            else reads_each_step
        )
        # A compiled graph does not set torch's generator back for what it computes again.
        again_compiled = compiled and train.recompute != "none"
        self.compiled, self._dropout_by_row = compiled, dropout_by_row or again_compiled
        recompute(model, train.recompute)
        if compiled:
            for block in model.blocks.values():
                compile_block(block, one_graph=self.attention != "flex")
        model.train()

    # -- one step ---------------------------------------------------------------------------------

    @property
    def leads(self) -> bool:
        """It does: there is no other process."""
        return True

    def once(self, decide: Callable[[], T]) -> T:
        """Find something out."""
        return decide()

    def gather(self, items: Sequence[T]) -> list[T]:
        """Give the items: there are no others."""
        return list(items)

    def sum_over_data(self, values: Sequence[float]) -> list[float]:
        """Give the values: this process reads all rows."""
        return list(values)

    def any_of(self, flags: Sequence[bool]) -> list[bool]:
        """Give the flags: there is no other process."""
        return list(flags)

    def deal(self, first: int, num_rows: int) -> list[Portion]:
        """Cut a step's rows into micro-batches."""
        size = self._cfg.train.micro_batch_rows
        rows = range(first, first + num_rows, size)
        return [Portion(first=row, num_rows=size, size=size) for row in rows]

    def has_largest(self, value: float) -> bool:
        """It is: there is no other process."""
        return True

    def transfer(self, batch: Batch, part: Portion) -> TensorBatch:
        """Copy a batch to the device, with the mask that this way of attention takes."""
        assert part.num_rows == part.size == len(batch.tokens), "all rows of this process count"
        made = to_tensors(batch, self.attention, self.device)
        return dataclasses.replace(made, first_row=part.first)

    def forward_backward(
        self, batches: Sequence[TensorBatch], total_weight: float, *, step: int
    ) -> StepNumbers | UnreadNumbers:
        """Compute the gradient of a step, and wait for its numbers once, if they are read."""
        train = self._cfg.train
        seed_dropout(train.seed, step)
        share = self._cfg.model.embedding_gradient_shrink
        if self.compiled:
            for batch in batches:
                mark_varying(batch.mask, batch.targets.index)
        losses, of_targets = forward_backward(
            self.model, batches, self.dtype, total_weight, z_loss=train.z_loss,
            shrink=shrink_at(step, share, self._cfg.schedule),
            scale=self.scaler.scale if self.scaler else None,
            draws=draws_by_row(self._cfg, step) if self._dropout_by_row else None,
        )  # fmt: skip
        self._norm = torch.nn.utils.get_total_norm(
            [p.grad for p in self.model.parameters() if p.grad is not None]
        )
        numbers = UnreadNumbers(norm=self._norm, losses=losses, nlls=of_targets)
        if not self.reads_each_step:
            self._spoiled = numbers.is_spoiled()
            return numbers
        found = numbers.read()
        overflowed = lost_to_scale(self.scaler, found.loss_nats, found.grad_norm)
        return dataclasses.replace(found, overflowed=overflowed)

    def clip(self, max_norm: float) -> None:
        """Scale the gradient down to a global norm of at most this; 0 leaves it as it is."""
        assert self._norm is not None, "there is no gradient to clip"
        torch.nn.utils.clip_grads_with_norm_(
            self.model.parameters(), max_norm or math.inf, self._norm
        )

    def step(self, lr: float) -> None:
        """Move the weights, and their average where one is kept; drop the gradient."""
        self.optimizer.set_lr(lr)
        spoiled = self._spoiled
        self.optimizer.step(spoiled)
        self.drop_gradient()
        if self.ema:
            decay = self._cfg.optimizer.ema_decay
            move_average(self.ema, self.model.state_dict(), decay, unless=spoiled)

    def drop_gradient(self) -> None:
        """Forget the gradient of a step that is not applied."""
        self.optimizer.zero_grad()
        self._norm = self._spoiled = None

    # -- what is asked between steps --------------------------------------------------------------

    def bad_weights(self) -> list[str]:
        """Name the weights that are not finite, with how many of their values."""
        return bad_weights(self.model)

    def gradient_norms(self) -> dict[str, float]:
        """Give the gradient norm of each layer."""
        return gradient_norms(self.model)

    def evaluation(self) -> AbstractContextManager[GLM]:
        """Lend the model in evaluation mode, uncompiled; training mode comes back."""
        return lend(self.model, compiled=self.compiled)

    def metrics(self) -> dict[str, float]:
        """Give the loss scale of float16."""
        return {} if self.scaler is None else {"loss_scale": self.scaler.scale}

    # -- state ------------------------------------------------------------------------------------

    def tensors(self) -> dict[Part, dict[str, torch.Tensor]]:
        """Give the tensors of a checkpoint by part and name; a later step changes them."""
        return {
            "model": self.model.state_dict(), "optimizer": self.optimizer.tensors(),
            "ema": self.ema,
        }  # fmt: skip

    def write(self, new: NewCheckpoint, parts: dict[Part, dict[str, torch.Tensor]]) -> None:
        """Write what `tensors` gave, or a copy of it, as a checkpoint; may run on a thread.

        Raises:
            CheckpointError: the disk does not take it; older checkpoints are untouched.
        """
        save_alone(new, parts)

    def loss_scale(self) -> tuple[float, ...] | None:
        """Give the state of the loss scale of float16, for a checkpoint."""
        return None if self.scaler is None else self.scaler.state()

    def load(self, checkpoint: Checkpoint) -> None:
        """Take up what `tensors` and `loss_scale` gave.

        Raises:
            CheckpointError: the checkpoint does not fit the model.
        """
        folder = checkpoint.path
        moments = load_part(folder, "optimizer")
        try:
            load_weights(self.model, folder)
            self.optimizer.load(moments)
        except CheckpointError as error:
            raise misfit(folder, error) from error
        if self.ema and checkpoint.holds("ema"):
            average = load_part(folder, "ema")
            self.ema = {name: value.to(self.device) for name, value in average.items()}
        elif self.ema:
            self.ema = _copies(self.model)
        training = checkpoint.state.training
        if self.scaler is not None and training is not None and training.loss_scale is not None:
            self.scaler.load(training.loss_scale)

    def load_weights(self, folder: Path) -> None:
        """Start from the weights in a checkpoint's folder, with everything else fresh.

        Raises:
            CheckpointError: a file cannot be read or does not fit the model.
        """
        load_weights(self.model, folder)
        self.ema = _copies(self.model) if self.ema else {}


def must_read_each_step(cfg: RunConfig, device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether each step's loss and gradient norm have to be known before its update.

    They cost nothing on a CPU. Elsewhere the host would wait for the device at every step, and does
    so only where something depends on it: the loss scale of float16, or a guard that skips a spike,
    goes back or stops before it. Under `guard.on_spike=log` they are read when they are logged.
    """
    return device.type == "cpu" or dtype == torch.float16 or cfg.guard.on_spike != "log"


def _copies(model: GLM) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
