"""Documents of text files, one after the other, whatever the files hold.

| file | document |
|---|---|
| .txt .text .md .rst and such | the whole file (cut at 4 MiB), or each paragraph or line |
| .jsonl .ndjson .json | one JSON object, its text in the field `text` (or another) |
| .csv .tsv | one row, its text in the column `text` (or another) |
| .parquet .arrow .feather | the same |

Each also as .gz, .bz2, .xz or .zst. JSON may be one object a line, an array, or objects in any
layout. What is inside the compression is recognised by the content (`kinds.py`): an archive, a
picture or a Git LFS pointer is named and skipped whatever its file name. Stdin, and a compressed
file without another suffix, is JSON if it begins as JSON does, else text.

The text of a document is exactly what the file says, line breaks of every kind included; only a
byte order mark at the start of a file is removed. The encoding is UTF-8, or another where that is
sure or was named (`encodings.py`). What cannot be used is skipped, counted by reason, and the
first cases are kept with file and line (`Skips`); `strict` makes the first one an error. Memory is
bounded by the largest record allowed, 64 MiB, and by a row group of Parquet files.

Reading (`read_records`: raw bytes of each document) and understanding (`parse_record`) are two
steps, so that the second can be done in other processes.
"""

from __future__ import annotations

import codecs
import contextlib
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

from blankfill.errors import DataError
from blankfill.text.compressed import MAGIC_BYTES, DamagedFileError, is_packed, read_blocks
from blankfill.text.delimited import delimited_records
from blankfill.text.encodings import ContradictionError, TextBytes
from blankfill.text.fields import FieldCheck, NoColumnError, field_names
from blankfill.text.files import Format, Source, find_files
from blankfill.text.json_records import cut_at_brackets, cut_at_lines, is_one_a_line
from blankfill.text.kinds import (
    HEAD_BYTES,
    blank_length,
    foreign_kind,
    looks_like_json,
    table_kind,
)
from blankfill.text.options import TextOptions
from blankfill.text.plain import TEXT_BYTES, text_records
from blankfill.text.records import (
    Document,
    FileKind,
    Record,
    Skipped,
    Skips,
    parse_record,
    shown,
)
from blankfill.text.tables import table_records, unpacked

__all__ = ["no_documents", "read_documents", "read_records"]

log = logging.getLogger(__name__)

_ISO_2022 = re.compile(rb"\x1b\$(?:[@AB]|[()][@-D])")  # begins Japanese, Chinese or Korean
_LONGEST_BLANK = 3  # bytes of UTF-8 in a white-space character or a byte order mark


def read_documents(
    paths: Iterable[str | Path],
    options: TextOptions | None = None,
    *,
    strict: bool = False,
    report: Skips | None = None,
) -> Iterator[Document]:
    """Read documents from files, folders and stdin.

    Args:
        paths: files, folders, or `-` for stdin.
        options: how the files are read; as usual where not given.
        strict: raise an error where a document cannot be used, instead of skipping it.
        report: where to count what was read and skipped.

    Yields:
        Documents with text in them, in the order of `paths`.

    Raises:
        DataError: a path is missing or of an unknown kind, no record has a text in a field that was
            named, or (strict) something cannot be used.
    """
    options = options or TextOptions()
    skips = Skips(strict=strict) if report is None else report
    check = FieldCheck(options.fields)
    num_documents = 0
    for record in read_records(paths, options, check=check, skips=skips):
        found = parse_record(record, options)
        if isinstance(found, Skipped):
            skips.add(found)
            continue
        num_documents += 1
        skips.keep(found.kind)
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
    paths: Iterable[str | Path], options: TextOptions, *, check: FieldCheck, skips: Skips
) -> Iterator[Record]:
    """Read the bytes of each document.

    Args:
        paths: files, folders, or `-` for stdin.
        options: how the files are read.
        check: the fields to read; takes the names of those that there are.
        skips: where damage, and files that cannot be read, are counted.

    Raises:
        DataError: as `read_documents`.
    """
    for source in find_files(paths, skips):
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(_opened(source))
                for record in _records_of(source, file, options, check, skips):
                    if record.kind == "JSON" and not check.seen:
                        check.see(shown(source.path), field_names(record.data))
                    yield record
            except DamagedFileError as error:
                skips.add(Skipped(source.path, 0, f"{error} (what came before it was kept)"))
            except ContradictionError as error:
                skips.add(Skipped(source.path, 0, str(error)))
            except NoColumnError as error:
                if source.named:
                    raise DataError(str(error)) from error
                skips.add(Skipped(source.path, 0, f"no such column ({error})"))
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
    source: Source, file: BinaryIO, options: TextOptions, check: FieldCheck, skips: Skips
) -> Iterator[Record]:
    head, blocks = _peek(read_blocks(file), HEAD_BYTES)
    if kind := table_kind(head):
        with _on_disk(source.path, file, blocks) as table:
            yield from table_records(source.path, table, kind, check, skips)
        return
    if reason := foreign_kind(head):
        skips.add(Skipped(source.path, 0, reason))
        return
    decoded = TextBytes(blocks, options.encoding, _again(source, file))
    head, blocks = _peek(iter(decoded), HEAD_BYTES)
    start = _start_of_text(blocks)
    kind = _text_kind(source, start.first)
    if reason := _unusable(head, start.first, kind, source.format):
        skips.add(Skipped(source.path, 0, reason))
        return
    skips.open(kind)
    for record in _of_kind(source.path, kind, start, options, check, skips):
        # The encoding may become known only after some ASCII.
        yield record if decoded.name == "UTF-8" else record._replace(encoding=decoded.name)
    skips.close(decoded.name)


def _of_kind(
    path: str, kind: FileKind, start: _Start, options: TextOptions, check: FieldCheck, skips: Skips
) -> Iterator[Record]:
    """Cut the text of a file into records."""
    if kind in ("CSV", "TSV"):
        yield from delimited_records(path, chain([start.lead], start.blocks), kind, check, skips)
    elif kind == "JSON":
        cut = cut_at_lines if is_one_a_line(start.first) else cut_at_brackets
        yield from cut(path, start.blocks, start.line, skips)
    else:
        _warn_of_json(path, start.first, check)
        if start.num_dropped:
            skips.add(Skipped(path, 0, f"white space (more than {TEXT_BYTES >> 20} MiB of it)"))
        yield from text_records(path, chain([start.lead], start.blocks), options.documents)


def _text_kind(source: Source, first: bytes) -> FileKind:
    if source.format in ("CSV", "TSV"):
        return source.format
    is_json = source.format == "JSON" or (not source.format and looks_like_json(first))
    return "JSON" if is_json else "text"


def _again(source: Source, file: BinaryIO) -> Callable[[], Iterator[bytes]] | None:
    """Give what reads a file from its start once more; None for what can be read only once."""
    if source.path == "-" or not file.seekable():
        return None

    def read() -> Iterator[bytes]:
        with open(source.path, "rb") as other:
            yield from read_blocks(other)

    return read


def _warn_of_json(path: str, first: bytes, check: FieldCheck) -> None:
    """Warn once where a file is read as plain text by its name but looks like JSON records."""
    if check.has_json_in_text or not path.lower().endswith((".txt", ".text", ".md")):
        return
    if check.fields.text in field_names(first.partition(b"\n")[0]):
        check.has_json_in_text = True
        log.warning("%s is read as text, as its name says, but begins as JSON lines do; call it "
                    ".jsonl to have its records read", shown(path))  # fmt: skip


def _unusable(head: bytes, first: bytes, kind: FileKind, named: Format | None) -> str:
    """Say why a file is neither text nor JSON; "" where it can be."""
    if reason := foreign_kind(head):
        return reason
    if named == "table" and head:
        return "neither Parquet nor Arrow data (its name says so, its content does not)"
    # A line of JSON may be damaged, and is skipped alone; where the first begins so, all are.
    if b"\0" in (first[:4] if kind == "JSON" else head[:HEAD_BYTES]):
        return "binary (it holds NUL bytes; if it is UTF-16, say --encoding utf-16-le or utf-16-be)"
    if kind != "JSON" and _ISO_2022.search(head):
        return "text in ISO-2022, all of it ASCII (name it: --encoding iso2022_jp, or iso2022_kr)"
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
    packed = is_packed(file.read(MAGIC_BYTES))
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
            if blank > TEXT_BYTES:
                line += held.count(b"\n", 0, blank)
                num_dropped += blank
                del held[:blank]
    except DamagedFileError as error:
        after = _raised(error)
    blank = blank_length(held)
    lead, first = bytes(held[:blank]), bytes(held[blank:])
    line += lead.count(b"\n")
    return _Start(lead, num_dropped, line, first, chain([first] if first else [], after))
