"""Documents of text files, one after the other, whatever the files hold.

| file | document |
|---|---|
| .txt .text .md | the whole file; cut at paragraph ends where it is larger than 4 MiB |
| .jsonl .ndjson .json | one object a line, its text in the field `text` (or another) |
| .parquet | one row, its text in the column `text` (or another) |

Each also as .gz or .zst (the content decides, not the name). A folder stands for the files of these
kinds under it, sorted by path. `-`, and a compressed file without another suffix, is JSON lines if
its first byte that is not blank is `{`, else text.

The text of a document is exactly what UTF-8 says, line breaks of every kind included; only a byte
order mark at the start of a file is taken off. What cannot be used is skipped, counted by reason,
and the first cases are kept with file and line (`Skips`); `strict` makes the first one an error.
Memory is bounded by the largest line allowed, 64 MiB, and by a row group of Parquet files.

Reading (`read_records`: raw bytes of each document) and understanding (`parse_record`) are two
steps, so that the second can be done in other processes.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

from blankfill.errors import DataError
from blankfill.text.compressed import DamagedFileError, read_blocks
from blankfill.text.records import Document, Record, Skipped, Skips, parse_record

__all__ = ["FORMATS", "find_files", "no_documents", "read_documents", "read_records"]

Format = Literal["text", "jsonl", "parquet"]

FORMATS: dict[str, Format] = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}
_PACKED = (".gz", ".zst")
_TEXT_BYTES = 4 << 20
"""A larger .txt becomes several documents of at most this size."""
_LINE_BYTES = 64 << 20
"""A longer line of JSON is skipped: it must fit into memory several times."""
_ROWS = 256


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
        DataError: a path is missing, of an unknown kind, or (strict) something cannot be used.
    """
    skips = Skips(strict=strict) if report is None else report
    for record in read_records(paths, text_field=text_field, skips=skips):
        found = parse_record(record, text_field)
        if isinstance(found, Skipped):
            skips.add(found)
        else:
            yield found


def no_documents(paths: Sequence[str | Path], skips: Skips) -> DataError:
    """Build the error for an input without a single document."""
    named = ", ".join(str(path) for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
    why = f" ({skips.total} skipped, the first is {skips.first[0]})" if skips.first else ""
    return DataError(f"there is no document with text in {named}{why}")


def find_files(paths: Iterable[str | Path], skips: Skips) -> list[tuple[str, Format | None]]:
    """List files with their formats; None where the content has to tell.

    Raises:
        DataError: a path is missing or of an unknown kind.
    """
    found: list[tuple[str, Format | None]] = []
    names = [str(path) for path in paths]
    if not names:
        raise DataError("no text was named; name files, folders, or - for stdin")
    for path in names:
        if path == "-":
            found.append((path, None))
        elif os.path.isdir(path):
            found += _files_under(path, skips)
        elif not os.path.exists(path):
            raise DataError(f"{path}: no such file or folder")
        else:
            known, kind = _format(path)
            if not known:
                raise DataError(
                    f"{path}: unknown kind of file; blankfill reads {' '.join(FORMATS)}, "
                    "each also as .gz or .zst"
                )
            found.append((path, kind))
    return found


def _files_under(folder: str, skips: Skips) -> Iterator[tuple[str, Format | None]]:
    names: list[str] = []
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names += [os.path.join(where, name) for name in files if not name.startswith(".")]
    for name in sorted(names):
        known, kind = _format(name)
        if known and os.path.isfile(name):
            yield name, kind
        else:
            skips.add(Skipped(name, 0, "unknown kind of file"))


def _format(path: str) -> tuple[bool, Format | None]:
    """Tell from a name whether it is a known kind of file, and which, if the name says."""
    name = os.path.basename(path).lower()
    stem, suffix = os.path.splitext(name)
    packed = suffix in _PACKED
    if packed:
        suffix = os.path.splitext(stem)[1]
    return suffix in FORMATS or packed, FORMATS.get(suffix)


def read_records(paths: Iterable[str | Path], *, text_field: str, skips: Skips) -> Iterator[Record]:
    """Read the bytes of each document; damage is counted in `skips`."""
    for path, kind in find_files(paths, skips):
        with contextlib.ExitStack() as stack:
            try:
                if path == "-":
                    file: BinaryIO = sys.stdin.buffer
                else:
                    file = stack.enter_context(open(path, "rb"))
                yield from _records_of(path, kind, file, text_field, skips)
            except DamagedFileError as error:
                skips.add(Skipped(path, 0, f"{error}; what came before the damage was kept"))
            except OSError as error:
                raise DataError(f"{path}: cannot be read, {error.strerror or error}") from error


def _records_of(
    path: str, kind: Format | None, file: BinaryIO, text_field: str, skips: Skips
) -> Iterator[Record]:
    if kind == "parquet":
        yield from _parquet_records(path, file, text_field, skips)
        return
    blocks = _without_mark(read_blocks(file))
    if kind is None:
        kind, blocks = _sniffed(blocks)
    if kind == "jsonl":
        yield from _line_records(path, blocks, skips)
    else:
        yield from _text_records(path, blocks)


def _without_mark(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Take off the byte order mark at the start."""
    head = b""
    for block in blocks:
        head += block
        if len(head) >= len(codecs.BOM_UTF8):
            break
    if head := head.removeprefix(codecs.BOM_UTF8):
        yield head
    yield from blocks


def _sniffed(blocks: Iterator[bytes]) -> tuple[Format, Iterator[bytes]]:
    """Tell JSON lines from text by the first byte that is not blank."""
    first = next(blocks, b"")
    rest = (block for part in ([first] if first else [], blocks) for block in part)
    return ("jsonl" if first.lstrip()[:1] == b"{" else "text"), rest


def _line_records(path: str, blocks: Iterator[bytes], skips: Skips) -> Iterator[Record]:
    """Cut at line feeds, and nowhere else: U+2028 and its like are text."""
    held: list[bytes] = []  # the beginning of a line whose end has not come yet
    held_bytes, line = 0, 1
    for block in blocks:
        first, *others = block.split(b"\n")
        held_bytes += len(first)
        if held_bytes <= _LINE_BYTES:
            held.append(first)
        if not others:
            continue
        *whole, last = others
        if held_bytes > _LINE_BYTES:
            skips.add(Skipped(path, line, f"a line of more than {_LINE_BYTES >> 20} MiB"))
            yield from _lines(path, whole, line + 1)
        else:
            yield from _lines(path, [b"".join(held), *whole], line)
        line += 1 + len(whole)
        held, held_bytes = [last], len(last)
    if held_bytes > _LINE_BYTES:
        skips.add(Skipped(path, line, f"a line of more than {_LINE_BYTES >> 20} MiB"))
    else:
        yield from _lines(path, [b"".join(held)], line)


def _lines(path: str, lines: Sequence[bytes], number: int) -> Iterator[Record]:
    for i, data in enumerate(lines):
        if data and not data.isspace():
            yield Record(data, True, path, number + i)


def _text_records(path: str, blocks: Iterator[bytes]) -> Iterator[Record]:
    held = bytearray()
    piece = 0
    for block in blocks:
        held += block
        while len(held) > _TEXT_BYTES:
            piece += 1
            stop = _cut(held, _TEXT_BYTES)
            yield Record(bytes(held[:stop]), False, path, piece)
            del held[:stop]
    yield Record(bytes(held), False, path, piece + 1 if piece else 0)


def _cut(data: bytearray, limit: int) -> int:
    """Find where to cut: behind a paragraph, a line, a blank, at least between characters."""
    for mark in (b"\n\n", b"\n", b" "):
        stop = data.rfind(mark, limit // 2, limit)
        if stop >= 0:
            return stop + len(mark)
    stop = limit
    while stop > limit - 4 and data[stop] & 0xC0 == 0x80:
        stop -= 1
    return stop


def _parquet_records(path: str, file: BinaryIO, text_field: str, skips: Skips) -> Iterator[Record]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise DataError(f"{path}: to read Parquet files, install blankfill[parquet]") from error
    with tempfile.TemporaryFile() as unpacked:
        # Parquet is read from its end, so a compressed one or a pipe is unpacked to disk first.
        for block in read_blocks(file):
            unpacked.write(block)
        unpacked.seek(0)
        row = 0
        try:
            table: Any = parquet.ParquetFile(unpacked)
            if text_field not in table.schema_arrow.names:
                raise DataError(
                    f"{path} has no column {text_field!r}; "
                    f"its columns are {', '.join(table.schema_arrow.names[:10])}"
                )
            for batch in table.iter_batches(batch_size=_ROWS, columns=[text_field]):
                column: Any = batch.column(0)
                if pyarrow.types.is_dictionary(column.type):
                    column = column.dictionary_decode()
                if pyarrow.types.is_null(column.type):
                    column = column.cast(pyarrow.large_binary())
                if not (
                    pyarrow.types.is_string(column.type)
                    or pyarrow.types.is_large_string(column.type)
                    or pyarrow.types.is_binary(column.type)
                    or pyarrow.types.is_large_binary(column.type)
                ):
                    raise DataError(f"{path}: the column {text_field!r} holds {column.type}")
                # As bytes, because text in a Parquet file need not be UTF-8 either.
                for value in column.cast(pyarrow.large_binary()).to_pylist():
                    row += 1
                    if value is None:
                        skips.add(Skipped(path, row, f"the field {text_field!r} is missing"))
                    else:
                        yield Record(value, False, path, row)
        except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
            raise DamagedFileError("the Parquet data is damaged") from error
