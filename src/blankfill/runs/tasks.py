"""What `blankfill evaluate --tasks` leaves in a run's folder: tasks.json, as values.

Beside each score stand the answers that it comes of, item by item, so that two runs can be compared
on the very items that both were asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blankfill.atomic import new_file
from blankfill.disk.json_files import Description, encode, read_object
from blankfill.disk.typed_json import from_json, to_json
from blankfill.errors import CheckpointError
from blankfill.results import short_repr
from blankfill.runs.evaluation import Estimate

__all__ = [
    "TASKS_FILE",
    "SeenItems",
    "TaskAnswers",
    "TaskEstimate",
    "TaskRecord",
    "TaskScore",
    "read_tasks",
    "write_tasks",
]

TASKS_FILE = "tasks.json"
"""Its name in a run's folder."""
_TASKS = Description("format", "blankfill tasks", 1, {}, oldest=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskEstimate(Estimate):
    """A score over items: a ratio of sums, such as the share of right answers.

    For its standard error items that share a passage are taken together.
    """

    low: float | None = None
    """Lower end of the 95 % interval."""
    high: float | None = None
    """Its upper end."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenItems:
    """Items of a task that training text holds."""

    num_seen: int
    """Items that share 13 words or Chinese characters in a row with it."""
    num_short: int
    """Items that have no 13 in a row, of which it cannot be told."""
    without: TaskEstimate | None = None
    """The score without those that were seen; None where none is left."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskScore:
    """How one run did on one task."""

    task: str
    """Name of the task."""
    language: str
    """Language of its items."""
    protocol: str
    """How they were asked."""
    shots: int
    """Solved examples before each item."""
    metric: str
    """accuracy, exact, f1, first word or bits per byte."""
    score: TaskEstimate
    """The score, with its error and interval."""
    num_items: int
    """Items that were scored."""
    num_clusters: int
    """Passages that they are of: the clusters of the error."""
    random: float | None = None
    """What guessing gives; None where that is no choice."""
    majority: float | None = None
    """What always giving the most frequent answer gives; None where there is no such thing."""
    num_bad: int = 0
    """Items that could not be asked."""
    num_shortened: int = 0
    """Items of which the model read less than there is, because its rows hold no more."""
    seen: SeenItems | None = None
    """Which items training text holds, where that was looked up."""

    __repr__ = short_repr

    @property
    def name(self) -> tuple[str, str, int, str]:
        """What makes it comparable: task, protocol, shots and metric."""
        return self.task, self.protocol, self.shots, self.metric


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskAnswers:
    """What a score comes of, item by item."""

    score: TaskScore
    """The score."""
    fingerprint: str
    """SHA-256 of the file's lines."""
    step: int
    """Optimizer steps of the checkpoint that answered."""
    weights: str
    """The last weights, or their moving average (`ema`)."""
    numbers: tuple[int, ...]
    """Of each item its number in the file."""
    values: tuple[float, ...]
    """Of each what is summed above the line, such as 1 where the answer is right."""
    sizes: tuple[float, ...] | None = None
    """Of each what is summed below the line; None where that is 1."""
    clusters: tuple[int, ...]
    """Of each the number of its passage."""
    bad: tuple[str, ...] = ()
    """Items that could not be asked, and why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRecord:
    """All tasks that a run was asked; of each the last time."""

    tasks: tuple[TaskAnswers, ...] = ()
    """By task, protocol, shots and metric."""

    def with_answers(self, answers: Sequence[TaskAnswers]) -> TaskRecord:
        """Put in answers, in the place of earlier ones to the same."""
        new = {each.score.name: each for each in answers}
        kept = [each for each in self.tasks if each.score.name not in new]
        return TaskRecord(tasks=(*kept, *new.values()))


def write_tasks(run: Path, record: TaskRecord) -> None:
    """Write a run's tasks.json.

    Raises:
        OSError: the folder does not take it.
    """
    value = {"format": _TASKS.value, "version": _TASKS.version, **to_json(record)}
    with new_file(run / TASKS_FILE) as temporary:
        temporary.write_bytes(
            encode(value, indent=None)
        )  # a line for each answer would be too many


def read_tasks(run: Path) -> TaskRecord | None:
    """Read what `blankfill evaluate --tasks` has recorded of a run; None where it has not.

    Raises:
        CheckpointError: tasks.json is damaged, or another's.
    """
    path = run / TASKS_FILE
    try:
        record = from_json(TaskRecord, read_object(path, _TASKS))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise CheckpointError(
            f"{path} is not what `blankfill evaluate --tasks` writes: {error}; move it away and "
            "evaluate the run again"
        ) from error
    for each in record.tasks:
        lengths = {len(each.numbers), len(each.values), len(each.clusters)}
        if len(lengths | ({len(each.sizes)} if each.sizes is not None else set())) > 1:
            raise CheckpointError(f"{path}: {each.score.task} has not as many answers as "
                                  "items; move it away and evaluate the run again")  # fmt: skip
    return record
