"""What a file gives, document by document: its bytes, then its text or the reason why not.

A `Record` is the bytes of one document, a `Document` its text. Between them stands `parse_record`,
which can run in another process; what cannot be used is a `Skipped`, counted by `Skips`.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Literal, NamedTuple

from blankfill.errors import DataError
from blankfill.results import short_repr
from blankfill.text.fields import Fields, find_field, name_fields
from blankfill.text.kinds import blank_length
from blankfill.text.language import language_code
from blankfill.text.whitespace import squeezed

if TYPE_CHECKING:
    from blankfill.text.options import TextOptions

__all__ = [
    "Document", "FileKind", "KindCount", "ReadingReport", "Record", "Skipped", "Skips",
    "parse_record", "shown",
]  # fmt: skip

_FIRST_CASES = 20
_NUL_SHARE = 0.25  # a few NUL characters may stand in odd text; with more of them it is binary data


FileKind = Literal["text", "JSON", "CSV", "TSV", "Parquet", "Arrow", "Megatron"]
"""What a file is, as its content and its name say."""


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
    kind: FileKind = "text"
    """Of the file that it is from."""

    @property
    def has_fields(self) -> bool:
        """Whether it is from a JSON object or a table."""
        return self.kind != "text"


class Record(NamedTuple):
    """The bytes of a document, not yet parsed."""

    data: bytes
    """One JSON object, or text in UTF-8."""
    kind: FileKind
    """A text file or a piece of it, a JSON object, or the cell of a table."""
    file: str
    """Where it is from."""
    line: int
    """Line, row or piece of it, from 1; 0 is the whole file."""
    answer: bytes | None = None
    """The answer's cell; None where the table has no such column."""
    encoding: str = "UTF-8"
    """What the file is in; "" where that is not known. The bytes here are UTF-8."""

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
    kind: FileKind | Literal[""] = ""
    """Of a document, the kind of its file; "" of a file."""

    def __str__(self) -> str:
        place = shown(self.file) + (f":{self.line}" if self.line else "")
        return f"{place}: {self.reason}"


@dataclass(frozen=True, kw_only=True, slots=True)
class KindCount:
    """What came of the files of one kind."""

    files: int
    """Files that were read."""
    kept: int
    """Documents that were kept."""
    dropped: dict[str, int]
    """Documents that were not, by reason."""
    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadingReport:
    """What was read, what of it was kept, and why the rest was not."""

    kinds: dict[FileKind, KindCount]
    """By the kind of file; read is what was kept and what was dropped."""
    unread: dict[str, int]
    """Files that were not read, or not to their end, by reason."""
    encodings: dict[str, int]
    """Files that were in another encoding than UTF-8, by its name."""
    duplicates: int | None = None
    """Documents that were there before, word for word; None where they are not counted."""
    __repr__ = short_repr


@dataclass(slots=True)
class Skips:
    """What was read, and what was skipped: all counted by reason, the first cases kept."""

    strict: bool = False
    """Whether to raise an error instead."""
    counts: dict[str, int] = field(default_factory=dict[str, int])
    """Cases by kind of reason."""
    files: Counter[FileKind] = field(default_factory=Counter["FileKind"])
    """Files that were read, by kind."""
    kept: Counter[FileKind] = field(default_factory=Counter["FileKind"])
    """Documents that were kept, by kind of file."""
    dropped: dict[FileKind, Counter[str]] = field(default_factory=dict["FileKind", Counter[str]])
    """Documents that were not, by kind of file and by reason."""
    unread: dict[str, int] = field(default_factory=dict[str, int])
    """Files that were not read, or not to their end, by reason."""
    encodings: dict[str, int] = field(default_factory=dict[str, int])
    """Files that were in another encoding than UTF-8, by its name."""
    _kind: FileKind = "text"
    _first: list[tuple[int, Skipped]] = field(default_factory=list[tuple[int, Skipped]])
    """Cases, each with how many there were before of its reason."""

    @property
    def first(self) -> list[Skipped]:
        """The first cases: one of each reason, then the second of each, and so on."""
        by_number = sorted(self._first, key=itemgetter(0))
        return [skipped for _, skipped in by_number[:_FIRST_CASES]]

    @property
    def total(self) -> int:
        """All cases."""
        return sum(self.counts.values())

    def report(self, duplicates: int | None = None) -> ReadingReport:
        """Say what was read."""
        kinds: dict[FileKind, KindCount] = {}
        order: list[FileKind] = [*self.files, *self.kept, *self.dropped]
        for kind in order:
            kinds[kind] = KindCount(
                files=self.files[kind], kept=self.kept[kind],
                dropped=dict(self.dropped.get(kind, {})),
            )  # fmt: skip
        return ReadingReport(
            kinds=kinds, unread=dict(self.unread), encodings=dict(self.encodings),
            duplicates=duplicates,
        )  # fmt: skip

    def open(self, kind: FileKind) -> None:
        """Count a file, to which the lines that are skipped from now on belong."""
        self._kind = kind
        self.files[kind] += 1

    def close(self, encoding: str) -> None:
        """Count the encoding of a file that was read."""
        if encoding not in ("", "UTF-8"):
            self.encodings[encoding] = self.encodings.get(encoding, 0) + 1

    def keep(self, kind: FileKind) -> None:
        """Count a document."""
        self.kept[kind] += 1

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
        reason = skipped.reason.partition(" (")[0]
        kind = skipped.kind or (self._kind if skipped.line else "")
        by_kind = self.dropped.setdefault(kind, Counter()) if kind else self.unread
        for counts in (self.counts, by_kind):
            counts[reason] = counts.get(reason, 0) + 1
        if self.counts[reason] <= _FIRST_CASES:
            self._first.append((self.counts[reason], skipped))


def parse_record(record: Record, options: TextOptions) -> Document | Skipped:
    """Find the text of a record.

    Args:
        record: one JSON object, or text.
        options: which fields hold the text and the answer of a pair, and what becomes of it.

    Returns:
        The document, or why there is none.
    """

    def skipped(reason: str) -> Skipped:
        return Skipped(record.file, record.line, reason, record.kind)

    data, answer, fields = record.data, None, options.fields
    try:
        if record.kind == "JSON":
            found = _json_text(data, fields)
            if found.reason:
                return skipped(found.reason)
            text, answer = found.text, found.answer
        else:
            text = data.decode()
            answer = None if record.answer is None else record.answer.decode()
    except UnicodeDecodeError as error:
        return skipped(_not_decoded(error, record))
    if not record.encoding and not data.isascii():
        # A few characters of other encodings are valid UTF-8, and would be other characters.
        return skipped(f"not UTF-8 (other parts of the file are not; {_NOT_SURE})")
    num_bytes = len(data) + len(record.answer or b"")
    if options.squeeze_whitespace:
        text, answer = squeezed(text), answer and squeezed(answer)
    if options.squeeze_whitespace or record.kind == "JSON":
        try:
            num_bytes = len((text + (answer or "")).encode())
        except UnicodeEncodeError:
            return skipped("the text holds half of a surrogate pair")
    if not text or text.isspace():
        return skipped("empty")
    most = 0 if record.kind == "text" else _NUL_SHARE * len(text)
    if text.count("\0") > most:
        return skipped("binary (it holds NUL bytes)")
    if answer and answer.isspace():
        return skipped(f"the field {fields.answer!r} is empty")
    where = shown(record.file) + (f":{record.line}" if record.line else "")
    language = language_code(text + (answer or ""))
    return Document(text, language, where, num_bytes, answer, record.kind)


_NOT_SURE = (
    "which encoding it is in is not sure: name it with --encoding, or convert it with "
    "iconv -f NAME -t UTF-8"
)


def _not_decoded(error: UnicodeDecodeError, record: Record) -> str:
    if record.encoding not in ("", "UTF-8"):
        return f"not {record.encoding} (some of its bytes)"
    hint = "" if record.encoding else f"; {_NOT_SURE}"
    return f"not UTF-8 (byte 0x{error.object[error.start]:02x} at {error.start}{hint})"


class _Found(NamedTuple):
    text: str = ""
    reason: str = ""
    answer: str | None = None


def _json_text(data: bytes, fields: Fields) -> _Found:
    """Find the fields of one JSON object; a UnicodeDecodeError says that it is not UTF-8."""
    try:
        # Numbers are of no interest, and integers of thousands of digits would be refused. Joined
        # files have byte order marks in the middle.
        value = json.loads(data[blank_length(data) :].decode(), parse_int=float)
    except UnicodeDecodeError:
        raise
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
