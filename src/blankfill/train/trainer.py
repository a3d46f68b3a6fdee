"""The training loop: one optimizer step reads top to bottom, and all else hangs around it.

The engine (`engine.engine`) holds the model and computes; the loop holds the step's index, the row
of the stream it stands at, and a few sums (losses since the last line of metrics, the guard's
window). Data is arithmetic on the row, so a run that was stopped, killed or moved goes on as if it
had not been, bit for bit.
"""

from __future__ import annotations

import functools
import logging
import math
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from blankfill import progress
from blankfill.config.run import RunConfig
from blankfill.data.mixture import RowStream
from blankfill.disk.names import resume_option
from blankfill.engine.engine import Engine, StepNumbers, UnreadNumbers
from blankfill.errors import CheckpointError, TrainingError
from blankfill.guard.incident import Incident
from blankfill.guard.policy import Watch
from blankfill.metrics import (
    Flops,
    LossMeter,
    MetricsSink,
    MetricsWriter,
    NoMetrics,
    Peak,
    RateMeter,
    count_flops,
)
from blankfill.model.glm import GLM
from blankfill.objective.batch import Batch
from blankfill.optim import lr_at
from blankfill.runs import (
    BestValidation,
    Checkpoint,
    CheckpointSaver,
    RunLock,
    TrainingState,
    best_validation,
    list_checkpoints,
    newest_checkpoint,
    restored_parts,
)
from blankfill.runs.record import LossSums
from blankfill.text.tokenizer import TextTokenizer
from blankfill.train.loader import Loader
from blankfill.train.signals import stop_on_signals, work_at_hand
from blankfill.train.step import StepInfo
from blankfill.train.unread import UnreadSteps
from blankfill.train.validate import Validation

__all__ = ["Trainer"]

log = logging.getLogger(__name__)


class Trainer:
    """Trains one model on one stream of rows into one run folder.

    Args:
        cfg: the run.
        engine: the model, and what computes on it.
        rows: the packed stream.
        run: the run's folder, which exists.
        validate: called with the model; gives metrics such as `validation_loss_nats_en`, and fills.
        tokenizer: turns the batch of an incident into text.
        lock: on the run's folder; released when `fit` ends.
        peak: what the rate of arithmetic is measured against.
        watch: called after each step with the steps done and the seconds of a position; true where
            it took time of its own.
    """

    def __init__(
        self,
        cfg: RunConfig,
        engine: Engine,
        rows: RowStream,
        run: Path,
        *,
        validate: Callable[[GLM], Validation] | None = None,
        tokenizer: TextTokenizer | None = None,
        lock: RunLock | None = None,
        peak: Peak | None = None,
        watch: Callable[[int, float], bool] | None = None,
    ) -> None:
        self.cfg, self.engine, self.rows, self.run = cfg, engine, rows, run
        self.index = self.row = 0
        self._validate, self._lock, self._watch_pace = validate, lock, watch
        self._losses = LossMeter()
        self._rates, self._peak = RateMeter(), peak.flops_per_second if peak else 0.0
        self._watch = Watch(cfg, run, tokenizer)
        self._unread = UnreadSteps(cfg, engine, self._watch, self._accept)
        self._saver = CheckpointSaver(cfg.checkpoint, run, engine.write)
        self._validation: tuple[int, dict[str, float]] = (-1, {})
        self.best: BestValidation | None = None
        """The lowest loss on held-out data so far; none of before the first step."""
        self._stop, self._is_validating = threading.Event(), False

    def open_loader(self) -> Loader:
        """Begin to make batches, for a `with` statement that ends it."""
        return Loader(self.rows, self.engine)

    # -- one step ---------------------------------------------------------------------------------

    def step(self, loader: Loader) -> StepInfo:
        """Do the optimizer step of the current index and move to the next.

        A guard may leave the step's rows out, or take the run back to its last checkpoint.

        Raises:
            DataError: the rows hold nothing to learn from.
            TrainingError: a guard ended the run.
        """
        train, engine = self.cfg.train, self.engine
        num_rows = train.rows_at(self.row)
        lr = lr_at(self.index, self.cfg.schedule, train.steps)
        if self._watch.leaves_out(self.index):
            log.info("step %d: its rows are left out", self.index)
            return self._leave_out(num_rows, lr)
        micro_batches = loader.batches(self.row, num_rows)
        batches = [made.source for made in micro_batches]
        flops = count_flops(self.cfg.model, batches)
        total_weight, num_targets, *done = engine.sum_over_data([
            sum(float(b.weights.sum()) for b in batches), sum(b.num_targets for b in batches),
            flops.model, flops.dense,
        ])  # fmt: skip
        found = engine.forward_backward(micro_batches, total_weight, step=self.index)
        made = functools.partial(StepInfo, lr=lr, num_rows=num_rows, num_targets=int(num_targets),
                                 flops=Flops(model=int(done[0]), dense=int(done[1])))  # fmt: skip
        if isinstance(found, UnreadNumbers):
            self._unread.add(self.index, self.row, batches, found)
            self._update(lr, num_rows)
            found = self._settle() if self._unread.are_due(self.index) else None
            return made(loss_nats=found.loss_nats, grad_norm=found.grad_norm) if found else made()
        if found.overflowed:
            return self._leave_out(num_rows, lr)
        action, incident = self._watch.check(engine, found, batches, step=self.index, row=self.row)
        if incident is not None and action == "stop":
            self._end(incident)
        if action == "rollback":
            return self._roll_back(lr)
        if action == "skip":
            return self._leave_out(num_rows, lr)
        self._update(lr, num_rows)
        self._accept(found, batches)
        return made(loss_nats=found.loss_nats, grad_norm=found.grad_norm)

    def _update(self, lr: float, num_rows: int) -> None:
        """Move the weights, and move to the next step."""
        self.engine.clip(self.cfg.optimizer.max_grad_norm)
        self.engine.step(lr)
        self.index, self.row = self.index + 1, self.row + num_rows

    def _accept(self, found: StepNumbers, batches: Sequence[Batch]) -> None:
        """Count a step whose update was applied."""
        self._watch.accept(found)
        for batch, nll in zip(batches, found.nlls, strict=True):
            self._losses.add(batch, nll)

    def _settle(self) -> StepNumbers | None:
        """Read and judge the steps that nobody has waited for, and give the last one's numbers.

        Raises:
            TrainingError: the guard ends the run.
        """
        found, ending = self._unread.settle()
        if ending is not None:
            self._end(ending)
        return found

    # -- trouble ----------------------------------------------------------------------------------

    def _leave_out(self, num_rows: int, lr: float) -> StepInfo:
        """Move on without an update."""
        self.engine.drop_gradient()
        self.index, self.row = self.index + 1, self.row + num_rows
        return StepInfo(lr=lr, num_rows=num_rows)

    def _roll_back(self, lr: float) -> StepInfo:
        """Return to the last checkpoint."""
        self.engine.drop_gradient()
        self._saver.check_background_save()
        parts = restored_parts(self.cfg.optimizer)
        self.restore(newest_checkpoint(self.run, parts, self.engine.processes))
        return StepInfo(lr=lr, num_rows=0)

    def _end(self, incident: Incident) -> NoReturn:
        """Save what can be saved and end the run."""
        self.engine.drop_gradient()
        if not incident.bad_weights and not self._is_saved():
            self.save()
        self._saver.finish()
        raise TrainingError(incident.why_it_ends(self.run, seen_at=self.index))

    # -- the loop ---------------------------------------------------------------------------------

    def fit(self) -> bool:
        """Train from the current index to the last step.

        Saves, logs and validates when due. SIGINT and SIGTERM end the run after the step at hand,
        with a checkpoint.

        Returns:
            True when the last step was reached, False when a signal ended the run before.
        """
        train = self.cfg.train
        self._rates = rates = RateMeter(self._peak)
        total = (train.steps - self.index) * train.batch_rows * train.row_length
        loss = "loss -"  # of the last step whose numbers are known
        try:
            with (
                self._open_metrics() as writer,
                self.open_loader() as loader,
                stop_on_signals(self._stop, self._at_hand),
                progress.bar("pretrain", total, "positions") as meter,
            ):
                is_new = not self.engine.once(lambda: bool(list_checkpoints(self.run)))
                if self.index == 0:
                    self._run_validation(writer)
                    if is_new and self.cfg.guard.on_spike in ("rollback", "skip"):
                        self._save_if_possible(writer)  # so that there is something to return to
                        self._saver.check_background_save()
                    meter.restart()  # what came before says nothing of the pace of steps
                while self.index < train.steps and not self._is_told_to_stop():
                    before = self.index
                    info = self.step(loader)
                    if self.index <= before:
                        writer.rewind(self.index)
                        continue
                    positions = info.num_rows * train.row_length
                    seconds = rates.add(positions, info.num_targets, info.flops)
                    loss = loss if math.isnan(info.loss_nats) else f"loss {info.loss_nats:.3f}"
                    meter.advance(positions, loss, f"step {self.index:,}", *rates.notes())
                    self._after_step(writer, info, rates)
                    watch = self._watch_pace
                    if watch and info.num_targets and watch(self.index, seconds / positions):
                        rates.pause("threads")
                if not self._is_saved():
                    writer.sync()
                    self.save()
                self._saver.finish()
        except Exception:
            # A checkpoint that is being written is worth waiting for; its own error comes second.
            with suppress(Exception):
                self._saver.finish()
            raise
        finally:
            if self._lock is not None:
                self._lock.release()
        return self.index >= train.steps

    def _open_metrics(self) -> MetricsSink:
        """Open where the numbers go: to the files, from the process that leads alone."""
        if not self.engine.leads:
            return NoMetrics()
        wandb = self.cfg.train.wandb
        return MetricsWriter(self.run, start_step=self.index, wandb=wandb, config=self.cfg)

    def _is_told_to_stop(self) -> bool:
        """Tell whether a signal has reached any process of the run; raise what a save has met."""
        stops, fails = self.engine.any_of([self._stop.is_set(), self._saver.has_failed])
        if fails:
            self._saver.check_background_save()
        return stops

    def _after_step(self, writer: MetricsSink, info: StepInfo, rates: RateMeter) -> None:
        """Do what is due: log, validate, save."""
        train, validate_every = self.cfg.train, self.cfg.validate_every
        last, is_best = self.index == train.steps, False
        if self.index % train.log_every == 0 or last:
            writer.write(self.index, self._metrics(info, rates))
        if last or (validate_every and self.index % validate_every == 0):
            try:
                is_best = self._run_validation(writer)
            except TrainingError:  # of a guard, which may end a run but not lose its last steps
                if last:
                    self._save_if_possible(writer)
                raise
        checkpoint = self.cfg.checkpoint
        if self.index % checkpoint.every == 0 or last or (is_best and checkpoint.keep_best):
            self._save_if_possible(writer)
            rates.pause("save")

    def _metrics(self, info: StepInfo, rates: RateMeter) -> dict[str, float]:
        losses, self._losses = self._all_losses(), LossMeter()
        values = {
            **losses.means(), **losses.counts(), "grad_norm": info.grad_norm,
            "learning_rate": info.lr, **self.rows.epochs(self.row), **self.engine.metrics(),
            **rates.read(),
        }  # fmt: skip
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def _all_losses(self) -> LossMeter:
        """Give the losses since the last line of metrics, those of all processes."""
        return LossMeter.of_all(self.engine.gather([self._losses.state()]))

    def _at_hand(self) -> str:
        """Say what is finished before a signal ends the run, and how long that takes."""
        return work_at_hand(self._rates.step_seconds(), validating=self._is_validating)

    def validate(self) -> Validation | None:
        """Score the held-out data with the weights as they are; None where there is none."""
        if self._validate is None:
            return None
        with self.engine.evaluation() as model:
            return self._validate(model)

    def _run_validation(self, writer: MetricsSink) -> bool:
        """Validate, where there is held-out data, and tell whether no loss before was as low."""
        self._is_validating = True
        try:
            found = self.validate()
        finally:
            self._is_validating = False
        if found is None:
            return False
        writer.write(self.index, found.values)
        writer.write_samples(self.index, found.samples)
        self._validation = self.index, found.values
        seconds = self._rates.pause("validation")
        log.info("%s", found.told(self.index, seconds, self._rates.share("validation")))
        loss = found.values.get("validation_loss_nats", math.nan)
        lowest = self.best.loss_nats if self.best else math.inf
        is_best = self.engine.once(lambda: self.index > 0 and loss < lowest)
        if is_best:
            self.best = BestValidation(step=self.index, loss_nats=loss)
        return is_best

    # -- state ------------------------------------------------------------------------------------

    def save(self) -> None:
        """Save the current step: copy the state, and write it beside the next steps.

        Raises:
            TrainingError: a weight is not finite; nothing is written.
            CheckpointError: the save before this one failed, or this one where not in background.
        """
        self._settle()
        if bad := self.engine.bad_weights():
            raise TrainingError(
                f"step {self.index}: weights are not finite ({'; '.join(bad)}) and were not saved; "
                "the checkpoint before stays: go on from it with `blankfill pretrain "
                f"{resume_option(self.run)}`"
            )
        self._saver.save(self.index, self.engine.tensors(), self._state())

    def _is_saved(self) -> bool:
        """Tell whether the current step was saved last, or is being saved."""
        return self.engine.once(lambda: self._saver.saved_at == self.index)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take up the state of a checkpoint.

        Raises:
            CheckpointError: the checkpoint does not fit the model.
        """
        self._unread.drop()
        self.engine.load(checkpoint)
        self.index = self._saver.saved_at = checkpoint.step
        self._losses = LossMeter()
        state = checkpoint.state.training
        if state is None:
            raise CheckpointError(
                f"{checkpoint.path} holds weights alone, so training cannot go on from it; begin a "
                f"run from them with --init {self.run} and another --out"
            )
        self.row = state.row
        self.rows.start_at(state.anchors)
        if self.engine.leads:  # the sums of all are one process's again
            self._losses.load({"sources": state.losses.sources, "groups": state.losses.groups})
        self._watch.load(state.guard)
        self.best = state.best or self.engine.once(lambda: best_validation(self.run, self.index))

    def _state(self) -> TrainingState:
        step, values = self._validation
        return TrainingState(
            row=self.row, anchors=self.rows.anchors(self.row),
            losses=LossSums(**self._all_losses().state()), guard=self._watch.state(),
            loss_scale=self.engine.loss_scale(),
            validation_loss_nats=values.get("validation_loss_nats") if step == self.index else None,
            best=self.best,
        )  # fmt: skip

    def _save_if_possible(self, writer: MetricsSink) -> None:
        """Save; what cannot be written ends the run or not, as the configuration says."""
        writer.sync()
        self._saver.check_background_save()
        try:
            self.save()
        except CheckpointError as error:
            self._saver.saving_failed(error)
