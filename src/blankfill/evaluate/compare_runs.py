"""Runs compared by the answers that they left in their folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from blankfill.errors import CheckpointError
from blankfill.evaluate.compare import TaskDifference, compare_items, holm
from blankfill.runs.tasks import TASKS_FILE, TaskAnswers, TaskRecord, TaskScore, read_tasks

__all__ = ["ComparedTask", "Side", "compare_sides", "read_side"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One side of a comparison: a run, or several that are seeds of one."""

    path: Path
    """As it was named."""
    records: tuple[TaskRecord, ...]
    """Of each seed."""

    @property
    def num_seeds(self) -> int:
        """Runs that it consists of."""
        return len(self.records)


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedTask:
    """One task that both sides were asked."""

    score: TaskScore
    """What it is: that of the first run."""
    difference: TaskDifference
    """First side less second."""
    seed_spread: tuple[float | None, float | None]
    """Standard deviation of the score over the seeds of either side."""
    num_left_out: int
    """Items that not all runs were asked."""
    p_holm: float | None = None
    """Adjusted for all tasks."""


def read_side(path: Path) -> Side:
    """Read the answers of a run, or of all runs in a folder.

    Raises:
        CheckpointError: there are none, or they are damaged.
    """
    own = read_tasks(path)
    if own is not None:
        return Side(path=path, records=(own,))
    inner = sorted(folder for folder in path.iterdir() if (folder / TASKS_FILE).is_file())
    records = [read_tasks(folder) for folder in inner]
    if not records:
        raise CheckpointError(f"{path} has no {TASKS_FILE}, and no run in it has; first ask it "
                              "tasks: `blankfill evaluate RUN --tasks ...`")  # fmt: skip
    return Side(path=path, records=tuple(each for each in records if each is not None))


def compare_sides(first: Side, second: Side) -> list[ComparedTask]:
    """Compare two sides on each task that all of their runs were asked.

    Raises:
        CheckpointError: there is no such task, or its files differ.
    """
    one, other = _by_name(first), _by_name(second)
    names = [name for name in one if name in other]
    if not names:
        raise CheckpointError(
            f"{first.path} and {second.path} were asked no task alike (the same task, protocol and "
            "number of examples); ask both the same with `blankfill evaluate`"
        )
    found = [_compare(first, one[name], second, other[name]) for name in names]
    adjusted = holm([each.difference.p for each in found])
    return [
        ComparedTask(
            score=each.score, difference=each.difference, seed_spread=each.seed_spread,
            num_left_out=each.num_left_out, p_holm=p,
        )
        for each, p in zip(found, adjusted, strict=True)
    ]  # fmt: skip


def _by_name(side: Side) -> dict[tuple[str, str, int, str], list[TaskAnswers]]:
    """Give the answers of all seeds by what was asked, where all were asked it."""
    found: dict[tuple[str, str, int, str], list[TaskAnswers]] = {}
    for record in side.records:
        for answers in record.tasks:
            found.setdefault(answers.score.name, []).append(answers)
    return {name: answers for name, answers in found.items() if len(answers) == side.num_seeds}


def _compare(
    first: Side, one: Sequence[TaskAnswers], second: Side, other: Sequence[TaskAnswers]
) -> ComparedTask:
    everyone = [*one, *other]
    score = one[0].score
    if len({each.fingerprint for each in everyone}) > 1:
        raise CheckpointError(
            f"{first.path} and {second.path} were asked other items as {score.task}: the files "
            "differ; ask both those of one file"
        )
    numbers = sorted(set.intersection(*(set(each.numbers) for each in everyone)))
    if not numbers:
        raise CheckpointError(f"{first.path} and {second.path} were asked no item of {score.task} "
                              "alike; ask both the same with `blankfill evaluate`")  # fmt: skip
    rows = [_at(each, numbers) for each in everyone]
    values = np.array([each[0] for each in rows])
    sizes, clusters = rows[0][1], rows[0][2]
    a, b = values[: len(one)], values[len(one) :]
    difference = compare_items(
        a.mean(0), b.mean(0), clusters, None if everyone[0].sizes is None else sizes
    )
    return ComparedTask(
        score=score, difference=difference,
        seed_spread=(_spread(a, sizes), _spread(b, sizes)),
        num_left_out=len(set().union(*(each.numbers for each in everyone))) - len(numbers),
    )  # fmt: skip


def _at(answers: TaskAnswers, numbers: Sequence[int]) -> tuple[list[float], list[float], list[int]]:
    """Give values, sizes and clusters of some items."""
    place = {number: k for k, number in enumerate(answers.numbers)}
    chosen = [place[number] for number in numbers]
    sizes = answers.sizes or (1.0,) * len(answers.values)
    return (
        [answers.values[k] for k in chosen], [sizes[k] for k in chosen],
        [answers.clusters[k] for k in chosen],
    )  # fmt: skip


def _spread(values: np.ndarray, sizes: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    return float((values.sum(1) / np.sum(sizes)).std(ddof=1))
