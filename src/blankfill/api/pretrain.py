"""`blankfill pretrain`: from token stores to a trained run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from blankfill.api.parameters import CheckpointName, PathLike, Paths, Texts, as_list, as_path
from blankfill.config.arguments import checks_arguments
from blankfill.config.common import Unless
from blankfill.config.ranges import Range
from blankfill.config.run import RunConfig
from blankfill.errors import ConfigError
from blankfill.processes import this_place
from blankfill.results import short_repr

if TYPE_CHECKING:
    from blankfill.parallel import Ranks
    from blankfill.prepare.asked import Asked
    from blankfill.train import Trainer

__all__ = ["PretrainResult", "pretrain"]

log = logging.getLogger(__name__)

MOST_MINUTES: Final = 527_040
"""Of a year."""
Minutes = Annotated[float, Range(1e-6, MOST_MINUTES, or_zero=True)]


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainResult:
    """How a pretraining run ended."""

    run: str
    """The run's folder."""
    began_at: int
    """Optimizer steps done when it began; above 0 where a run went on."""
    step: int
    """Optimizer steps done."""
    steps: int
    """Optimizer steps asked for."""
    finished: bool
    """False when a signal ended the run before its last step."""
    num_parameters: int
    """Weights of the model."""
    metrics: dict[str, float]
    """The last line of metrics.jsonl."""
    validation: dict[str, float]
    """The last validation, where there was one; its `step` says of how many steps."""
    best_step: int | None
    """Optimizer steps at the lowest validation loss; None where there was no validation."""
    best_validation_loss_nats: float | None
    """That loss."""

    __repr__ = short_repr

    @property
    def exit_code(self) -> int:
        """130, as a shell gives a command that Ctrl-C ended, unless the run is complete."""
        return 0 if self.finished else 130


@checks_arguments
def pretrain(
    preset: Annotated[str | None, Unless("resume", "config")] = None,
    /,
    *,
    data: Annotated[Paths | None, Unless("resume", "config")] = None,
    out: Annotated[PathLike | None, Unless("resume")] = None,
    validation: Paths | None = None,
    resume: PathLike | bool = False,
    allow_change: Texts = (),
    init: PathLike | None = None,
    init_checkpoint: CheckpointName | None = None,
    replay: Paths = (),
    minutes: Minutes = 0.0,
    config: RunConfig | PathLike | None = None,
    changes: Mapping[str, object] | None = None,
) -> PretrainResult:
    """Pretrain a model on token stores.

    Ctrl-C finishes the step at hand, saves, ends, and says how to go on: --resume RUN alone. Fields
    stand on the preset, over it on what --config names, over both on typed options; those of a run
    that goes on stand on its run.json.

    Example:
        blankfill pretrain tiny --data store --out runs/mine --steps 2000

    Args:
        preset: where to start from: demo, tiny, small, base, large or xl; or as published:
            glm-tiny, glm-small, glm-base, glm-large, glm-roberta, glm-large-zh, glm-410m, glm-515m,
            glm-2b, glm-10b, glm-10b-zh, glm-130b, chatglm-6b or chatglm-6b-v0.
        data: token stores to train on; with shares, such as en:0.7 zh:0.3, each store has that
            share of the rows and is read in epochs of its own.
        out: folder of the run; new, unless resuming.
        validation: token stores to validate on, before the first step, after the last, and every
            --validation.every steps.
        resume: the run that goes on from its newest checkpoint, with what its run.json says; only
            typed options are changes. Without a name it is that of --out, and the whole command
            may be repeated: what differs must be named by --allow-change.
        allow_change: fields that the repeated command may change, such as schedule.peak_lr or
            train.steps, or the shares of its stores.
        init: start from the weights of this run, or of one of its checkpoints, with a fresh
            optimizer and schedule.
        init_checkpoint: which of its checkpoints: last, best (lowest validation loss), or a step;
            the last where not given.
        replay: stores of earlier training to mix in, each with its share, such as general:0.3.
        minutes: take as many steps as this machine does in these minutes, in place of
            --train.steps; a resumed run keeps the steps that it was given.
        config: a run, or its run.json, to begin another like it, with the same data; or a JSON file
            with some of its fields, which stand on the preset.
        changes: values of fields by dotted name, such as train.steps.

    Raises:
        ConfigError, DataError, CheckpointError: something named in the message cannot be used.
        TrainingError: losses or weights do not let the run go on.
    """
    from blankfill.evaluate.watch import BlankWatch
    from blankfill.prepare import build_trainer
    from blankfill.prepare.asked import Request, settle
    from blankfill.runtime import restored_process

    asked = settle(Request(
        preset=preset,
        config=config if config is None or isinstance(config, RunConfig)
        else as_path(config),
        changes=changes or {},
        data=None if data is None else _paths(data),
        replay=_paths(replay),
        validation=None if validation is None else _paths(validation),
        out=None if out is None else as_path(out),
        resume=resume if isinstance(resume, bool) else as_path(resume),
        init=_start(init, init_checkpoint),
        allow_change=as_list(allow_change), minutes=minutes,
    ))  # fmt: skip

    def build(
        cfg: RunConfig, run: Path, *, resume: bool = False, ranks: Ranks | None = None
    ) -> Trainer:
        return build_trainer(
            cfg, ranks=ranks, data=asked.data, shares=asked.shares, run=run, resume=resume,
            validation=asked.validation, check_blanks=BlankWatch, init=asked.init,
            allow_change=asked.allow_change, vocab_size=asked.vocab_size, preset=asked.preset,
        )  # fmt: skip

    with restored_process():
        return _pretrain(asked, build, minutes=minutes)


def _pretrain(asked: Asked, build: Callable[..., Trainer], *, minutes: float) -> PretrainResult:
    """Build the trainer of a run that is settled, and train."""
    from blankfill.metrics import log_in_to_wandb
    from blankfill.prepare import say_start

    run, cfg = asked.run, asked.cfg
    _require_layout(cfg, minutes if asked.old is None else 0.0)
    if cfg.train.wandb and this_place().rank == 0:
        log_in_to_wandb(cfg.train.wandb)
    if minutes and asked.old is None:
        cfg = _in_minutes(cfg, minutes, build, run)
    with _joined(cfg) as ranks:
        with _no_empty_folder(run):
            trainer = build(cfg, run, resume=asked.old is not None, ranks=ranks)
        began_at = trainer.index
        say_start(trainer)
        finished = trainer.fit()
    return _result(trainer, began_at=began_at, finished=finished)


@contextmanager
def _no_empty_folder(run: Path) -> Generator[None]:
    """Remove the folder of a run that ended before it was begun, and say so of a signal."""
    was_there = run.exists()
    try:
        yield
    except BaseException as error:
        if not was_there and this_place().rank == 0:
            with suppress(OSError):  # it holds something, or was never made
                run.rmdir()
            if isinstance(error, KeyboardInterrupt | SystemExit) and not run.exists():
                log.warning("%s: stopped before the run was begun; nothing is left of it", run)
        raise


def _result(trainer: Trainer, *, began_at: int, finished: bool) -> PretrainResult:
    """Say how a run ended."""
    from blankfill.metrics import read_metrics

    rows = read_metrics(trainer.run)
    best = trainer.best
    return PretrainResult(
        run=str(trainer.run), began_at=began_at, step=trainer.index,
        steps=trainer.cfg.train.steps, finished=finished,
        num_parameters=sum(p.numel() for p in trainer.engine.model.parameters()),
        metrics=next((row for row in reversed(rows) if "loss_nats" in row), {}),
        validation=next((row for row in reversed(rows) if "validation_loss_nats" in row), {}),
        best_step=None if best is None else best.step,
        best_validation_loss_nats=None if best is None else best.loss_nats,
    )  # fmt: skip


def _paths(values: Paths) -> list[Path]:
    return [Path(path) for path in as_list(values)]


def _require_layout(cfg: RunConfig, minutes: float) -> None:
    """Check that the processes are those of the layout.

    Raises:
        ConfigError: they are not, or what is asked for is one process's.
    """
    count = this_place().count
    cfg.parallel.require(count)
    if minutes and count > 1:
        raise ConfigError(
            f"minutes={minutes:g} is measured in one process, and {count} were started; name "
            "--train.steps instead"
        )


def _joined(cfg: RunConfig) -> AbstractContextManager[Ranks | None]:
    """Meet the other processes of the run, where there are others."""
    if this_place().count == 1:
        return nullcontext()
    from blankfill.parallel import joined

    return joined(cfg.parallel, cfg.train.device)


def _start(init: PathLike | None, checkpoint: CheckpointName | None) -> Path | None:
    """Give the folder of the checkpoint that a run is to start from, or of its run."""
    from blankfill.runs import choose_checkpoint, locate

    if init is None:
        if checkpoint is not None:
            raise ConfigError(f"init_checkpoint={checkpoint} needs --init, which names the run")
        return None
    path = as_path(init)
    if checkpoint is None:
        return path
    place = locate(path, checkpoint)
    return choose_checkpoint(place.run, place.checkpoint, parts=[]).path


def _in_minutes(
    cfg: RunConfig, minutes: float, build: Callable[[RunConfig, Path], Trainer], run: Path
) -> RunConfig:
    """Give a run the steps that fit into the minutes."""
    from blankfill.prepare import require_new_run
    from blankfill.prepare.pace import measure_pace, with_steps

    require_new_run(run)
    pace = measure_pace(cfg, build, run, seconds=minutes * 60)
    at_most = pace.steps_in(minutes * 60)
    every = with_steps(cfg, max(1, at_most)).validate_every
    steps = pace.steps_in(minutes * 60, every if every < at_most else 0)
    if not steps:
        raise ConfigError(
            f"minutes={minutes:g} is too little for a step of {pace.step_seconds:.1f} s"
            f" and a validation of {pace.validation_seconds:.1f} s; give it more"
        )
    rate = pace.positions_per_second(cfg.train)
    log.info("%s positions a second: %s steps in %g minutes", f"{rate:,.0f}", f"{steps:,}", minutes)
    shorter, before = with_steps(cfg, steps), cfg.schedule.warmup_steps
    if shorter.schedule.warmup_steps != before:
        log.info("warm-up takes a tenth of them, %d, in place of schedule.warmup_steps=%d",
                 shorter.schedule.warmup_steps, before)  # fmt: skip
    return shorter
