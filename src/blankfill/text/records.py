"""What a file gives, document by document: its bytes, then its text or the reason why not.

A `Record` is the bytes of one document, a `Document` its text. Between them stands `parse_record`,
which can run in another process; what cannot be used is a `Skipped`, counted by `Skips`.
"""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass, field
from typing import NamedTuple

from blankfill.errors import DataError
from blankfill.text.language import language_code

__all__ = ["Document", "Record", "Skipped", "Skips", "parse_record"]

_FIRST_CASES = 20
_NUL_SHARE = 0.25  # a UTF-16 file of English has one NUL for each letter; text has next to none


class Document(NamedTuple):
    """One document."""

    text: str
    """What it says, exactly."""
    language: int
    """Index into `LANGUAGES`."""
    where: str
    """File and line."""
    num_bytes: int
    """Length in UTF-8, that of the answer included."""
    answer: str = ""
    """Of a pair, what its text asks for."""


class Record(NamedTuple):
    """The bytes of a document, not yet understood."""

    data: bytes
    """One line of JSON, or text in UTF-8."""
    is_json: bool
    """Whether it is a line of JSON."""
    file: str
    """Where it is from."""
    line: int
    """Line, row or piece of it, from 1; 0 is the whole file."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that could not be used."""

    file: str
    """Where it is."""
    line: int
    """Line or row, from 1; 0 is the whole file."""
    reason: str
    """Why, in a few words."""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.reason}"


@dataclass(slots=True)
class Skips:
    """What was skipped: all counted by reason, the first cases kept."""

    strict: bool = False
    """Whether to raise an error instead."""
    counts: dict[str, int] = field(default_factory=dict)
    """Cases by kind of reason."""
    first: list[Skipped] = field(default_factory=list)
    """The first cases."""

    @property
    def total(self) -> int:
        """All cases."""
        return sum(self.counts.values())

    def add(self, skipped: Skipped) -> None:
        """Count one case.

        Raises:
            DataError: in strict mode.
        """
        if self.strict:
            raise DataError(f"{skipped}; leave out --strict to skip such cases")
        kind = skipped.reason.partition(" (")[0]
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if len(self.first) < _FIRST_CASES:
            self.first.append(skipped)


def parse_record(record: Record, text_field: str, answer_field: str = "") -> Document | Skipped:
    """Find the text of a record.

    Args:
        record: one line of JSON, or text.
        text_field: the JSON field that holds the text.
        answer_field: the JSON field that holds the answer of a pair; a record without it is plain
            text.

    Returns:
        The document, or why there is none.
    """

    def skipped(reason: str) -> Skipped:
        return Skipped(record.file, record.line, reason)

    data, answer = record.data, ""
    if record.is_json:
        found = _json_text(data, text_field, answer_field)
        if found.reason:
            return skipped(found.reason)
        text, answer = found.text, found.answer
        try:
            data = (text + answer).encode()
        except UnicodeEncodeError:
            return skipped("the text holds half of a surrogate pair")
    else:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return skipped("not UTF-8 (but UTF-16 or UTF-32 with a byte order mark; convert it)")
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            return skipped(f"not UTF-8 (byte 0x{data[error.start]:02x} at {error.start})")
    if not text or text.isspace():
        return skipped("empty")
    if text.count("\0") > _NUL_SHARE * len(text):
        return skipped("binary (more than a quarter of it is NUL)")
    where = f"{record.file}:{record.line}" if record.line else record.file
    return Document(text, language_code(text + answer), where, len(data), answer)


class _Found(NamedTuple):
    text: str = ""
    reason: str = ""
    answer: str = ""


def _json_text(data: bytes, text_field: str, answer_field: str) -> _Found:
    try:
        # Numbers are of no interest, and integers of thousands of digits would be refused.
        value = json.loads(data.decode(), parse_int=float)
    except UnicodeDecodeError as error:
        return _Found(reason=f"not UTF-8 (byte 0x{data[error.start]:02x} at {error.start})")
    except RecursionError:
        return _Found(reason="JSON nested too deeply")
    except ValueError as error:
        detail = error.msg if isinstance(error, json.JSONDecodeError) else "bad number"
        return _Found(reason=f"not JSON ({detail})")
    if not isinstance(value, dict):
        return _Found(reason="not a JSON object")
    if text_field not in value:
        return _Found(reason=f"the field {text_field!r} is missing")
    text = value[text_field]
    if not isinstance(text, str):
        return _Found(reason=f"the field {text_field!r} is not a string")
    answer = value.get(answer_field, "") if answer_field else ""
    if not isinstance(answer, str):
        return _Found(reason=f"the field {answer_field!r} is not a string")
    if answer and answer.isspace():
        return _Found(reason=f"the field {answer_field!r} is empty")
    return _Found(text=text, answer=answer)
