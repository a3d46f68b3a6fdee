"""How fast this machine trains, so that a run can be given minutes instead of steps."""

from __future__ import annotations

import dataclasses
import logging
import statistics
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from blankfill.config.run import RunConfig
from blankfill.config.train import TrainConfig
from blankfill.disk.publish import scratch_folder
from blankfill.prepare.compiling import measure_break_even
from blankfill.train.trainer import Trainer

__all__ = ["Pace", "measure_pace", "with_steps"]

WARM_STEPS = 5
"""Steps that are done and not timed: they take memory from the kernel and are slower."""

LEAST_TIMED, MOST_TIMED, TIMED_SECONDS = 4, 12, 20.0
"""Steps that are timed: between these bounds, as many as begin within the seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """What a run takes on this machine."""

    step_seconds: float
    """Median time of a step, less what compiling takes off it where that pays."""
    validation_seconds: float
    """Time of a validation; next to nothing where there is none."""
    compile_seconds: float = 0.0
    """Time to compile; 0 where that does not pay."""

    def positions_per_second(self, train: TrainConfig) -> float:
        """Give the rate of training."""
        return train.batch_rows * train.row_length / self.step_seconds

    def steps_in(self, seconds: float, validate_every: int = 0) -> int:
        """Tell how many steps fit, beside the first and the last validation and those between."""
        of_step = self.step_seconds
        if validate_every:
            of_step += self.validation_seconds / validate_every
        left = seconds - 2 * self.validation_seconds - self.compile_seconds
        return max(0, int(left / of_step))


def with_steps(cfg: RunConfig, steps: int) -> RunConfig:
    """Give a run this many steps, of which warm-up takes a tenth at most."""
    warmup_steps = min(cfg.schedule.warmup_steps, steps // 10)
    return cfg.changed({"train.steps": steps, "schedule.warmup_steps": warmup_steps})


def measure_pace(
    cfg: RunConfig, build: Callable[[RunConfig, Path], Trainer], run: Path, *, seconds: float = 0.0
) -> Pace:
    """Do some steps of a run in a folder of this process beside it, which is removed.

    Args:
        cfg: the run.
        seconds: how long it is to be, which decides whether it will be compiled; 0 where that is
            not known, and the pace is the one without.
        build: makes its trainer in a folder.
        run: the run's folder, which is not touched.

    Raises:
        OutputError: another process prepares this run, or nothing can be written there.
    """
    tried = cfg.changed({
        "train.compile": "off", "train.embedding_init": "random", "train.ramp_from_rows": 0,
        "train.ramp_rows": 0, "train.wandb": "", "guard.on_spike": "log",
    })  # fmt: skip
    with scratch_folder(run) as folder:
        with _without_a_word():
            trial = build(tried, folder)
        times: list[float] = []
        with trial.open_loader() as loader:
            for _ in range(WARM_STEPS):
                trial.step(loader)
            while len(times) < LEAST_TIMED or (
                len(times) < MOST_TIMED and sum(times) < TIMED_SECONDS
            ):
                start = time.monotonic()
                trial.step(loader)
                times.append(time.monotonic() - start)
        start = time.monotonic()
        trial.validate()
        pace = Pace(step_seconds=statistics.median(times),
                    validation_seconds=time.monotonic() - start)  # fmt: skip
        auto = seconds and cfg.train.compile == "auto"
        return _compiled(pace, cfg, trial, seconds) if auto else pace


@contextmanager
def _without_a_word() -> Generator[None]:
    """Keep to warnings what is said of a trial: the run that follows says the same of itself."""
    logger = logging.getLogger("blankfill")
    before = logger.level
    logger.setLevel(max(before, logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(before)


def _compiled(pace: Pace, cfg: RunConfig, trial: Trainer, seconds: float) -> Pace:
    """Give the pace of the compiled run, where it is long enough to be one."""
    steps = pace.steps_in(seconds)
    found = measure_break_even(
        cfg, trial.engine.model, trial.engine.dtype, trial.engine.attention,
        lambda: trial.rows.rows(0, cfg.train.micro_batch_rows), steps=steps,
    )  # fmt: skip
    if isinstance(found, str) or not found.pays(steps):
        return pace
    return dataclasses.replace(
        pace, step_seconds=pace.step_seconds - found.saved_seconds,
        compile_seconds=found.compile_seconds,
    )  # fmt: skip
