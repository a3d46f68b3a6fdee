"""From a configuration and folders to a trainer."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from blankfill import progress
from blankfill.config.run import RunConfig
from blankfill.data.mixture import RowMixture, RowStream
from blankfill.disk.publish import new_folder, refused_by_disk
from blankfill.engine.engine import Engine
from blankfill.engine.local import LocalEngine
from blankfill.errors import ConfigError
from blankfill.metrics import Peak, find_peak
from blankfill.metrics.wandb import require_wandb
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights
from blankfill.objective.batch import Batch
from blankfill.prepare.attention import settle_attention
from blankfill.prepare.checks import BuildCheck, build_checks
from blankfill.prepare.compiling import settle_compile
from blankfill.prepare.describe import say_what_was_chosen
from blankfill.prepare.plan import Plan, plan_run, require_new_run
from blankfill.prepare.precision import settle_precision
from blankfill.prepare.resume import HELD_OUT, Change
from blankfill.prepare.sources import build_stream
from blankfill.prepare.start import embedding_begins_from_text, first_embedding, require_whole
from blankfill.prepare.threads import settle_threads, watch_threads
from blankfill.prepare.together import build_parallel_engine, plan_together
from blankfill.processes import Alone, Processes
from blankfill.runs import (
    Checkpoint,
    RunLock,
    RunRecord,
    newest_checkpoint,
    restored_parts,
    set_aside,
    sweep,
    write_run,
)
from blankfill.runs.record import ChangeEntry, MixtureEntry
from blankfill.runtime import set_threads
from blankfill.text.tokenizer import copy_tokenizer
from blankfill.train.trainer import Trainer
from blankfill.train.validate import run_checks

if TYPE_CHECKING:
    from blankfill.parallel import Ranks

__all__ = ["build_trainer"]

log = logging.getLogger(__name__)


def build_trainer(
    cfg: RunConfig,
    *,
    data: Sequence[Path],
    run: Path,
    validation: Sequence[Path] = (),
    resume: bool = False,
    init: Path | None = None,
    allow_change: Sequence[str] = (),
    check_blanks: BuildCheck | None = None,
    shares: Sequence[float | None] = (),
    vocab_size: int | None = None,
    preset: str | None = None,
    ranks: Ranks | None = None,
) -> Trainer:
    """Prepare a run folder and a trainer that stands at its first or its next step.

    The folder is locked until the trainer's `fit` ends.

    Args:
        cfg: the run; `model.vocab_size` is set to the tokenizer's size, rounded up, or to
            `vocab_size`.
        data: token stores to train on.
        run: the run's folder; must not exist unless `resume`.
        validation: token stores to validate on.
        resume: go on from the newest checkpoint of `run`, where there is one.
        init: a run whose newest weights this one starts from, or one of its checkpoints.
        allow_change: fields that a resumed run may change, such as `schedule.peak_lr`.
        shares: share of each store in the rows; see `settle_shares`. Without any, all documents are
            read in one order.
        vocab_size: rows of the embedding, where the user has asked for a number.
        preset: the name of what `cfg` stands on, for run.json.
        check_blanks: makes a further check of the held-out stores, such as filling their blanks.
        ranks: the processes that train together, where there are several; each calls this.

    Raises:
        ConfigError: the folder exists, a resumed run's configuration differs, or the model or the
            tokenizer of `init` does.
        DataError: a store cannot be used.
        CheckpointError: nothing in the folder can be resumed, or another process trains in it.
        OutputError: nothing can be written there.
    """
    if cfg.train.wandb:
        require_wandb()
    processes = ranks or Alone()
    plan = plan_together(
        processes,
        lambda: plan_run(
            cfg, data=data, run=run, validation=validation, resume=resume, init=init,
            allow_change=allow_change, shares=shares, vocab_size=vocab_size,
            preset=preset,
        ),
    )  # fmt: skip
    lock = _take_folder(run, processes, is_new=plan.old is None)
    newest = None
    if plan.has_checkpoint:
        newest = _checkpoint_to_go_on_from(run, plan.cfg, processes)
    elif plan.start is not None:
        require_whole(plan.start, processes)
    rows = build_stream(plan.cfg, plan.stores, plan.mixtures, plan.tokenizer.ids)
    if ranks is None:
        engine = _build_engine(plan, newest, rows)
        watch = watch_threads(plan.cfg, engine, rows, run, torch.get_num_threads())
    else:
        engine, watch = build_parallel_engine(plan, newest, ranks), None
    threads = torch.get_num_threads()
    checks = build_checks(
        plan, engine.dtype, run=run, validation=validation, check_blanks=check_blanks
    )
    peak = processes.once(lambda: find_peak(engine.dtype, plan.device.type))
    peak = replace(peak, flops_per_second=peak.flops_per_second * processes.count)
    trainer = Trainer(
        plan.cfg, engine, rows, run, tokenizer=plan.tokenizer, lock=lock, peak=peak,
        validate=functools.partial(run_checks, checks=checks) if checks else None,
        watch=watch,
    )  # fmt: skip
    _go_to_its_step(trainer, plan, newest)
    record = replace(
        _measured(plan.record, engine, peak), threads=threads, mixtures=_mixtures_of(rows),
        changes=(*plan.record.changes, *_made(plan.changes, trainer.index)),
    )  # fmt: skip
    processes.once(lambda: _write_record(run, record, plan.stores[0].path / "tokenizer"))
    say_what_was_chosen(engine, record)
    return trainer


def _take_folder(run: Path, processes: Processes, *, is_new: bool) -> RunLock | None:
    """Make a run's folder, lock it, and remove what a process that was killed has left there.

    Returns:
        The lock, in the process that leads.

    Raises:
        CheckpointError: another process trains in it.
        ConfigError: another process has begun a run there.
        OutputError: nothing can be written there.
    """
    locks: list[RunLock] = []

    def take() -> None:
        with refused_by_disk(run):
            run.mkdir(parents=True, exist_ok=True)
            locks.append(RunLock(run))
        if is_new:
            require_new_run(run)  # another process may have begun one since
        sweep(run)

    processes.once(take)
    return locks[0] if locks else None


def _checkpoint_to_go_on_from(run: Path, cfg: RunConfig, processes: Processes) -> Checkpoint:
    """Find the newest checkpoint of a run that is resumed.

    Raises:
        CheckpointError: none is usable.
        ConfigError: it has done more steps than the run is to have.
    """
    newest = newest_checkpoint(run, restored_parts(cfg.optimizer), processes)
    if newest.step > cfg.train.steps:
        processes.refuse(
            ConfigError(
                f"{run} has done {newest.step} steps already, which is more than --train.steps "
                f"{cfg.train.steps}; name at least {newest.step}"
            )
        )
    return newest


def _write_record(run: Path, record: RunRecord, tokenizer: Path) -> None:
    """Write a run's record, and copy its tokenizer where it has none yet.

    Raises:
        OSError: the disk does not take it.
    """
    write_run(run, record)
    if not (run / "tokenizer").exists():
        with new_folder(run / "tokenizer") as folder:
            copy_tokenizer(tokenizer, folder)


def _new_model(plan: Plan, newest: Checkpoint | None) -> GLM:
    """Make the model with the weights of a new run; those of other weights or of a checkpoint are
    loaded into it later."""
    model, train = GLM(plan.cfg.model), plan.cfg.train
    init_weights(model, train.seed)
    if plan.start is None and newest is None and embedding_begins_from_text(train):
        assert model.embed is not None
        first_embedding(model.embed.word.weight, plan.stores, train)
    return model.to(plan.device)


def _build_engine(plan: Plan, newest: Checkpoint | None, rows: RowStream) -> LocalEngine:
    """Settle by measurement, or as before, how the model is computed, and give the engine."""
    cfg, before = plan.cfg, plan.measured_before
    set_threads(cfg.train.threads)  # as first weights are computed; settled below
    model = _new_model(plan, newest)

    def some(number: int) -> Batch:
        return rows.rows(0, number)

    def sample() -> Batch:
        return some(cfg.train.micro_batch_rows)

    with progress.bar("trying what is fastest here", 4, "choices") as meter:
        settle_threads(cfg, model, some, before=before.threads if before else None)
        meter.advance(1, "threads")
        dtype = settle_precision(cfg, model, some, before=before.precision if before else None)
        meter.advance(1, "precision")
        attention = settle_attention(
            cfg, plan.device, dtype, sample, before=before.attention if before else None
        )
        meter.advance(1, "attention")
        compiled = settle_compile(
            cfg, model, dtype, attention, sample, before=before.compiled if before else None
        )
        meter.advance(1, "compiling")
    return LocalEngine(
        cfg, model, dtype=dtype, attention=attention, compiled=compiled,
        dropout_by_row=plan.was_shared_out,
    )  # fmt: skip


def _go_to_its_step(trainer: Trainer, plan: Plan, newest: Checkpoint | None) -> None:
    """Load what the run goes on from, and give its stores the shares from there on."""
    if newest is not None:
        for path in trainer.engine.once(lambda: set_aside(trainer.run, newest.step)):
            log.warning("%s does not count any more", path)
        trainer.restore(newest)
        if any(change.name == HELD_OUT for change in plan.changes):
            trainer.best = None  # losses on other text are not compared
    elif plan.start is not None:
        trainer.engine.load_weights(plan.start.weights)
    rows = trainer.rows
    if isinstance(rows, RowMixture) and plan.shares and plan.shares != rows.mixtures[-1][1]:
        rows.change(trainer.row, plan.shares)


def _measured(record: RunRecord, engine: Engine, peak: Peak) -> RunRecord:
    """Add to a record what was settled by measurement."""
    flops = round(peak.flops_per_second)
    return replace(
        record, attention=engine.attention, compiled=engine.compiled,
        precision=str(engine.dtype).removeprefix("torch."),
        hardware=replace(
            record.hardware, peak_flops_per_second=flops, peak_source=peak.source
        ),
    )  # fmt: skip


def _made(changes: Sequence[Change], step: int) -> tuple[ChangeEntry, ...]:
    """Log what a resumed run changes, and give the entry of its record; none where nothing is."""
    for change in changes:
        log.info("from step %d on, %s", step, change.text)
    if not changes:
        return ()
    return (ChangeEntry(step=step, values={change.name: change.after for change in changes}),)


def _mixtures_of(rows: RowStream) -> tuple[MixtureEntry, ...]:
    """Give the shares that a stream has had, each with its first row."""
    if not isinstance(rows, RowMixture):
        return ()
    return tuple(MixtureEntry(row=row, shares=tuple(of_each)) for row, of_each in rows.mixtures)
