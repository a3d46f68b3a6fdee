"""The training loop: one optimizer step reads top to bottom, and all else hangs around it.

All of a run's state is the step index, the row of the stream it stands at, the weights, the
optimizer's moments, and a few sums (losses since the last line of metrics, the guard's window, the
loss scale). Data is arithmetic on the row, so a run that was stopped, killed or moved goes on as if
it had not been, bit for bit.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from blankfill import progress
from blankfill.checkpoint import (
    Checkpoint,
    RunLock,
    list_checkpoints,
    load_tensors,
    newest_checkpoint,
)
from blankfill.checkpoint.weights import load_weights
from blankfill.config.run import RunConfig
from blankfill.config.train import AttentionKind
from blankfill.engine.device import choose_precision, lowest_precision
from blankfill.engine.gradient import forward_backward, move_average
from blankfill.engine.transfer import read_together
from blankfill.errors import CheckpointError, TrainingError
from blankfill.guard.guards import bad_weights
from blankfill.guard.incident import Incident
from blankfill.guard.policy import Watch
from blankfill.metrics import (
    LossMeter,
    MetricsWriter,
    Peak,
    RateMeter,
    count_flops,
)
from blankfill.model.glm import GLM, device_of
from blankfill.model.masks import choose_attention
from blankfill.optim import LossScaler, build_optimizer, lr_at, shrink_at
from blankfill.train.keeper import Keeper, restored_parts
from blankfill.train.loader import Loader
from blankfill.train.signals import stop_on_signals
from blankfill.train.step import StepInfo
from blankfill.train.validate import Validation

if TYPE_CHECKING:
    from blankfill.data.mixture import RowStream
    from blankfill.text.tokenizer import TextTokenizer

__all__ = ["Trainer"]

log = logging.getLogger(__name__)


class Trainer:
    """Trains one model on one stream of rows into one run folder.

    Args:
        cfg: the run.
        model: the model, with its weights, on the device where it computes.
        rows: the packed stream.
        run: the run's folder, which exists.
        validate: called with the model; gives metrics such as `validation_loss_nats_en`, and fills.
        tokenizer: turns the batch of an incident into text.
        lock: on the run's folder; released when `fit` ends.
        peak: what the rate of arithmetic is measured against.
        attention: how attention is computed; what `train.attention` comes to unmeasured where not
            given.
        compiled: whether the blocks are compiled.
    """

    def __init__(
        self,
        cfg: RunConfig,
        model: GLM,
        rows: RowStream,
        run: Path,
        *,
        validate: Callable[[GLM], Validation] | None = None,
        tokenizer: TextTokenizer | None = None,
        lock: RunLock | None = None,
        peak: Peak | None = None,
        attention: AttentionKind | None = None,
        compiled: bool = False,
    ) -> None:
        self.cfg, self.model, self.rows, self.run = cfg, model, rows, run
        train = cfg.train
        self.device = device_of(model)
        self.dtype = choose_precision(train.precision, self.device)
        self.attention: AttentionKind = attention or choose_attention(
            train.attention, self.device.type, self.dtype, dropout=cfg.model.attention_dropout_rate
        )
        self.optimizer = build_optimizer(model, train, muon_dtype=lowest_precision(self.device))
        self.scaler = LossScaler(train.loss_scale_window) if self.dtype == torch.float16 else None
        self.ema = _copies(model) if train.ema_decay else {}
        self.index = self.row = 0
        self._validate, self._lock = validate, lock
        self._losses = LossMeter()
        self._rates, self._peak = RateMeter(), peak.flops_per_second if peak else 0.0
        self._watch = Watch(train, run, tokenizer)
        self._keeper = Keeper(train, run)
        self._validation: tuple[int, dict[str, float]] = (-1, {})
        self._stop = threading.Event()
        if compiled:
            model.compile_blocks(one_graph=self.attention != "flex")

    def open_loader(self) -> Loader:
        """Begin to make batches, for a `with` statement that ends it."""
        return Loader(
            self.rows, micro_batch_rows=self.cfg.train.micro_batch_rows, attention=self.attention,
            device=self.device,
        )  # fmt: skip

    # -- one step ---------------------------------------------------------------------------------

    def step(self, loader: Loader) -> StepInfo:
        """Do the optimizer step of the current index and move to the next.

        A guard may leave the step's rows out, or take the run back to its last checkpoint.

        Raises:
            DataError: the rows hold nothing to learn from.
            TrainingError: a guard ended the run.
        """
        train = self.cfg.train
        num_rows, lr = train.rows_at(self.row), lr_at(self.index, train)
        if self._watch.leaves_out(self.index):
            log.info("step %d: its rows are left out", self.index)
            return self._leave_out(num_rows, lr)
        # Dropout is drawn from the step's own seed, so a resumed run drops the same units.
        torch.manual_seed((train.seed * 1_000_003 + self.index) % 2**64)  # torch takes 64 bits
        share = self.model.cfg.embedding_gradient_shrink
        self.model.embed.shrink = shrink_at(self.index, share, train)
        there = loader.batches(self.row, num_rows)
        batches = [batch.source for batch in there]
        losses, of_targets = forward_backward(
            self.model, there, self.dtype, z_loss=train.z_loss,
            scale=self.scaler.scale if self.scaler else None,
        )  # fmt: skip
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        of_norm, *read = read_together([norm, *losses, *of_targets])
        grad_norm, nlls = float(of_norm), read[len(losses) :]
        loss_nats = sum(float(loss) for loss in read[: len(losses)])
        if self.scaler is not None and self._overflowed(loss_nats, grad_norm):
            return self._leave_out(num_rows, lr)
        action, incident = self._watch.check(
            self.model, batches, nlls, step=self.index, row=self.row, loss_nats=loss_nats,
            grad_norm=grad_norm,
        )  # fmt: skip
        if incident is not None and action == "stop":
            self._end(incident)
        if action == "rollback":
            return self._roll_back(lr)
        if action == "skip":
            return self._leave_out(num_rows, lr)
        torch.nn.utils.clip_grads_with_norm_(
            self.model.parameters(), train.max_grad_norm or math.inf, norm
        )
        self.optimizer.set_lr(lr)
        self.optimizer.step()
        self.optimizer.zero_grad()
        move_average(self.ema, self.model, train.ema_decay)
        self._watch.accept(loss_nats, grad_norm)
        for batch, nll in zip(batches, nlls, strict=True):
            self._losses.add(batch, nll)
        self.index, self.row = self.index + 1, self.row + num_rows
        return StepInfo(
            loss_nats=loss_nats, grad_norm=grad_norm, lr=lr, num_rows=num_rows,
            num_targets=sum(batch.num_targets for batch in batches),
            flops=count_flops(self.cfg.model, batches),
        )  # fmt: skip

    def _overflowed(self, loss_nats: float, grad_norm: float) -> bool:
        """Settle the loss scale of float16; tell whether the step is lost to an overflow alone."""
        assert self.scaler is not None
        overflow, spent = not math.isfinite(grad_norm), self.scaler.exhausted
        self.scaler.update(overflow=overflow)
        return overflow and math.isfinite(loss_nats) and not spent

    # -- trouble ----------------------------------------------------------------------------------

    def _leave_out(self, num_rows: int, lr: float) -> StepInfo:
        """Move on without an update."""
        self.optimizer.zero_grad()
        self.index, self.row = self.index + 1, self.row + num_rows
        return StepInfo(
            loss_nats=math.nan, grad_norm=math.nan, lr=lr, num_rows=num_rows, num_targets=0
        )

    def _roll_back(self, lr: float) -> StepInfo:
        """Return to the last checkpoint."""
        self.optimizer.zero_grad()
        self._keeper.hear(wait=True)
        self.restore(newest_checkpoint(self.run, restored_parts(self.cfg.train)))
        return StepInfo(loss_nats=math.nan, grad_norm=math.nan, lr=lr, num_rows=0, num_targets=0)

    def _end(self, incident: Incident) -> NoReturn:
        """Save what can be saved and end the run."""
        self.optimizer.zero_grad()
        if not incident.bad_weights and self._keeper.saved_at != self.index:
            self.save()
        self._keeper.finish()
        raise TrainingError(
            f"step {self.index}: {incident.found}; its batch is in {self.run / 'incidents'}; go on "
            f"with --resume and --train.skip-steps {self.index}, a lower --train.peak-lr or "
            "--train.on-spike skip, each named to --allow-change"
        )

    # -- the loop ---------------------------------------------------------------------------------

    def fit(self) -> bool:
        """Train from the current index to the last step.

        Saves, logs and validates when due. SIGINT and SIGTERM end the run after the step at hand,
        with a checkpoint.

        Returns:
            True when the last step was reached, False when a signal ended the run before.
        """
        train = self.cfg.train
        self.model.train()
        self._rates = rates = RateMeter(self._peak)
        total = (train.steps - self.index) * train.batch_rows * train.row_length
        try:
            with (
                MetricsWriter(self.run, start_step=self.index, wandb=train.wandb) as writer,
                self.open_loader() as loader,
                stop_on_signals(self._stop),
                progress.bar("pretrain", total, "positions") as meter,
            ):
                if self.index == 0:
                    self._run_validation(writer)
                    if train.on_spike in ("rollback", "skip") and not list_checkpoints(self.run):
                        self._save_if_possible(writer)  # so that there is something to return to
                        self._keeper.hear(wait=True)
                while self.index < train.steps and not self._stop.is_set():
                    self._keeper.hear()
                    before = self.index
                    info = self.step(loader)
                    if self.index <= before:
                        writer.rewind(self.index)
                        continue
                    positions = info.num_rows * train.row_length
                    rates.add(positions, info.num_targets, info.flops)
                    note = f"step {self.index}  loss {info.loss_nats:.3f}  {rates.note()}"
                    meter.advance(positions, note)
                    self._after_step(writer, info, rates)
                if self._keeper.saved_at != self.index:
                    writer.sync()
                    self.save()
                self._keeper.finish()
        except Exception:
            # A checkpoint that is being written is worth waiting for; its own error comes second.
            with suppress(Exception):
                self._keeper.finish()
            raise
        finally:
            if self._lock is not None:
                self._lock.release()
        return self.index >= train.steps

    def _after_step(self, writer: MetricsWriter, info: StepInfo, rates: RateMeter) -> None:
        """Do what is due: log, validate, save."""
        train = self.cfg.train
        last = self.index == train.steps
        if self.index % train.log_every == 0 or last:
            writer.write(self.index, self._metrics(info, rates))
        if last or (train.validate_every and self.index % train.validate_every == 0):
            try:
                self._run_validation(writer)
            except TrainingError:  # of a guard, which may end a run but not lose its last steps
                if last:
                    self._save_if_possible(writer)
                raise
        if self.index % train.checkpoint_every == 0 or last:
            self._save_if_possible(writer)
            rates.pause("save")

    def _metrics(self, info: StepInfo, rates: RateMeter) -> dict[str, float]:
        values = {
            **self._losses.means(),
            **self._losses.counts(),
            "grad_norm": info.grad_norm,
            "learning_rate": info.lr,
            **self.rows.epochs(self.row),
            **({} if self.scaler is None else {"loss_scale": self.scaler.scale}),
            **rates.read(),
        }
        self._losses = LossMeter()
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def validate(self) -> Validation | None:
        """Score the held-out data with the weights as they are; None where there is none."""
        if self._validate is None:
            return None
        self.model.eval()
        found = self._validate(self.model)
        self.model.train()
        return found

    def _run_validation(self, writer: MetricsWriter) -> None:
        found = self.validate()
        if found is None:
            return
        writer.write(self.index, found.values)
        writer.write_samples(self.index, found.samples)
        self._validation = self.index, found.values
        seconds = self._rates.pause("validation")
        log.info("step %d: %s; %.1f s, %.1f %% of the time so far", self.index, found.summary(),
                 seconds, 100 * self._rates.share("validation"))  # fmt: skip

    # -- state ------------------------------------------------------------------------------------

    def save(self) -> None:
        """Save the current step: copy the state, and write it beside the next steps.

        Raises:
            TrainingError: a weight is not finite; nothing is written.
            CheckpointError: the save before this one failed, or this one where not in background.
        """
        if bad := bad_weights(self.model):
            raise TrainingError(
                f"step {self.index}: weights are not finite ({'; '.join(bad)}) and were not saved; "
                "the checkpoint before stays: go on from it with --resume"
            )
        self._keeper.save(
            self.index,
            {"model": self.model.state_dict(), "optimizer": self.optimizer.tensors(),
             "ema": self.ema},
            self._state(),
        )  # fmt: skip

    def load_weights(self, path: Path) -> None:
        """Start from the weights in a checkpoint's folder, with everything else fresh.

        Raises:
            CheckpointError: a file cannot be read or does not fit the model.
        """
        load_weights(self.model, path)
        self.ema = _copies(self.model) if self.ema else {}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take up the state of a checkpoint.

        Raises:
            CheckpointError: the checkpoint does not fit the model.
        """
        state = checkpoint.state
        weights = load_tensors(checkpoint.path / "model.safetensors")
        moments = load_tensors(checkpoint.path / "optimizer.safetensors")
        try:
            self.model.load_state_dict(weights)
            if moments:
                self.optimizer.load(moments)
        except (CheckpointError, RuntimeError) as error:
            raise CheckpointError(
                f"{checkpoint.path} does not fit this model ({error}); resume with the "
                "configuration that the run was started with"
            ) from error
        if self.ema:
            averaged = "ema.safetensors" in state["files"]
            self.ema = (
                {
                    name: value.to(self.device)
                    for name, value in load_tensors(checkpoint.path / "ema.safetensors").items()
                }
                if averaged
                else _copies(self.model)
            )
        self.index = self._keeper.saved_at = checkpoint.step
        self.row = state.get("row", self.index * self.cfg.train.batch_rows)
        if "anchor" in state:
            self.rows.start_at(*state["anchor"])
        self._losses = LossMeter()
        if "losses" in state:
            self._losses.load(state["losses"])
        self._watch.load(state.get("watch", {}))
        if self.scaler is not None and "loss_scale" in state:
            self.scaler.load(state["loss_scale"])

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "row": self.row,
            "anchor": list(self.rows.anchor(self.row)),
            "losses": self._losses.state(),
            "watch": self._watch.state(),
        }
        if self.scaler is not None:
            state["loss_scale"] = self.scaler.state()
        step, values = self._validation
        if step == self.index and "validation_loss_nats" in values:
            state["validation_loss_nats"] = values["validation_loss_nats"]
        return state

    def _save_if_possible(self, writer: MetricsWriter) -> None:
        """Save; what cannot be written ends the run or not, as the configuration says."""
        writer.sync()
        self._keeper.hear(wait=True)
        try:
            self.save()
        except CheckpointError as error:
            self._keeper.bear(error)


def _copies(model: GLM) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
