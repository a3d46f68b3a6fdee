"""Tasks of `blankfill evaluate`: items of benchmarks asked of runs, and runs compared by them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blankfill.errors import CheckpointError, ConfigError
from blankfill.results import short_repr

if TYPE_CHECKING:
    from blankfill.evaluate.asking import EncodedTask
    from blankfill.evaluate.compare import TaskDifference
    from blankfill.evaluate.task_files import AskedTask
    from blankfill.generate import LanguageModel
    from blankfill.runs import Place, RunRecord
    from blankfill.runs.tasks import TaskAnswers, TaskScore

__all__ = [
    "RunTasks",
    "TaskComparison",
    "ask_run",
    "compare_runs",
    "encode_tasks",
    "find_seen_items",
    "read_tasks_of",
    "require_two",
]

log = logging.getLogger(__name__)

NAMED_BAD = 3
"""Items of a task that cannot be asked which are named; the others are counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunTasks:
    """One run's scores on tasks."""

    run: str
    """The run's folder."""
    step: int
    """Optimizer steps of the checkpoint that was asked."""
    scores: tuple[TaskScore, ...]
    """One for each task and metric."""
    notes: tuple[str, ...] = ()
    """Items that could not be asked, and why."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskComparison:
    """Two runs on one task that both were asked."""

    task: str
    """Name of the task."""
    language: str
    """Language of its items."""
    protocol: str
    """How they were asked."""
    shots: int
    """Solved examples before each item."""
    metric: str
    """What is compared."""
    difference: TaskDifference
    """First run less second."""
    p_holm: float | None
    """Its p-value, adjusted for all tasks that are compared (Holm)."""
    num_seeds: tuple[int, int]
    """Runs that either side consists of: seeds of one."""
    seed_spread: tuple[float | None, float | None] = (None, None)
    """Standard deviation of the score over the seeds of either side; None of one seed."""
    num_left_out: int = 0
    """Items that one side alone was asked."""

    __repr__ = short_repr


def read_tasks_of(
    words: Sequence[str], items: Path | None, *, protocol: str, shots: int | None,
    max_items: int | None, seed: int,
) -> list[AskedTask]:  # fmt: skip
    """Read the items of all tasks that are named.

    Raises:
        ConfigError: there is no such task or file.
        DataError: a file cannot be read, or nothing of it can be asked.
    """
    from blankfill import progress
    from blankfill.evaluate.protocol import PROTOCOLS
    from blankfill.evaluate.task_files import find_task_files, read_task

    files = find_task_files(words, items)
    with progress.bar("items", len(files), "tasks") as meter:
        found: list[AskedTask] = []
        for task, path in files:
            found.append(
                read_task(
                    task, path, PROTOCOLS[protocol], shots=shots, max_items=max_items, seed=seed
                )
            )
            meter.advance()
    return found


def encode_tasks(
    run: Path, record: RunRecord, asked: Sequence[AskedTask]
) -> list[EncodedTask]:  # fmt: skip
    """Encode tasks for a run, before its weights are read.

    Raises:
        DataError: a task has no item that has room in the run's rows.
        CheckpointError: the run's tokenizer cannot be read.
    """
    from blankfill import progress
    from blankfill.evaluate.asking import encode_task
    from blankfill.generate.loading import load_run_tokenizer

    tokenizer = load_run_tokenizer(run, record)
    row_length = min(record.config.train.row_length, record.config.model.max_position)
    with progress.bar("items as tokens", len(asked), "tasks") as meter:
        found: list[EncodedTask] = []
        for task in asked:
            found.append(encode_task(task, tokenizer, row_length))
            meter.advance()
    return found


def find_seen_items(
    paths: Sequence[Path], asked: Sequence[AskedTask]
) -> list[Sequence[bool | None]] | None:
    """Tell of each task's items which ones training stores have seen; None where there is no store.

    Raises:
        DataError: a store or its tokenizer cannot be read.
    """
    if not paths:
        return None
    from blankfill.evaluate.seen import find_seen
    from blankfill.prepare import open_stores_apart

    texts = [of for task in asked for of in task.texts]
    answers = iter(find_seen(open_stores_apart(paths), texts))
    return [[next(answers) for _ in task.texts] for task in asked]


def ask_run(
    lm: LanguageModel, place: Place, tasks: Sequence[EncodedTask],
    seen: Sequence[Sequence[bool | None]] | None, *, weights: str,
) -> RunTasks:  # fmt: skip
    """Ask a run all tasks, and leave its answers in its tasks.json, after each task."""
    from blankfill.evaluate.task_scores import answer_task

    scores: list[TaskScore] = []
    notes: list[str] = []
    for k, task in enumerate(tasks):
        answers = answer_task(lm, task, weights=weights, seen=None if seen is None else seen[k])
        _record(place.run, answers)
        scores += [each.score for each in answers]
        bad = answers[0].bad
        if bad:
            more = f", and {len(bad) - NAMED_BAD:,} more" if len(bad) > NAMED_BAD else ""
            notes.append(
                f"{task.asked.path}: {len(bad):,} items are left out: "
                f"{'; '.join(bad[:NAMED_BAD])}{more}"
            )
            log.warning("%s", notes[-1])
    return RunTasks(run=str(place.run), step=lm.step, scores=tuple(scores), notes=tuple(notes))


def compare_runs(paths: Sequence[Path]) -> list[TaskComparison]:
    """Compare two runs, or two folders of runs that are seeds of one, by their recorded answers.

    Args:
        paths: two of them (`require_two`).

    Raises:
        CheckpointError: a folder holds no run with recorded answers, or they have no task alike.
    """
    from blankfill.evaluate.compare_runs import compare_sides, read_side

    first, second = (read_side(path) for path in paths)
    found = compare_sides(first, second)
    return [
        TaskComparison(
            task=each.score.task, language=each.score.language, protocol=each.score.protocol,
            shots=each.score.shots, metric=each.score.metric, difference=each.difference,
            p_holm=each.p_holm, num_seeds=(first.num_seeds, second.num_seeds),
            seed_spread=each.seed_spread, num_left_out=each.num_left_out,
        )
        for each in found
    ]  # fmt: skip


def require_two(paths: Sequence[Path]) -> None:
    """Check that two sides are compared, before anything is asked.

    Raises:
        ConfigError: there are not two.
        CheckpointError: one is no folder.
    """
    if len(paths) != 2:
        raise ConfigError(f"compare: {len(paths)} folders were named, and two are compared; name "
                          "two runs, or two folders of runs that are seeds of one")  # fmt: skip
    gone = next((path for path in paths if not path.is_dir()), None)
    if gone is not None:
        raise CheckpointError(f"compare: there is no such folder: {gone}; name a run that was "
                              "asked with --tasks")  # fmt: skip


def _record(run: Path, answers: Sequence[TaskAnswers]) -> None:
    from blankfill.runs.tasks import TaskRecord, read_tasks, write_tasks

    record = (read_tasks(run) or TaskRecord()).with_answers(answers)
    try:
        write_tasks(run, record)
    except OSError as error:
        log.warning("the answers are not recorded in %s (%s)", run, error)
