"""How long a run of `blankfill train` is, and what is said of it before it begins."""

from __future__ import annotations

import datetime
import logging
import math
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blankfill.api.train_folder import Asked, Expectation
from blankfill.config.run import RunConfig
from blankfill.errors import ConfigError

if TYPE_CHECKING:
    from blankfill.prepare.pace import Pace
    from blankfill.train import Trainer

__all__ = ["plan_training", "what_passes_mean"]

log = logging.getLogger(__name__)

LEAST_STEPS: Final = 20
"""Steps of the shortest run."""
VALIDATIONS: Final = 10
"""Most validations, beside the one before the first step; a checkpoint is saved with each."""
VALIDATION_SHARE: Final = 0.05
"""Most of the time that those before the last take together."""
BLANKS: Final = 32
"""Held-out blanks of each language that a validation fills."""


def plan_training(
    cfg: RunConfig, asked: Asked, store: Path, held_out: Path, trial: Path
) -> tuple[RunConfig, Expectation]:
    """Give a run its steps, by the pace of this machine, and say what to expect.

    Args:
        cfg: the preset.
        asked: by the user.
        store: what it trains on.
        held_out: what it is validated on.
        trial: where some steps are done, and nothing is left.

    Raises:
        ConfigError: the minutes hold too few steps.
    """
    from blankfill.evaluate.watch import BlankWatch
    from blankfill.prepare import build_trainer, passes_in
    from blankfill.prepare.pace import measure_pace, with_steps
    from blankfill.runtime import restored_process

    passes_of_a_step: list[float] = []

    def build(cfg: RunConfig, folder: Path) -> Trainer:
        trainer = build_trainer(
            cfg, data=[store], run=folder, validation=[held_out], check_blanks=BlankWatch
        )
        passes_of_a_step.append(passes_in(trainer, 1))
        return trainer

    log.info("== pace of this machine")
    cfg = cfg.changed({"train.seed": asked.seed, "validation.blanks": BLANKS})
    with restored_process():
        pace = measure_pace(cfg, build, trial, seconds=60 * asked.minutes)
    steps, every = _steps(pace, asked.minutes)
    cfg = with_steps(cfg, steps).changed({
        "validation.every": every, "checkpoint.every": every, "checkpoint.keep_best": True,
    })  # fmt: skip
    expected = Expectation(
        positions_per_second=pace.positions_per_second(cfg.train), steps=steps,
        positions=steps * cfg.train.batch_rows * cfg.train.row_length,
        passes=steps * passes_of_a_step[0],
        memory_bytes=_peak_bytes(),
    )  # fmt: skip
    _say(expected, pace, asked.minutes, every)
    return cfg, expected


def what_passes_mean(passes: float) -> str:
    """Tell what a number of passes over a text lets one expect (docs/training.md).

    Measured: `tiny` on 78 MB was level with a trigram after 0.9 of a pass and below it after one.
    Muennighoff et al. 2023 found text that is read up to four times nearly as good as new text.
    """
    if passes < 0.9:
        return "below about one, expect less than a trigram"
    if passes <= 4:
        return "from about one on, expect a trigram or better"
    return "beyond about four, the same text teaches less and less"


def _steps(pace: Pace, minutes: float) -> tuple[int, int]:
    """Fit steps and validations into the minutes.

    Returns:
        Steps, and from which to which there is a validation.

    Raises:
        ConfigError: they hold fewer than `LEAST_STEPS`.
    """
    seconds, each = 60 * minutes, pace.validation_seconds
    between = int(VALIDATION_SHARE * seconds / each) if each else VALIDATIONS
    between = min(between, VALIDATIONS - 1)
    steps = pace.steps_in(seconds - between * each)
    if steps < LEAST_STEPS:
        between, steps = 0, pace.steps_in(seconds)
    if steps < LEAST_STEPS:
        least = LEAST_STEPS * pace.step_seconds + 2 * each
        needed = math.ceil(1.1 * least / 6) / 10
        raise ConfigError(
            f"minutes={minutes:g} hold {steps} steps of {pace.step_seconds:.2g} s on this machine, "
            f"and a run has at least {LEAST_STEPS}; give it --minutes {needed:g} or more"
        )
    return steps, -(-steps // (between + 1))


def _say(expected: Expectation, pace: Pace, minutes: float, every: int) -> None:
    end = datetime.datetime.now().astimezone() + datetime.timedelta(minutes=minutes)
    log.info("== what to expect")
    log.info("   %s positions a second: %s steps, %s positions",
             f"{expected.positions_per_second:,.0f}", f"{expected.steps:,}",
             f"{expected.positions:,}")  # fmt: skip
    log.info("   %.2g passes over the text: %s", expected.passes, what_passes_mean(expected.passes))
    log.info("   memory: %.1f GB; a validation, of %.0f s, every %s steps",
             expected.memory_bytes / 1e9, pace.validation_seconds, f"{every:,}")  # fmt: skip
    log.info("   time: %g minutes of training, until %s; the evaluation comes after it",
             minutes, end.strftime("%H:%M"))  # fmt: skip


def _peak_bytes() -> int:
    """Give the most memory that this process has had."""
    import torch

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # in KiB on Linux
    return peak + (torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0)
