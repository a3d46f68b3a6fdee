"""What a run folder tells about its run, however it ended.

A folder is read as a crash may leave it: without metrics, with a last line cut short, with numbers
that are not finite. Only run.json has to be whole, which is written in one piece.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from blankfill.errors import CheckpointError
from blankfill.metrics import StepSample, read_metrics, read_samples
from blankfill.runs import Evaluation, RunRecord, read_evaluation, read_run

__all__ = ["Point", "RunHistory", "read_history"]


log = logging.getLogger(__name__)


class Point(NamedTuple):
    """A value at a step."""

    step: float
    value: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RunHistory:
    """One run, as its folder tells it."""

    path: Path
    """Its folder."""
    info: RunRecord
    """What run.json says."""
    rows: list[dict[str, float]]
    """Lines of metrics.jsonl."""
    samples: list[StepSample]
    """Lines of samples.jsonl."""
    evaluation: Evaluation | None
    """Content of evaluation.json: held-out blanks beside n-gram models."""

    def points(self, key: str) -> list[Point]:
        """Give the finite values of a key, by step."""
        found = {row["step"]: row[key] for row in self.rows if _is_number(row.get(key))}
        return [Point(step, value) for step, value in sorted(found.items())]

    def last(self, key: str) -> float | None:
        """Give the last finite value of a key."""
        points = self.points(key)
        return points[-1].value if points else None

    def keys(self) -> set[str]:
        """Give every key that has a finite value somewhere."""
        return {key for row in self.rows for key, value in row.items() if _is_number(value)}

    def num_not_finite(self) -> int:
        """Count the values that are not finite numbers."""
        return sum(not _is_number(value) for row in self.rows for value in row.values())

    @property
    def step(self) -> int:
        """Last step of which there is a line."""
        return max((int(row["step"]) for row in self.rows), default=0)

    @property
    def positions_per_step(self) -> int:
        """Positions of one optimizer step."""
        train = self.info.config.train
        return train.batch_rows * train.row_length

    @property
    def sources(self) -> list[str]:
        """Names of the training stores, in the order of the run."""
        return [Path(store.path).name for store in self.info.data]

    def hours(self) -> list[Point]:
        """Give the training time in hours at each logged step, from the measured rates."""
        hours, before = 0.0, 0.0
        found: list[Point] = []
        for step, rate in self.points("positions_per_second"):
            if rate > 0:
                hours += (step - before) * self.positions_per_step / rate / 3600
            before = step
            found.append(Point(step, hours))
        return found


def read_history(run: Path) -> RunHistory:
    """Read a run folder.

    Raises:
        CheckpointError: the folder is not a run.
    """
    info = read_run(run)
    rows = [row for row in read_metrics(run) if _is_number(row["step"])]
    return RunHistory(
        path=run, info=info, rows=rows, samples=read_samples(run), evaluation=_evaluation(run)
    )


def _evaluation(run: Path) -> Evaluation | None:
    try:
        return read_evaluation(run)
    except CheckpointError as error:
        log.warning("%s; the report is made without it", error)
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and not isinstance(value, bool)
