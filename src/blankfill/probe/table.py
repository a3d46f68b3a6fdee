"""Items of a probe: rows of a file, cleaned, with what was left out counted and named.

A text is a field, or a pattern of fields: `{question} {passage:400} [MASK]` puts two together, the
first 400 characters of one of them, and a blank at the end.

Shapes: n items.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, cast

from blankfill.errors import DataError
from blankfill.text.corpus import read_records
from blankfill.text.fields import FieldCheck, Fields, find_field, list_names, name_fields
from blankfill.text.options import TextOptions
from blankfill.text.records import Skips, shown

__all__ = ["Columns", "Table", "Value", "fields_of", "read_table"]

Value = str | float | bool
T = TypeVar("T")
MOST_NAMED = 20
"""Rows that were left out and are named."""
_FIELD = re.compile(r"\{([^{}:]+)(?::(\d+))?\}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Items, and what became of the others."""

    places: list[str]
    """`[n]` file and line."""
    texts: list[str]
    """`[n]`."""
    targets: list[Value]
    """`[n]` all numbers, or all words; true and false are words."""
    groups: list[str]
    """`[n]`; items of equal text are of one group."""
    exposures: list[float]
    """`[n]`; ones where there are none."""
    folds: list[str]
    """`[n]` names of given folds; empty where none are."""
    read: int
    unreadable: int
    missing: dict[str, int]
    duplicates: int
    contradictions: int
    first: tuple[str, ...]
    """Rows that were left out, each with its place and the reason."""

    def take(self, kept: Sequence[bool], reasons: Sequence[str]) -> Table:
        """Leave some items out, for reasons that are named beside the others."""

        def of(values: list[T]) -> list[T]:
            return [value for value, stays in zip(values, kept, strict=True) if stays]

        return replace(
            self, places=of(self.places), texts=of(self.texts), targets=of(self.targets),
            groups=of(self.groups), exposures=of(self.exposures),
            folds=of(self.folds) if self.folds else [],
            first=(*self.first, *reasons)[:MOST_NAMED],
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """Which fields are read."""

    text: str
    """A field or a pattern."""
    target: str
    group: str | None = None
    exposure: str | None = None
    fold: str | None = None

    @property
    def named(self) -> dict[str, str]:
        """Give each field and the option that names it."""
        found = dict.fromkeys(fields_of(self.text), "--text")
        for name, option in (
            (self.target, "--target"), (self.group, "--group"), (self.exposure, "--exposure"),
            (self.fold, "--fold-by"),
        ):  # fmt: skip
            if name is not None:
                found[name] = option
        return found


def fields_of(pattern: str) -> list[str]:
    """Name the fields of a text's pattern; a pattern without braces is the name of a field."""
    found = [name for name, _ in _FIELD.findall(pattern)]
    return found or [pattern]


def read_table(path: Path, columns: Columns) -> Table:
    """Read and clean the items of a file of JSON objects.

    Rows that lack a field, and repeated ones, are left out, counted, and the first of them named.

    Raises:
        DataError: the file is not of JSON, no row has a field that was named, a value is not of its
            kind or not finite, or equal texts are of different groups.
    """
    rows, places, unreadable = _read(path)
    if not rows:
        raise DataError(f"{shown(path)} holds no JSON object; give one a line, with the fields "
                        f"{list_names(list(columns.named))}")  # fmt: skip
    for name, option in columns.named.items():
        if not any(find_field(row, name)[0] for row in rows):
            raise DataError(f"no row of {shown(path)} has the field {name!r} ({option}); "
                            f"{name_fields(rows[0])}")  # fmt: skip
    return _cleaned(rows, places, unreadable, columns)


def _read(path: Path) -> tuple[list[dict[str, object]], list[str], int]:
    skips, rows, places = Skips(), list[dict[str, object]](), list[str]()
    unreadable = 0
    for record in read_records([path], TextOptions(), check=FieldCheck(Fields()), skips=skips):
        if record.kind != "JSON":
            raise DataError(f"{shown(path)} is {record.kind}, and a probe reads JSON; give one "
                            "object a line, in a file that ends in .jsonl")  # fmt: skip
        try:
            value: object = json.loads(record.data.decode())
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            unreadable += 1
            continue
        rows.append(cast("dict[str, object]", value))
        places.append(f"{shown(record.file)}:{record.line}")
    if skips.total and not rows:
        raise DataError(f"{skips.first[0]}")
    return rows, places, unreadable + skips.total


def _cleaned(
    rows: list[dict[str, object]], places: list[str], unreadable: int, columns: Columns
) -> Table:
    made = _Cleaning(columns)
    for row, place in zip(rows, places, strict=True):
        made.add(row, place)
    if not made.texts:
        raise DataError(f"no row has all of {list_names(list(columns.named))}; the first: "
                        f"{made.first[0] if made.first else places[0]}")  # fmt: skip
    _require_one_kind(made.targets, made.places, columns.target)
    groups = made.groups if columns.group is not None else made.texts
    return Table(
        places=made.places, texts=made.texts, targets=made.targets, groups=groups,
        exposures=made.exposures, folds=made.folds, read=len(rows) + unreadable,
        unreadable=unreadable, missing=made.missing, duplicates=made.duplicates,
        contradictions=made.contradictions, first=tuple(made.first),
    )  # fmt: skip


class _Cleaning:
    """Rows so far."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self.texts, self.places, self.groups = list[str](), list[str](), list[str]()
        self.targets, self.exposures, self.folds = list[Value](), list[float](), list[str]()
        self.missing: dict[str, int] = {}
        self.duplicates = self.contradictions = 0
        self.first: list[str] = []
        self._seen: dict[str, int] = {}
        self._pairs: set[tuple[str, str]] = set()

    def add(self, row: dict[str, object], place: str) -> None:
        """Take a row, or count why not."""
        for name in self._columns.named:
            there, value = find_field(row, name)
            if not there or value is None or (isinstance(value, str) and not value.strip()):
                self.missing[name] = self.missing.get(name, 0) + 1
                self._leave_out(place, f"nothing in the field {name!r}")
                return
        text = _text(row, self._columns.text, place)
        target = _value(row, self._columns.target, place)
        if (text, repr(target)) in self._pairs:
            self.duplicates += 1
            self._leave_out(place, f"the same text and target as {self._place_of(text)}")
            return
        group = text if self._columns.group is None else _word(row, self._columns.group, place)
        if text in self._seen:
            self.contradictions += 1
            before = self._seen[text]
            if self._columns.group is not None and self.groups[before] != group:
                raise DataError(
                    f"{self._place_of(text)} and {place} have one text and the groups "
                    f"{self.groups[before]!r} and {group!r}, so folds would share it; put them in "
                    "one group, or leave --group out"
                )
        self._pairs.add((text, repr(target)))
        self._seen.setdefault(text, len(self.texts))
        self.texts.append(text)
        self.targets.append(target)
        self.groups.append(group)
        self.places.append(place)
        self.exposures.append(_exposure(row, self._columns.exposure, place))
        if self._columns.fold is not None:
            self.folds.append(_word(row, self._columns.fold, place))

    def _place_of(self, text: str) -> str:
        return self.places[self._seen[text]]

    def _leave_out(self, place: str, reason: str) -> None:
        if len(self.first) < MOST_NAMED:
            self.first.append(f"{place}: {reason}")


def _text(row: dict[str, object], pattern: str, place: str) -> str:
    if not _FIELD.search(pattern):
        return _word(row, pattern, place)

    def put(found: re.Match[str]) -> str:
        word = _word(row, found[1], place)
        return word[: int(found[2])] if found[2] else word

    return _FIELD.sub(put, pattern)


def _word(row: dict[str, object], name: str, place: str) -> str:
    _, value = find_field(row, name)
    if isinstance(value, list | dict):
        raise DataError(f"{place}: the field {name!r} is a list or an object, not a text; name a "
                        "field inside it, such as a.b, or make one of it")  # fmt: skip
    text = value if isinstance(value, str) else json.dumps(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{place}: the field {name!r} holds half of a surrogate pair; write it as "
                        "UTF-8") from error  # fmt: skip
    return text


def _value(row: dict[str, object], name: str, place: str) -> Value:
    _, value = find_field(row, name)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return _finite(value, name, place)
    return _word(row, name, place)


def _exposure(row: dict[str, object], name: str | None, place: str) -> float:
    if name is None:
        return 1.0
    _, value = find_field(row, name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{place}: the exposure {name!r} is not a number; give a length or a time")
    number = _finite(value, name, place)
    if number <= 0:
        raise DataError(f"{place}: the exposure {name!r} is {number:g} and must be above 0; leave "
                        "such rows out")  # fmt: skip
    return number


def _finite(value: float, name: str, place: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise DataError(f"{place}: the field {name!r} is {value if number != number else number}, "
                        "which is no number to fit; correct it, or leave the row out")  # fmt: skip
    return number


def _require_one_kind(targets: Sequence[Value], places: Sequence[str], name: str) -> None:
    words = [isinstance(target, str) for target in targets]
    if any(words) and not all(words):
        odd = words.index(not words[0])
        raise DataError(f"{places[odd]}: the field {name!r} is {targets[odd]!r}, unlike the "
                        "rows before; give all numbers, or all words")  # fmt: skip
