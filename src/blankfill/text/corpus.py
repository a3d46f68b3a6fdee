"""Documents of text files, one after the other, whatever the files hold.

| file | document |
|---|---|
| .txt .text .md | the whole file; cut at paragraph ends where it is larger than 4 MiB |
| .jsonl .ndjson .json | one JSON object, its text in the field `text` (or another) |
| .parquet .arrow .feather | one row, its text in the column `text` (or another) |

Each also as .gz or .zst. JSON may be one object a line, an array, or objects in any layout. What
is inside the compression is recognised by the content (`kinds.py`): an archive, a picture or a Git
LFS pointer is named and skipped whatever its file name. Stdin, and a compressed file without
another suffix, is JSON if it begins as JSON does, else text.

The text of a document is exactly what UTF-8 says, line breaks of every kind included; only a byte
order mark at the start of a file is removed. What cannot be used is skipped, counted by reason,
and the first cases are kept with file and line (`Skips`); `strict` makes the first one an error.
Memory is bounded by the largest record allowed, 64 MiB, and by a row group of Parquet files.

Reading (`read_records`: raw bytes of each document) and understanding (`parse_record`) are two
steps, so that the second can be done in other processes.
"""

from __future__ import annotations

import codecs
import contextlib
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

from blankfill.errors import DataError
from blankfill.text.compressed import DamagedFileError, is_packed, read_blocks
from blankfill.text.fields import FieldCheck, Fields, field_names
from blankfill.text.files import Format, Source, find_files
from blankfill.text.json_records import cut_at_brackets, cut_at_lines, is_one_a_line
from blankfill.text.kinds import (
    HEAD_BYTES,
    blank_length,
    foreign_kind,
    looks_like_json,
    table_kind,
)
from blankfill.text.records import Document, Record, Skipped, Skips, parse_record, shown
from blankfill.text.tables import table_records, unpacked

__all__ = ["no_documents", "read_documents", "read_records"]

log = logging.getLogger(__name__)

_TEXT_BYTES = 4 << 20
"""A larger .txt becomes several documents of at most this size."""
_LONGEST_BLANK = 3  # bytes of UTF-8 in a white-space character or a byte order mark


def read_documents(
    paths: Iterable[str | Path],
    *,
    text_field: str = "text",
    strict: bool = False,
    report: Skips | None = None,
) -> Iterator[Document]:
    """Read documents from files, folders and stdin.

    Args:
        paths: files, folders, or `-` for stdin.
        text_field: the JSON field or Parquet column that holds the text.
        strict: raise an error where a document cannot be used, instead of skipping it.
        report: where to count what was skipped.

    Yields:
        Documents with text in them, in the order of `paths`.

    Raises:
        DataError: a path is missing or of an unknown kind, no record has a text in a field that was
            named, or (strict) something cannot be used.
    """
    skips = Skips(strict=strict) if report is None else report
    check = FieldCheck(Fields(text_field))
    num_documents = 0
    for record in read_records(paths, check=check, skips=skips):
        found = parse_record(record, check.fields)
        if isinstance(found, Skipped):
            skips.add(found)
            continue
        num_documents += 1
        if found.has_fields:
            check.add(has_answer=False, is_pair=False)
        yield found
    if num_documents:
        check.finish()


def no_documents(paths: Sequence[str | Path], skips: Skips) -> DataError:
    """Build the error for an input without a single document."""
    named = ", ".join(shown(path) for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
    why = f" ({skips.total} skipped, the first is {skips.first[0]})" if skips.first else ""
    return DataError(f"there is no document with text in {named}{why}")


def read_records(
    paths: Iterable[str | Path], *, check: FieldCheck, skips: Skips
) -> Iterator[Record]:
    """Read the bytes of each document.

    Args:
        paths: files, folders, or `-` for stdin.
        check: the fields to read; takes the names of those that there are.
        skips: where damage, and files that cannot be read, are counted.

    Raises:
        DataError: as `read_documents`.
    """
    for source in find_files(paths, skips):
        with contextlib.ExitStack() as stack:
            try:
                for record in _records_of(
                    source, stack.enter_context(_opened(source)), check, skips
                ):
                    if record.kind == "json" and not check.seen:
                        check.seen = field_names(record.data)
                    yield record
            except DamagedFileError as error:
                skips.add(Skipped(source.path, 0, f"{error} (what came before it was kept)"))
            except OSError as error:
                reason = f"cannot be read ({error.strerror or error})"
                if source.named:
                    raise DataError(f"{shown(source.path)}: {reason}") from error
                skips.add(Skipped(source.path, 0, reason))


def _opened(source: Source) -> contextlib.AbstractContextManager[BinaryIO]:
    if source.path != "-":
        return open(source.path, "rb")
    if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]  # the shell's `<&-`
        raise DataError("-: stdin is closed")
    return contextlib.nullcontext(sys.stdin.buffer)


def _records_of(
    source: Source, file: BinaryIO, check: FieldCheck, skips: Skips
) -> Iterator[Record]:
    head, blocks = _peek(read_blocks(file), HEAD_BYTES)
    if kind := table_kind(head):
        with _on_disk(source.path, file, blocks) as table:
            yield from table_records(source.path, table, kind, check, skips)
        return
    start = _start_of_text(blocks)
    is_json = source.format == "json" or (not source.format and looks_like_json(start.first))
    if reason := _unusable(head, start.first, is_json, source.format):
        skips.add(Skipped(source.path, 0, reason))
    elif not is_json:
        _warn_of_json(source, start.first, check)
        if start.num_dropped:
            skips.add(
                Skipped(source.path, 0, f"white space (more than {_TEXT_BYTES >> 20} MiB of it)")
            )
        yield from _text_records(source.path, chain([start.lead], start.blocks))
    elif is_one_a_line(start.first):
        yield from cut_at_lines(source.path, start.blocks, start.line, skips)
    else:
        yield from cut_at_brackets(source.path, start.blocks, start.line, skips)


def _warn_of_json(source: Source, first: bytes, check: FieldCheck) -> None:
    """Warn once where a file is read as plain text by its name but looks like JSON records."""
    if check.has_json_in_text or source.format != "text":
        return
    if check.fields.text in field_names(first.partition(b"\n")[0]):
        check.has_json_in_text = True
        log.warning("%s is read as text, as its name says, but begins as JSON lines do; call it "
                    ".jsonl to have its records read", shown(source.path))  # fmt: skip


def _unusable(head: bytes, first: bytes, is_json: bool, named: Format | None) -> str:
    """Say why a file is neither text nor JSON; "" where it can be."""
    if reason := foreign_kind(head):
        return reason
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "not UTF-8 (but UTF-16 or UTF-32 with a byte order mark; convert it)"
    if named == "table" and head:
        return "neither Parquet nor Arrow data (its name says so, its content does not)"
    # A line of JSON may be damaged, and is skipped alone; where the first begins so, all are.
    if b"\0" in (first[:4] if is_json else head[:HEAD_BYTES]):
        return "binary (it holds NUL bytes, as UTF-16 does; text must be UTF-8)"
    return ""


def _on_disk(
    path: str, file: BinaryIO, blocks: Iterator[bytes]
) -> contextlib.AbstractContextManager[BinaryIO]:
    """Return a table's file: itself where it is a plain one, else its unpacked copy."""
    if not file.seekable():
        raise DataError(
            f"{shown(path)}: a Parquet or Arrow table cannot be read from a pipe; name its file"
        )
    file.seek(0)
    packed = is_packed(file.read(4))
    file.seek(0)
    if not packed:
        return contextlib.nullcontext(file)
    return unpacked(path, blocks)


def _peek(blocks: Iterator[bytes], size: int) -> tuple[bytes, Iterator[bytes]]:
    """Read a file's first bytes, at least so many unless it ends, and give them back in front."""
    head = bytearray()
    after = blocks
    try:
        for block in blocks:
            head += block
            if len(head) >= size:
                break
    except DamagedFileError as error:
        after = _raised(error)
    return bytes(head), chain([bytes(head)] if head else [], after)


def _raised(error: Exception) -> Iterator[bytes]:
    raise error
    yield b""


class _Start(NamedTuple):
    """A file that was read up to what is not blank."""

    lead: bytes
    """The white space before it, without a byte order mark at the start."""
    num_dropped: int
    """Bytes of white space beyond what a document may have; they are dropped."""
    line: int
    """Number of the line in which the rest begins."""
    first: bytes
    """The first bytes of the rest."""
    blocks: Iterator[bytes]
    """All of the rest."""


def _start_of_text(blocks: Iterator[bytes]) -> _Start:
    """Read up to what is not blank; memory holds no more white space than a document may have."""
    held, line, num_dropped = bytearray(), 1, 0
    after = blocks
    try:
        for block in blocks:
            held += block
            if not num_dropped and len(held) >= len(codecs.BOM_UTF8):
                held = held.removeprefix(codecs.BOM_UTF8)
            blank = blank_length(held)
            if blank + _LONGEST_BLANK <= len(held):
                break
            if blank > _TEXT_BYTES:
                line += held.count(b"\n", 0, blank)
                num_dropped += blank
                del held[:blank]
    except DamagedFileError as error:
        after = _raised(error)
    blank = blank_length(held)
    lead, first = bytes(held[:blank]), bytes(held[blank:])
    line += lead.count(b"\n")
    return _Start(lead, num_dropped, line, first, chain([first] if first else [], after))


def _text_records(path: str, blocks: Iterable[bytes]) -> Iterator[Record]:
    held = bytearray()
    piece = 0
    damage: DamagedFileError | None = None
    try:
        for block in blocks:
            held += block
            while len(held) > _TEXT_BYTES:
                piece += 1
                stop = _cut(held, _TEXT_BYTES)
                yield Record(bytes(held[:stop]), "text", path, piece)
                del held[:stop]
    except DamagedFileError as error:
        damage = error
        del held[_whole_characters(held) :]
    yield Record(bytes(held), "text", path, piece + 1 if piece else 0)
    if damage is not None:
        raise damage


def _whole_characters(data: bytearray) -> int:
    """Count the bytes up to a character of UTF-8 that the end cuts through."""
    for back in range(1, min(4, len(data)) + 1):
        lead = data[-back]
        if lead & 0xC0 != 0x80:
            size = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            return len(data) - back if size > back else len(data)
    return len(data)


def _cut(data: bytearray, limit: int) -> int:
    """Find where to cut: after a paragraph, else a line, else a space, else between characters."""
    for mark in (b"\n\n", b"\n", b" "):
        stop = data.rfind(mark, limit // 2, limit)
        if stop >= 0:
            return stop + len(mark)
    stop = limit
    while stop > limit - 4 and data[stop] & 0xC0 == 0x80:
        stop -= 1
    return stop
