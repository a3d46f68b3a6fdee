"""The training loop: one optimizer step reads top to bottom, and all else hangs around it.

All of a run's state is the step index, the weights and the optimizer's moments. Data is arithmetic
on the index, so a run that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import logging
import math
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from blankfill import progress
from blankfill.checkpoint import Checkpoint, load_tensors, save_checkpoint
from blankfill.config.run import RunConfig
from blankfill.errors import CheckpointError, DataError
from blankfill.metrics import LossMeter, MetricsWriter, RateMeter
from blankfill.model.glm import GLM
from blankfill.model.loss import blank_loss
from blankfill.optim import build_optimizer, lr_at, shrink_at
from blankfill.train.loader import Loader
from blankfill.train.transfer import choose_precision, precision_context, to_tensors

if TYPE_CHECKING:
    from blankfill.data.rows import RowSource

__all__ = ["StepInfo", "Trainer"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class StepInfo:
    """What one optimizer step did."""

    loss_nats: float
    """Weighted mean loss of the step's targets."""
    grad_norm: float
    """Global gradient norm before clipping."""
    lr: float
    """Learning rate used."""
    num_targets: int
    """Positions that predicted something."""


class Trainer:
    """Trains one model on one stream of rows into one run folder.

    Args:
        cfg: the run.
        model: the model, with its weights.
        rows: the packed stream.
        run: the run's folder, which exists.
        validate: called with the model; returns metrics such as `validation_loss_nats_en`.
    """

    def __init__(
        self,
        cfg: RunConfig,
        model: GLM,
        rows: RowSource,
        run: Path,
        *,
        validate: Callable[[GLM], dict[str, float]] | None = None,
    ) -> None:
        self.cfg, self.model, self.rows, self.run = cfg, model, rows, run
        self.dtype = choose_precision(cfg.train.precision)
        self.optimizer = build_optimizer(model, cfg.train)
        self.index = 0
        self._validate = validate
        self._losses = LossMeter()
        self._stop = threading.Event()
        if cfg.train.compile:
            for block in model.blocks.values():
                block.compile(dynamic=False)

    # -- one step ---------------------------------------------------------------------------------

    def step(self, loader: Loader) -> StepInfo:
        """Do the optimizer step of the current index and move to the next."""
        train = self.cfg.train
        # Dropout is drawn from the step's own seed, so a resumed run drops the same units.
        torch.manual_seed(train.seed * 1_000_003 + self.index)
        share = self.model.cfg.embedding_gradient_shrink
        self.model.embed.shrink = shrink_at(self.index, share, train)
        batches = loader.batches(self.index)
        total_weight = sum(float(batch.weights.sum()) for batch in batches)
        if not total_weight:
            raise DataError(f"step {self.index} has no targets; is the training text empty?")
        loss_nats = 0.0
        for batch in batches:
            tensors = to_tensors(batch)
            with precision_context(self.dtype):
                hidden = self.model(tensors.tokens, tensors.positions, tensors.mask)
                loss, nll = blank_loss(self.model, hidden, tensors.targets, tensors.weights)
            loss = loss / total_weight
            loss.backward()
            loss_nats += loss.item()
            self._losses.add(batch, nll.numpy())
        grad_norm = self._clip()
        if not (math.isfinite(loss_nats) and math.isfinite(grad_norm)):
            raise CheckpointError(
                f"step {self.index}: loss {loss_nats} and gradient norm {grad_norm} are not "
                "finite; start again with --resume and a lower --train.peak-lr"
            )
        lr = lr_at(self.index, train)
        self.optimizer.set_lr(lr)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.index += 1
        return StepInfo(
            loss_nats=loss_nats, grad_norm=grad_norm, lr=lr,
            num_targets=sum(batch.num_targets for batch in batches),
        )  # fmt: skip

    def _clip(self) -> float:
        limit = self.cfg.train.max_grad_norm or math.inf
        return float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit))

    # -- the loop ---------------------------------------------------------------------------------

    def fit(self) -> bool:
        """Train from the current index to the last step.

        Saves, logs and validates when due. SIGINT and SIGTERM end the run after the step at hand,
        with a checkpoint.

        Returns:
            True when the last step was reached, False when a signal ended the run before.
        """
        train = self.cfg.train
        positions = train.batch_rows * train.row_length
        self.model.train()
        rates = RateMeter()
        with (
            MetricsWriter(self.run, start_step=self.index) as writer,
            Loader(
                self.rows, batch_rows=train.batch_rows, micro_batch_rows=train.micro_batch_rows
            ) as loader,
            self._signals(),
            progress.bar("pretrain", (train.steps - self.index) * positions, "positions") as meter,
        ):
            if self.index == 0:
                self._run_validation(writer)
            while self.index < train.steps and not self._stop.is_set():
                info = self.step(loader)
                rates.add(positions, info.num_targets)
                meter.advance(positions, f"step {self.index}  loss {info.loss_nats:.3f}")
                last = self.index == train.steps or self._stop.is_set()
                if self.index % train.log_every == 0 or last:
                    writer.write(self.index, self._metrics(info, rates))
                if train.validate_every and (self.index % train.validate_every == 0 or last):
                    self._run_validation(writer)
                if self.index % train.checkpoint_every == 0 or last:
                    self.save()
        return self.index >= train.steps

    def _metrics(self, info: StepInfo, rates: RateMeter) -> dict[str, float]:
        values = {
            **self._losses.means(),
            **self._losses.counts(),
            "grad_norm": info.grad_norm,
            "learning_rate": info.lr,
            "epoch": self.rows.epoch_at(self.index * self.cfg.train.batch_rows),
            **rates.read(),
        }
        self._losses = LossMeter()
        return values

    def _run_validation(self, writer: MetricsWriter) -> None:
        if self._validate is None:
            return
        self.model.eval()
        writer.write(self.index, self._validate(self.model))
        self.model.train()

    @contextmanager
    def _signals(self) -> Generator[None]:
        """Turn SIGINT and SIGTERM into a stop after the step at hand; a second one is at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, _frame: Any) -> None:
            if self._stop.is_set():
                raise KeyboardInterrupt
            log.warning(
                "%s: finishing this step, then saving; once more ends at once",
                signal.Signals(number).name,
            )
            self._stop.set()

        before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # -- state ------------------------------------------------------------------------------------

    def save(self) -> Path:
        """Write a checkpoint of the current step."""
        return save_checkpoint(
            self.run, self.index, self.model.state_dict(), self.optimizer.tensors(), {},
            keep=self.cfg.train.keep_checkpoints,
        )  # fmt: skip

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take up weights, moments and index from a checkpoint.

        Raises:
            CheckpointError: the checkpoint does not fit the model.
        """
        weights = load_tensors(checkpoint.path / "model.safetensors")
        moments = load_tensors(checkpoint.path / "optimizer.safetensors")
        try:
            self.model.load_state_dict(weights)
            self.optimizer.load(moments)
        except (CheckpointError, RuntimeError) as error:
            raise CheckpointError(
                f"{checkpoint.path} does not fit this model ({error}); resume with the "
                "configuration that the run was started with"
            ) from error
        self.index = checkpoint.step
