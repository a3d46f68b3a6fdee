"""What a file gives, document by document: its bytes, then its text or the reason why not.

A `Record` is the bytes of one document, a `Document` its text. Between them stands `parse_record`,
which can run in another process; what cannot be used is a `Skipped`, counted by `Skips`.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from blankfill.errors import DataError
from blankfill.text.fields import Fields, find_field, name_fields
from blankfill.text.kinds import blank_length
from blankfill.text.language import language_code

__all__ = ["Document", "Record", "Skipped", "Skips", "parse_record", "shown"]

_FIRST_CASES = 20
_NUL_SHARE = 0.25  # a few NUL characters may stand in odd text; with more of them it is binary data


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
    answer: str | None = None
    """Of a pair, its answer; "" where the field is there but empty."""
    has_fields: bool = False
    """Whether it is from a JSON object or a table."""


class Record(NamedTuple):
    """The bytes of a document, not yet parsed."""

    data: bytes
    """One JSON object, or text in UTF-8."""
    kind: Literal["json", "text", "cell"]
    """A JSON object, a text file or a piece of it, or the cell of a table."""
    file: str
    """Where it is from."""
    line: int
    """Line, row or piece of it, from 1; 0 is the whole file."""
    answer: bytes | None = None
    """The answer's cell; None where the table has no such column."""

    @property
    def num_bytes(self) -> int:
        """Bytes that it holds in memory."""
        return len(self.data) + len(self.answer or b"")


_UNSHOWN = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def shown(path: str | os.PathLike[str]) -> str:
    """Return a path as messages and manifests can hold it.

    A name on disk is bytes: those that are not UTF-8, and control characters, are written as in
    Python (`\\xd3`).
    """
    return _UNSHOWN.sub(_escaped, os.fspath(path))


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte that is not UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that could not be used."""

    file: str
    """Where it is."""
    line: int
    """Line or row, from 1; 0 is the whole file."""
    reason: str
    """Why, in a few words; the part in brackets differs from case to case."""

    def __str__(self) -> str:
        place = shown(self.file) + (f":{self.line}" if self.line else "")
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
        """Count one case that cannot be used.

        Raises:
            DataError: in strict mode.
        """
        if self.strict:
            raise DataError(f"{skipped}; leave out --strict to skip such cases")
        self.leave_out(skipped)

    def leave_out(self, skipped: Skipped) -> None:
        """Count one case that a rule leaves out, such as a hidden file: strict allows it."""
        kind = skipped.reason.partition(" (")[0]
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if len(self.first) < _FIRST_CASES:
            self.first.append(skipped)


def parse_record(record: Record, fields: Fields) -> Document | Skipped:
    """Find the text of a record.

    Args:
        record: one JSON object, or text.
        fields: what holds the text, and the answer of a pair.

    Returns:
        The document, or why there is none.
    """

    def skipped(reason: str) -> Skipped:
        return Skipped(record.file, record.line, reason)

    data, answer = record.data, None
    if record.kind == "json":
        found = _json_text(data, fields)
        if found.reason:
            return skipped(found.reason)
        text, answer = found.text, found.answer
        try:
            data = (text + (answer or "")).encode()
        except UnicodeEncodeError:
            return skipped("the text holds half of a surrogate pair")
    else:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return skipped("not UTF-8 (but UTF-16 or UTF-32 with a byte order mark; convert it)")
        try:
            text = data.decode()
            answer = None if record.answer is None else record.answer.decode()
        except UnicodeDecodeError as error:
            return skipped(_not_utf8(error))
        data += record.answer or b""
    if not text or text.isspace():
        return skipped("empty")
    most = 0 if record.kind == "text" else _NUL_SHARE * len(text)
    if text.count("\0") > most:
        return skipped("binary (it holds NUL bytes)")
    if answer and answer.isspace():
        return skipped(f"the field {fields.answer!r} is empty")
    where = shown(record.file) + (f":{record.line}" if record.line else "")
    language = language_code(text + (answer or ""))
    return Document(text, language, where, len(data), answer, record.kind != "text")


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"not UTF-8 (byte 0x{error.object[error.start]:02x} at {error.start})"


class _Found(NamedTuple):
    text: str = ""
    reason: str = ""
    answer: str | None = None


def _json_text(data: bytes, fields: Fields) -> _Found:
    try:
        # Numbers are of no interest, and integers of thousands of digits would be refused. Joined
        # files have byte order marks in the middle.
        value = json.loads(data[blank_length(data) :].decode(), parse_int=float)
    except UnicodeDecodeError as error:
        return _Found(reason=_not_utf8(error))
    except RecursionError:
        return _Found(reason="JSON nested too deeply")
    except ValueError as error:
        detail = error.msg if isinstance(error, json.JSONDecodeError) else "bad number"
        return _Found(reason=f"not JSON ({detail})")
    if not isinstance(value, dict):
        return _Found(reason="not a JSON object")
    there, text = find_field(value, fields.text)
    if not there:
        return _Found(reason=f"the field {fields.text!r} is missing ({name_fields(value)})")
    if not isinstance(text, str):
        return _Found(reason=f"the field {fields.text!r} is not a string")
    there, answer = find_field(value, fields.answer) if fields.answer else (False, None)
    if answer is None:
        return _Found(text=text, answer="" if there else None)
    if not isinstance(answer, str):
        return _Found(reason=f"the field {fields.answer!r} is not a string")
    return _Found(text=text, answer=answer)
