"""How fast this machine trains, so that a run can be given minutes instead of steps."""

from __future__ import annotations

import dataclasses
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from blankfill.config.run import RunConfig
from blankfill.config.train import TrainConfig
from blankfill.train.trainer import Trainer

__all__ = ["Pace", "measure_pace", "with_steps"]

WARM_STEPS = 5
"""Steps that are done and not timed: they take memory from the kernel and are slower."""

LEAST_TIMED, MOST_TIMED, TIMED_SECONDS = 4, 12, 20.0
"""Steps that are timed: between these bounds, as many as begin within the seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """What a run takes on this machine, not compiled."""

    step_seconds: float
    """Median time of a step."""
    validation_seconds: float
    """Time of a validation; next to nothing where there is none."""

    def positions_per_second(self, train: TrainConfig) -> float:
        """Give the rate of training."""
        return train.batch_rows * train.row_length / self.step_seconds

    def steps_in(self, seconds: float, validate_every: int = 0) -> int:
        """Tell how many steps fit, beside the validation at step 0 and those in between."""
        of_step = self.step_seconds
        if validate_every:
            of_step += self.validation_seconds / validate_every
        return max(0, int((seconds - self.validation_seconds) / of_step))


def with_steps(train: TrainConfig, steps: int) -> TrainConfig:
    """Give a run this many steps, of which warm-up takes a tenth at most."""
    warmup_steps = min(train.warmup_steps, steps // 10)
    return dataclasses.replace(train, steps=steps, warmup_steps=warmup_steps)


def measure_pace(cfg: RunConfig, build: Callable[[RunConfig, Path], Trainer], run: Path) -> Pace:
    """Do some steps of a run in a folder beside it, which is removed.

    Args:
        cfg: the run.
        build: makes its trainer in a folder.
        run: the run's folder, which is not touched.
    """
    train = dataclasses.replace(
        cfg.train, compile=False, embedding_init="random", ramp_from_rows=0, ramp_rows=0,
        on_spike="log", wandb="",
    )  # fmt: skip
    folder = run.with_name(f".{run.name}.trial")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        trial = build(dataclasses.replace(cfg, train=train), folder)
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
        validation = time.monotonic() - start
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Pace(step_seconds=statistics.median(times), validation_seconds=validation)
