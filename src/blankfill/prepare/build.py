"""From a configuration and folders to a trainer."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from blankfill.config.run import RunConfig
from blankfill.data.mixture import RowMixture, RowStream, settle_shares
from blankfill.data.rows import RowSource
from blankfill.data.store import TokenStore
from blankfill.disk.publish import followed, new_folder, refused_by_disk
from blankfill.engine.device import choose_device, choose_precision
from blankfill.engine.engine import LocalEngine
from blankfill.errors import ConfigError, OutputError
from blankfill.guard.forgetting import ForgettingGuard
from blankfill.metrics import Peak, find_peak
from blankfill.metrics.names import unique_names
from blankfill.metrics.wandb import require_wandb
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights
from blankfill.objective.batch import Batch
from blankfill.prepare.attention import settle_attention
from blankfill.prepare.compiling import settle_compile
from blankfill.prepare.describe import describe_run, say_what_was_chosen
from blankfill.prepare.memory import require_memory
from blankfill.prepare.precision import settle_precision
from blankfill.prepare.resume import Change, changes_on_resume, start_on_resume
from blankfill.prepare.sources import build_stream, open_stores
from blankfill.prepare.start import begin_embedding, read_start
from blankfill.runs import (
    RUN_FILES,
    RUN_FOLDERS,
    Checkpoint,
    RunLock,
    RunRecord,
    list_checkpoints,
    newest_checkpoint,
    read_run,
    restored_parts,
    set_aside,
    sweep,
    write_run,
)
from blankfill.runs.record import ChangeEntry, MixtureEntry
from blankfill.runtime import set_threads
from blankfill.text.tokenizer import TextTokenizer, copy_tokenizer
from blankfill.text.vocabularies import load_tokenizer
from blankfill.train.trainer import Trainer
from blankfill.train.validate import (
    Check,
    Validation,
    run_checks,
    score_batches,
    validation_batches,
)

__all__ = ["build_trainer", "require_new_run"]

log = logging.getLogger(__name__)

VOCABULARY_MULTIPLE = 64
"""Rows of the embedding are rounded up to this, for even matrix products (Megatron rounds too)."""
VALIDATION_ROWS = 64
"""Most rows that a validation during training scores."""


def require_new_run(run: Path) -> None:
    """Check that a folder holds nothing that a run would write over.

    Raises:
        ConfigError: it does.
        OutputError: it is no place for a new folder.
    """
    with refused_by_disk(run):
        place = followed(run)
    if place.exists() and not place.is_dir():
        raise OutputError(f"{run} is not a folder; name another --out")
    taken = [name for name in (*RUN_FILES, *RUN_FOLDERS) if os.path.lexists(place / name)]
    if "run.json" in taken:
        raise ConfigError(
            f"{run} already holds a run; go on with --resume, or name another folder with --out"
        )
    if taken:
        raise ConfigError(
            f"{run} already holds {taken[0]}, which a run would write over; name another folder "
            "with --out"
        )


def build_trainer(
    cfg: RunConfig,
    *,
    data: Sequence[Path],
    run: Path,
    validation: Sequence[Path] = (),
    resume: bool = False,
    init: Path | None = None,
    allow_change: Sequence[str] = (),
    check_blanks: Callable[[RunConfig, TextTokenizer, Sequence[TokenStore]], Check] | None = None,
    shares: Sequence[float | None] = (),
    vocab_size: int | None = None,
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
        init: a run whose newest weights this one starts from.
        allow_change: fields that a resumed run may change, such as `schedule.peak_lr`.
        shares: share of each store in the rows; see `settle_shares`. Without any, all documents are
            read in one order.
        vocab_size: rows of the embedding, where the user has asked for a number.
        check_blanks: makes a further check of the held-out stores, such as filling their blanks.

    Raises:
        ConfigError: the folder exists, a resumed run's configuration differs, or the model or the
            tokenizer of `init` does.
        DataError: a store cannot be used.
        CheckpointError: nothing in the folder can be resumed, or another process trains in it.
        OutputError: nothing can be written there.
    """
    if cfg.train.wandb:
        require_wandb()
    device = choose_device(cfg.train.device)
    choose_precision(cfg.train.precision, device)  # refused before long work, where it must be
    stores = open_stores(data)
    fingerprint = stores[0].tokenizer_fingerprint
    held_out = open_stores(validation, fingerprint) if validation else []
    tokenizer = load_tokenizer(data[0] / "tokenizer")
    old = read_run(run) if resume and (run / "run.json").exists() else None
    known = read_run(init) if old is None and init is not None else old
    cfg = _with_vocabulary(cfg, tokenizer.vocab_size, known, asked=vocab_size)
    require_memory(cfg, device)
    if cfg.validation.every and not held_out:
        raise ConfigError(
            f"validation.every={cfg.validation.every} needs held-out data; name a store "
            "with --validation"
        )
    settled = settle_shares(shares, [store.num_tokens for store in stores]) if shares else None
    going_on = old is not None and bool(list_checkpoints(run))
    start = None if init is None or going_on else read_start(init, cfg, fingerprint)
    record = describe_run(
        cfg, device, data=data, stores=stores, shares=settled, validation=validation,
        held_out=held_out, start=start,
    )  # fmt: skip
    changes: list[Change] = []
    if old is None:
        require_new_run(run)
    else:
        if going_on:
            record = replace(record, init=start_on_resume(old, init))
        changes = changes_on_resume(old, record, allow_change)
        record = replace(record, started=old.started, changes=old.changes)
    lock = _take_folder(run, is_new=old is None)
    threads = set_threads(cfg.train.threads)
    newest = _checkpoint_to_go_on_from(run, cfg) if going_on else None
    model = GLM(cfg.model)
    init_weights(model, cfg.train.seed)
    if start is None and newest is None:
        begin_embedding(model, stores, cfg.train)
    model.to(device)
    rows = build_stream(cfg, stores, _mixtures(old, settled), tokenizer.ids)
    here_before = old if old and old.hardware.device == record.hardware.device else None
    dtype = settle_precision(
        cfg, model, lambda n: rows.rows(0, n), before=here_before.precision if here_before else None
    )
    checks: list[Check] = []
    if held_out:
        checks.append(_loss_check(cfg, run, validation, held_out, tokenizer, dtype))
        if check_blanks is not None and cfg.validation.blanks:
            checks.append(check_blanks(cfg, tokenizer, held_out))
    peak = find_peak(dtype, device.type)

    def sample() -> Batch:
        return rows.rows(0, cfg.train.micro_batch_rows)

    attention = settle_attention(
        cfg, device, dtype, sample, before=here_before.attention if here_before else None
    )
    compiled = settle_compile(
        cfg, model, dtype, attention, sample, before=here_before.compiled if here_before else None
    )
    engine = LocalEngine(cfg, model, dtype=dtype, attention=attention, compiled=compiled)
    trainer = Trainer(
        cfg, engine, rows, run, tokenizer=tokenizer, lock=lock, peak=peak,
        validate=functools.partial(run_checks, checks=checks) if checks else None,
    )  # fmt: skip
    if newest is not None:
        for path in set_aside(run, newest.step):
            log.warning("%s does not count any more", path)
        trainer.restore(newest)
    elif start is not None:
        engine.load_weights(start.weights)
    if isinstance(rows, RowMixture) and settled and settled != rows.mixtures[-1][1]:
        rows.change(trainer.row, settled)
    record = replace(
        _measured(record, engine, peak), compiled=compiled, mixtures=_mixtures_of(rows),
        changes=(*record.changes, *_made(changes, trainer.index)),
    )  # fmt: skip
    write_run(run, record)
    if not (run / "tokenizer").exists():
        with new_folder(run / "tokenizer") as folder:
            copy_tokenizer(data[0] / "tokenizer", folder)
    say_what_was_chosen(trainer, record, threads)
    return trainer


def _take_folder(run: Path, *, is_new: bool) -> RunLock:
    """Make a run's folder, lock it, and remove what a process that was killed has left there.

    Raises:
        CheckpointError: another process trains in it.
        ConfigError: another process has begun a run there.
        OutputError: nothing can be written there.
    """
    with refused_by_disk(run):
        run.mkdir(parents=True, exist_ok=True)
        lock = RunLock(run)
    if is_new:
        require_new_run(run)  # another process may have begun one since
    sweep(run)
    return lock


def _checkpoint_to_go_on_from(run: Path, cfg: RunConfig) -> Checkpoint:
    """Find the newest checkpoint of a run that is resumed.

    Raises:
        CheckpointError: none is usable.
        ConfigError: it has done more steps than the run is to have.
    """
    newest = newest_checkpoint(run, restored_parts(cfg.optimizer))
    if newest.step > cfg.train.steps:
        raise ConfigError(
            f"{run} has done {newest.step} steps already, which is more than --train.steps "
            f"{cfg.train.steps}; name at least {newest.step}"
        )
    return newest


def _measured(record: RunRecord, engine: LocalEngine, peak: Peak) -> RunRecord:
    """Add to a record what was settled by measurement."""
    flops = round(peak.flops_per_second)
    return replace(
        record, attention=engine.attention, precision=str(engine.dtype).removeprefix("torch."),
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


def _with_vocabulary(
    cfg: RunConfig, num_ids: int, known: RunRecord | None, *, asked: int | None
) -> RunConfig:
    """Give the model the rows that were asked for, or a known run's, or the ids' rounded up.

    Raises:
        ConfigError: fewer rows were asked for than there are ids.
    """
    if asked is not None:
        if asked < num_ids:
            raise ConfigError(
                f"model.vocab_size={asked} has no row for some of the tokenizer's {num_ids} ids; "
                f"take at least {num_ids}, leave it out, or build the stores with a smaller "
                "tokenizer"
            )
        log.info("model.vocab_size is %d, as asked for; the tokenizer has %d ids", asked, num_ids)
        return replace(cfg, model=replace(cfg.model, vocab_size=asked))
    vocab_size = -(-num_ids // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
    if known is not None:  # released models have more rows than ours would round up to
        rows = known.config.model.vocab_size
        vocab_size = rows if rows >= num_ids else vocab_size
    if vocab_size == cfg.model.vocab_size:
        return cfg
    log.info("model.vocab_size is %d, the tokenizer's %d ids rounded up", vocab_size, num_ids)
    return replace(cfg, model=replace(cfg.model, vocab_size=vocab_size))


def _mixtures(old: RunRecord | None, settled: Sequence[float] | None) -> Sequence[MixtureEntry]:
    """Give the shares so far, each with its first row; nothing where there are none."""
    if settled is None:
        return []
    if old is None:
        return [MixtureEntry(row=0, shares=tuple(settled))]
    return old.mixtures


def _mixtures_of(rows: RowStream) -> tuple[MixtureEntry, ...]:
    """Give the shares that a stream has had, each with its first row."""
    if not isinstance(rows, RowMixture):
        return ()
    return tuple(MixtureEntry(row=row, shares=tuple(of_each)) for row, of_each in rows.mixtures)


def _loss_check(
    cfg: RunConfig, run: Path, validation: Sequence[Path], held_out: Sequence[TokenStore],
    tokenizer: TextTokenizer, dtype: torch.dtype,
) -> Check:  # fmt: skip
    """Build the check of the loss on held-out rows and, where asked for, of what is forgotten."""
    objective = cfg.objective.of_other_stores
    rows = RowSource(held_out, objective, tokenizer.ids, row_length=cfg.train.row_length, seed=0)
    batches = validation_batches(
        rows, max_rows=VALIDATION_ROWS, micro_batch_rows=cfg.train.micro_batch_rows
    )
    guard = _forgetting_guard(cfg, run, validation)

    def score(model: GLM) -> Validation:
        values = score_batches(model, batches, dtype)
        return Validation(values=values | (guard.judge(values) if guard else {}))

    return score


def _forgetting_guard(
    cfg: RunConfig, run: Path, validation: Sequence[Path]
) -> ForgettingGuard | None:
    if not cfg.validation.forgetting_limit:
        return None
    return ForgettingGuard(
        run, unique_names(validation), limit=cfg.validation.forgetting_limit,
        policy=cfg.validation.on_forgetting,
    )  # fmt: skip
