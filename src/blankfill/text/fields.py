"""Which field of a record holds its text, and which the answer; and whether any record has them.

A field's name is a key of the record. Where there is no such key, its dots lead into nested
objects: `doc.text` is the field `text` of the field `doc`. A key that holds a dot itself wins.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeGuard, cast

from blankfill.errors import DataError

__all__ = [
    "FieldCheck", "Fields", "NoColumnError", "field_names", "find_field", "list_names",
    "name_fields",
]  # fmt: skip

log = logging.getLogger(__name__)

_MOST_NAMES = 10
_NAME_LENGTH = 40
_WARN_AFTER = 10_000  # records without an answer; the warning need not wait for the end


class NoColumnError(Exception):
    """A table has no column of the name that was asked for."""


class Fields(NamedTuple):
    """The fields that are read."""

    text: str = "text"
    """The one that holds the text."""
    answer: str = ""
    """The one that holds the answer of a pair; "" where none is asked for."""


def find_field(value: Mapping[str, object], name: str) -> tuple[bool, object]:
    """Look a field up.

    Returns:
        Whether it is there, and its value; a nested field of null is not there.
    """
    if name in value:
        return True, value[name]
    head, dot, rest = name.rpartition(".")
    tail = [rest]
    while dot:
        inner = value.get(head)
        if _is_object(inner):
            there, found = find_field(inner, ".".join(tail))
            if there:
                return True, found
        head, dot, rest = head.rpartition(".")
        tail.insert(0, rest)
    return False, None


def field_names(data: bytes) -> list[str]:
    """Name the fields of a JSON object; none where it is not one."""
    try:
        value: object = json.loads(data.decode(), parse_int=float)
    except (ValueError, RecursionError):
        return []
    return _paths(value) if _is_object(value) else []


def _paths(value: Mapping[str, object]) -> list[str]:
    """Name the fields of a record, those of nested objects with dots."""
    paths: list[str] = []
    for key, inner in value.items():
        if _is_object(inner) and inner:
            paths += [f"{key}.{name}" for name in inner]
        else:
            paths.append(key)
        if len(paths) > _MOST_NAMES:
            break
    return paths


def _is_object(value: object) -> TypeGuard[dict[str, object]]:
    """Whether a value of a JSON record is an object; its keys are texts then."""
    return isinstance(value, dict)


def list_names(names: Sequence[str]) -> str:
    """Write some names for a message, few and short."""
    listed = ", ".join(_short(name) for name in names[:_MOST_NAMES])
    return listed + (", ..." if len(names) > _MOST_NAMES else "") if names else "none"


def _short(name: str) -> str:
    # As a literal where it holds anything that a terminal would act on or UTF-8 cannot hold.
    name = name if name.isprintable() and name else ascii(name)
    return name if len(name) <= _NAME_LENGTH else name[:_NAME_LENGTH] + "..."


def name_fields(value: Mapping[str, object]) -> str:
    """Say which fields a record has, and whether one of them is the array of the real records."""
    said = f"its fields are {list_names(_paths(value))}"
    for key, inner in value.items():
        if isinstance(inner, list) and inner and _is_object(cast("list[object]", inner)[0]):
            name = _short(key)
            return f"{said}; if {name} is the array of records, give that as a file of its own"
    return said


@dataclass(slots=True)
class FieldCheck:
    """Whether any record had the fields that were asked for: a misspelt name must not pass."""

    fields: Fields
    seen: list[str] = field(default_factory=list)
    """Fields of the first record; empty where there is none."""
    seen_in: str = ""
    """The file of the first record, as a message shows it."""
    num_texts: int = 0
    """Records that had a text."""
    num_answers: int = 0
    """Of these, how many had the field of the answer, even if it was empty."""
    num_pairs: int = 0
    """Of these, how many had an answer in it."""
    has_json_in_text: bool = False
    """Whether a file that is named as text begins as JSON lines do."""

    def see(self, path: str, names: list[str]) -> None:
        """Keep the fields of the first record that has any, and the file (`shown`) of it."""
        if names and not self.seen:
            self.seen, self.seen_in = names, path

    def add(self, *, has_answer: bool, is_pair: bool) -> None:
        """Count a record with a text; whether it has the answer's field, and anything in it."""
        self.num_texts += 1
        self.num_answers += has_answer
        self.num_pairs += is_pair
        if self.fields.answer and self.num_texts == _WARN_AFTER and not self.num_answers:
            log.warning("no record of the first %d has the field %r; %s",
                        _WARN_AFTER, self.fields.answer, self._there())  # fmt: skip

    def finish(self) -> None:
        """Check at the end of an input that gave documents.

        Raises:
            DataError: no record has the text's field, which was named; or none has the answer's.
        """
        there = self._there()
        name = self.fields.text
        if self.seen and not self.num_texts:
            said = f"no record has a text in the field {name!r}; {there}"
            if name != Fields().text:
                raise DataError(f"{said}; name one of them with --text-field")
            log.warning("%s (--text-field)", said)
        if not self.fields.answer or self.num_pairs:
            return
        if self.num_answers:
            log.warning("no pair found: the field %r holds nothing in any record, so all of it is "
                        "plain text", self.fields.answer)  # fmt: skip
            return
        raise DataError(
            f"no pair found: no record has the field {self.fields.answer!r}; {there}; name one of "
            "them with --answer-field, or leave it out"
        )

    def _there(self) -> str:
        where = f" (in {self.seen_in})" if self.seen_in else ""
        return f"the fields there are: {list_names(self.seen)}{where}"
