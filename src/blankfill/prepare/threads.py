"""How many threads a run computes with on a CPU, found by doing some of its rows.

The threads of a product wait for each other, many times in a step. Where another process keeps one
of two cores busy, two threads wait most of the time: we saw 278 positions a second where one thread
alone made 1,600. So a run of a minute or more is timed when it starts, and again when its rate has
fallen to less than half. Sums are cut in other places on other numbers of threads, so they round
differently: a run that is resumed keeps to its number unless it is twice as slow with it.
"""

from __future__ import annotations

import dataclasses
import logging
import statistics
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import torch

from blankfill.config.run import RunConfig
from blankfill.data.mixture import RowStream
from blankfill.engine.device import choose_precision
from blankfill.engine.local import LocalEngine
from blankfill.errors import CheckpointError
from blankfill.model.glm import GLM, device_of
from blankfill.objective.batch import Batch
from blankfill.prepare.timing import median_seconds
from blankfill.prepare.trial import Trial
from blankfill.runs.record import ChangeEntry, read_run, write_run
from blankfill.runtime import available_cores, set_threads

__all__ = ["ThreadWatch", "fastest_threads", "settle_threads", "watch_threads"]

log = logging.getLogger(__name__)

LEAST_SECONDS = 60.0
"""A run that takes less is not measured, and a run is not measured again before it has gone on for
so long: there is nothing to earn back, and the same command is to compute the same."""
LEAST_GAIN = 0.1
"""Fewer threads are taken where they save this share of the time."""
GAIN_TO_CHANGE = 0.5
"""A resumed run gives up its number for no smaller share."""
SLOWER = 2.0
"""A run is measured again when its steps take so many times what they took."""
WINDOW = 8
"""Steps whose median tells how long a step takes."""
LOOK_AGAIN_SECONDS = 600.0
"""A run on fewer threads than cores is measured again after so long: the neighbour may be gone."""


def settle_threads(
    cfg: RunConfig, model: GLM, rows: Callable[[int], Batch], *, before: int | None = None
) -> int:
    """Settle and set a run's number of threads: as named, as before, or by measurement.

    Args:
        cfg: the run.
        model: on the device where it trains; left without gradients.
        rows: makes a batch of so many rows of it.
        before: what the run that is resumed had on such a device.
    """
    cores = set_threads(cfg.train.threads)
    device = device_of(model)
    if cfg.train.threads or cores == 1 or device.type != "cpu":
        return cores
    kept = set_threads(min(before or cores, cores))
    trial, dtype = Trial(cfg, model, rows), choose_precision(cfg.precision, device)
    if not trial.num_targets:
        return kept  # rows of padding alone tell nothing
    (first,) = median_seconds(device, lambda: trial.step(dtype), warm=1, timed=1)
    if trial.seconds_of_run(first) < LEAST_SECONDS:
        return kept
    return fastest_threads(trial, dtype, cores, kept=kept if before else None)


def fastest_threads(trial: Trial, dtype: torch.dtype, cores: int, *, kept: int | None) -> int:
    """Time some rows on every core, then on half as many as long as that gains, and set the best.

    Args:
        trial: the rows.
        dtype: of their products.
        cores: most threads.
        kept: what a run goes on with, unless another number is twice as quick.
    """
    seconds: dict[int, float] = {}

    def timed(threads: int) -> float:
        if threads not in seconds:
            set_threads(threads)
            (seconds[threads],) = median_seconds(
                torch.device("cpu"), lambda: trial.step(dtype), warm=1, timed=3
            )
        return seconds[threads]

    best = cores
    while best > 1 and timed(best // 2) <= (1 - LEAST_GAIN) * timed(best):
        best //= 2
    if kept is not None and timed(best) > (1 - GAIN_TO_CHANGE) * timed(kept):
        best = kept
    times = ", ".join(f"{n} {1000 * took:.1f} ms" for n, took in sorted(seconds.items()))
    log.debug("threads, %s: %s; taking %d", trial, times, best)
    return set_threads(best)


def watch_threads(
    cfg: RunConfig, engine: LocalEngine, rows: RowStream, run: Path, threads: int
) -> Callable[[int, float], bool] | None:  # fmt: skip
    """Watch the pace of a run that has no number of threads of its user's; None where it has.

    Args:
        cfg: the run.
        engine: what computes it.
        rows: its stream.
        run: its folder.
        threads: what was settled.
    """
    if cfg.train.threads or engine.device.type != "cpu" or available_cores() == 1:
        return None

    def trial() -> Trial:
        return Trial(cfg, engine.model, lambda n: rows.rows(0, n), compiled=engine.compiled)

    return ThreadWatch(trial, engine.dtype, run, threads).after_step


class ThreadWatch:
    """Sees a run slow down, measures again, and goes on with the better number of threads.

    Args:
        trial: makes the rows that are timed.
        dtype: of the run's products.
        run: the run's folder, whose run.json keeps what was changed from which step on.
        threads: what the run computes with.
    """

    def __init__(
        self, trial: Callable[[], Trial], dtype: torch.dtype, run: Path, threads: int
    ) -> None:
        self._trial, self._dtype, self._run, self._threads = trial, dtype, run, threads
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._best = 0.0
        self._measured = time.monotonic()

    def after_step(self, step: int, seconds: float) -> bool:
        """Take in how long a step took.

        Args:
            step: steps done.
            seconds: of a position, so that steps of any size compare.

        Returns:
            Whether time was spent on measuring.
        """
        self._recent.append(seconds)
        if len(self._recent) < WINDOW:
            return False
        now = statistics.median(self._recent)
        self._best = min(self._best or now, now)
        since, cores = time.monotonic() - self._measured, available_cores()
        fell = now > SLOWER * self._best and since >= LEAST_SECONDS
        if not fell and not (self._threads < cores and since >= LOOK_AGAIN_SECONDS):
            return False
        if fell:
            log.info("step %d: a step takes %.1f times what it took", step, now / self._best)
        trial = self._trial()
        if trial.num_targets:
            self._take(fastest_threads(trial, self._dtype, cores, kept=None), step)
        self._recent.clear()
        self._best, self._measured = 0.0, time.monotonic()
        return True

    def _take(self, threads: int, step: int) -> None:
        if threads == self._threads:
            return
        self._threads = threads
        change = ChangeEntry(step=step, values={"threads": threads})
        try:
            record = read_run(self._run)
            write_run(self._run, dataclasses.replace(
                record, threads=threads, changes=(*record.changes, change)
            ))  # fmt: skip
        except (OSError, CheckpointError) as error:  # it is no reason to end a run
            log.warning("run.json does not tell of %d threads (%s)", threads, error)
