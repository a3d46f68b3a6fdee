"""A task as a frozen value, and the questions that its items become.

A task says which fields an item has, how it is put in words around one blank, which candidates may
stand in the blank (or that the model writes it), what its right answer is, and what it is measured
by. A line of a file is one item, or a passage with several (`unfold.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from blankfill.errors import RequestError
from blankfill.text.user_text import checked

__all__ = [
    "BLANK",
    "BadItemError",
    "Metric",
    "Question",
    "Record",
    "Task",
    "Wording",
    "ask",
    "one_record",
    "texts_of",
]

BLANK = "[MASK]"
"""Where the blank of a wording stands; in an item's own text it is text."""

Record = Mapping[str, object]
"""The fields of one item."""
Unfold = Callable[[Record, int, Sequence[Record]], Iterable[Record]]
"""Makes the items of a line: given the line, its number and all lines of the file."""
Metric = Literal["accuracy", "exact", "first word", "bits per byte"]
"""What a task is measured by: the right candidate, the whole answer, its first word, a text."""


class BadItemError(ValueError):
    """An item cannot be asked; the message says why and begins with what is wrong."""


def one_record(line: Record, number: int, lines: Sequence[Record]) -> Iterable[Record]:
    """Take a line as one item."""
    del number, lines
    return (line,)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wording:
    """How the items of a task are put in one language."""

    prompt: str
    """Text with one `[MASK]` and with fields as `{name}`."""
    candidates: tuple[str, ...] = ()
    """What may stand in the blank of every item; empty where each item has its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What is asked of the items of a file."""

    name: str
    """Also that of its file, without endings."""
    language: str
    """Language of its items."""
    fields: tuple[str, ...]
    """Fields that each line must have, with its text; `--seen` reads these."""
    wordings: Mapping[str, Wording]
    """By language: that of the items, and English too where they are Chinese."""
    metric: Metric = "accuracy"
    """What it is measured by."""
    options: tuple[str, ...] = ()
    """The field that lists an item's candidates, or a field for each candidate."""
    answer: str = "label"
    """The field that holds the right answer; empty where it is always the first candidate."""
    labels: tuple[object, ...] = ()
    """Values of the answer, in the order of the wording's candidates. Where there are none, the
    answer is a candidate's number from 0, or its text."""
    cluster: str = ""
    """The field that items which are not independent share; the line where not given."""
    examples: tuple[str, ...] = ()
    """Values of `split` whose items are examples for few-shot prompts alone."""
    unfold: Unfold = one_record
    """Makes the items of a line."""
    max_new_tokens: int = 32
    """Longest answer that a model writes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One item, put in words."""

    before: str
    """Text before the blank, without a space at its end."""
    after: str = ""
    """Text after it."""
    candidates: tuple[str, ...] = ()
    """What may stand in the blank, with the space before it; none where the model writes."""
    answer: int = 0
    """The right candidate."""
    answers: tuple[str, ...] = ()
    """Right answers where the model writes."""
    cluster: str
    """Equal in questions that are not independent."""
    label: str = ""
    """The class of the right answer, for the majority baseline."""


def ask(task: Task, record: Record, wording: Wording, line: int) -> Question:
    """Put one item in words.

    Args:
        task: what is asked.
        record: the item, from `task.unfold`.
        wording: in which words.
        line: number of its line, from 0.

    Raises:
        BadItemError: a field is missing, or the answer is none of the candidates.
    """
    left, _, right = wording.prompt.partition(BLANK)
    before, after = _filled(left, record), _filled(right, record)
    cluster = str(_value(record, task.cluster)) if task.cluster else f"line {line}"
    if task.metric == "bits per byte":
        if not before.strip():
            raise BadItemError("its text is empty")
        return Question(before=before, cluster=cluster)
    space = " " if before.endswith(" ") else ""
    before = before.removesuffix(" ")
    if task.metric != "accuracy":
        answers = tuple(_texts(_value(record, task.answer), task.answer))
        return Question(before=before, after=after, answers=answers, cluster=cluster)
    candidates = wording.candidates or _options(task, record)
    answer = _answer(task, record, candidates)
    if len(set(candidates)) < 2:
        raise BadItemError("it has no two different candidates to choose from")
    return Question(
        before=before, after=after, answer=answer, cluster=cluster,
        candidates=tuple(space + each for each in candidates),
        label=candidates[answer] if wording.candidates else str(answer) if task.answer else "",
    )  # fmt: skip


def texts_of(record: Record, fields: Sequence[str]) -> list[str]:
    """Give all texts in some fields of a line, also those in lists and objects."""
    found: list[str] = []
    waiting = [record.get(name) for name in fields]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, list):
            waiting += cast("list[object]", value)
        elif isinstance(value, dict):
            waiting += cast("dict[str, object]", value).values()
    return found


def _filled(template: str, record: Record) -> str:
    """Put an item's fields into a part of a wording."""
    return _unicode(template.format_map(_Fields(record)))


def _unicode(text: str) -> str:
    try:
        return checked(text)
    except RequestError as error:
        raise BadItemError(f"it holds a text that is not valid Unicode ({text[:20]!r})") from error


class _Fields(dict[str, str]):
    """The fields of an item as texts."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self._record = record

    def __missing__(self, name: str) -> str:
        value = _value(self._record, name)
        if not isinstance(value, str | int | float):
            raise BadItemError(f"its field {name!r} is no text")
        return str(value)


def _value(record: Record, name: str) -> object:
    value = record.get(name)
    if value is None:
        raise BadItemError(f"it has no field {name!r}")
    return value


def _options(task: Task, record: Record) -> tuple[str, ...]:
    """Give an item's own candidates."""
    if len(task.options) == 1:
        return tuple(_texts(_value(record, task.options[0]), task.options[0]))
    return tuple(
        text for name in task.options for text in _texts(_value(record, name), name)
    )  # fmt: skip


def _texts(value: object, name: str) -> list[str]:
    """Take a text, or a list of texts, none of them empty."""
    texts = cast("list[object]", value) if isinstance(value, list | tuple) else [value]
    if not texts:
        raise BadItemError(f"its field {name!r} is empty")
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise BadItemError(f"its field {name!r} holds something that is no text, or is empty")
    return [_unicode(text) for text in cast("list[str]", texts)]


def _answer(task: Task, record: Record, candidates: Sequence[str]) -> int:
    """Find the number of the right candidate."""
    if not task.answer:
        return 0
    value = _value(record, task.answer)
    if isinstance(value, list) and len(cast("list[object]", value)) == 1:
        (value,) = cast("list[object]", value)
    if task.labels:
        # Whole numbers are written as numbers or as texts, truth values as either.
        known = [str(label).lower() for label in task.labels]
        said = str(value).lower()
        if said not in known:
            raise BadItemError(
                f"its answer {value!r} is none of {', '.join(map(str, task.labels))}"
            )
        return known.index(said)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(candidates):
        return value
    if isinstance(value, str) and value in candidates:
        return candidates.index(value)
    raise BadItemError(
        f"its answer {str(value)[:40]!r} is not among its {len(candidates)} candidates"
    )
