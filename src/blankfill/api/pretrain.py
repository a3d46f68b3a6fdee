"""`blankfill pretrain`: from token stores to a trained run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from blankfill.api.parameters import CheckpointName, PathLike, Paths, Texts, as_list, as_path
from blankfill.config.arguments import checks_arguments
from blankfill.config.presets import preset as find_preset
from blankfill.config.ranges import Range
from blankfill.config.run import RunConfig
from blankfill.errors import ConfigError
from blankfill.results import short_repr

if TYPE_CHECKING:
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

    __repr__ = short_repr

    @property
    def exit_code(self) -> int:
        """130, as a shell gives a command that Ctrl-C ended, unless the run is complete."""
        return 0 if self.finished else 130


@checks_arguments
def pretrain(
    preset: str,
    /,
    *,
    data: Paths,
    out: PathLike,
    validation: Paths = (),
    resume: bool = False,
    allow_change: Texts = (),
    init: PathLike | None = None,
    init_checkpoint: CheckpointName | None = None,
    replay: Paths = (),
    minutes: Minutes = 0.0,
    config: RunConfig | None = None,
) -> PretrainResult:
    """Pretrain a model on token stores.

    Ctrl-C finishes the step at hand, saves, and ends; the same command with --resume goes on.

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
        resume: go on from the newest checkpoint in the folder.
        allow_change: fields that the resumed run may change, such as schedule.peak_lr or
            train.steps, or the shares of its stores.
        init: start from the weights of this run, or of one of its checkpoints, with a fresh
            optimizer and schedule.
        init_checkpoint: which of its checkpoints: last, best (lowest validation loss), or a step;
            the last where not given.
        replay: stores of earlier training to mix in, each with its share, such as general:0.3.
        minutes: take as many steps as this machine does in these minutes, in place of
            --train.steps; a resumed run keeps the steps that it was given.
        config: the run, complete; the preset's where not given.

    Raises:
        ConfigError, DataError, CheckpointError: something named in the message cannot be used.
        TrainingError: losses or weights do not let the run go on.
    """
    default = find_preset(preset)
    cfg = config or default
    from blankfill.data.mixture import parse_stores
    from blankfill.evaluate.watch import BlankWatch
    from blankfill.prepare import build_trainer
    from blankfill.runtime import restored_process

    stores, shares = parse_stores(
        [Path(path) for path in as_list(data)],
        [Path(path) for path in as_list(replay)],
    )
    validated = [Path(path) for path in as_list(validation)]
    changes: list[str] = as_list(allow_change)
    start = _start(init, init_checkpoint)

    def build(cfg: RunConfig, run: Path, *, resume: bool = False) -> Trainer:
        return build_trainer(
            cfg, data=stores, shares=shares, run=run, resume=resume,
            validation=validated, check_blanks=BlankWatch, init=start, allow_change=changes,
            # The preset's number stands for a vocabulary of its size; another one is the user's.
            vocab_size=cfg.model.vocab_size
            if cfg.model.vocab_size != default.model.vocab_size else None,
        )  # fmt: skip

    with restored_process():
        return _pretrain(cfg, as_path(out), build, minutes=minutes, resume=resume)


def _pretrain(
    cfg: RunConfig, run: Path, build: Callable[..., Trainer], *, minutes: float, resume: bool
) -> PretrainResult:
    """Build the trainer of a configuration that is settled, and train."""
    from blankfill.metrics import log_in_to_wandb, read_metrics

    if cfg.train.wandb:
        log_in_to_wandb(cfg.train.wandb)
    if minutes:
        cfg = _in_minutes(cfg, minutes, build, run, resume=resume)
    trainer = build(cfg, run, resume=resume)
    finished = trainer.fit()
    rows = read_metrics(run)
    return PretrainResult(
        run=str(run),
        step=trainer.index,
        steps=cfg.train.steps,
        finished=finished,
        num_parameters=sum(p.numel() for p in trainer.engine.model.parameters()),
        metrics=next((row for row in reversed(rows) if "loss_nats" in row), {}),
        validation=next((row for row in reversed(rows) if "validation_loss_nats" in row), {}),
    )


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
    cfg: RunConfig, minutes: float, build: Callable[[RunConfig, Path], Trainer], run: Path, *,
    resume: bool,
) -> RunConfig:  # fmt: skip
    """Give a run the steps that fit into the minutes, or, resumed, those that it has."""
    from blankfill.prepare import require_new_run
    from blankfill.prepare.pace import measure_pace, with_steps
    from blankfill.runs import read_run

    if resume and (run / "run.json").exists():
        had = read_run(run).config
        return cfg.changed({
            "train.steps": had.train.steps, "schedule.warmup_steps": had.schedule.warmup_steps,
        })  # fmt: skip
    require_new_run(run)
    pace = measure_pace(cfg, build, run, seconds=minutes * 60)
    steps = pace.steps_in(minutes * 60, cfg.validation.every)
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
