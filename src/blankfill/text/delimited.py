"""Rows of CSV and TSV files: a line of names, then one row each, cells in quotation marks or not.

The marks are those of RFC 4180, as spreadsheets and pandas write them: a cell that begins with one
ends at the next that is not doubled, and may hold separators and line ends. A row that cannot be
understood, or has another number of cells than there are names, is skipped alone: its text might
be cut at a separator that somebody forgot to quote.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Literal

from blankfill.text.compressed import DamagedFileError
from blankfill.text.fields import FieldCheck, NoColumnError, list_names
from blankfill.text.json_records import RECORD_BYTES
from blankfill.text.records import Record, Skipped, Skips, shown

__all__ = ["delimited_records"]

CELL_BYTES = RECORD_BYTES
"""A longer line or cell is not read."""
_SEPARATORS = {"CSV": (",", ";", "\t", "|"), "TSV": ("\t",)}
"""What separates cells, the usual one first; the first that gives a column of the name is it."""


def delimited_records(
    path: str, blocks: Iterable[bytes], kind: Literal["CSV", "TSV"], check: FieldCheck, skips: Skips
) -> Iterator[Record]:
    """Read the rows of a file.

    Args:
        path: its name, for messages.
        blocks: its bytes as UTF-8, without a byte order mark.
        kind: which of the two its name says.
        check: the columns to read; takes the names of those that there are.
        skips: where rows that cannot be used are counted.

    Raises:
        NoColumnError: there is none of the name.
        DamagedFileError: after all that could be read.
    """
    source = _Blocks(blocks)
    # Bytes that are not UTF-8 go through as they are, so that only their row is lost.
    lines = io.TextIOWrapper(
        io.BufferedReader(source, 1 << 18), "utf-8", errors="surrogateescape", newline=""
    )
    held = _header_lines(lines)
    if source.is_cut or not "".join(held).strip():
        if source.damage is not None:
            raise source.damage
        return
    separator, names = _header(path, held, kind, check)
    fields = check.fields
    text = names.index(fields.text)
    answer = names.index(fields.answer) if fields.answer in names else None
    for number, row, is_last in _rows(lines, separator, len(held)):
        if is_last and source.is_cut:
            break
        if isinstance(row, str):
            skips.add(Skipped(path, number, row))
        elif len(row) != len(names):
            reason = f"another number of cells than of names ({len(row)}, not {len(names)})"
            skips.add(Skipped(path, number, reason))
        else:
            said = None if answer is None else _bytes(row[answer])
            yield Record(_bytes(row[text]), kind, path, number, said)
    if source.damage is not None:
        raise source.damage


def _bytes(cell: str) -> bytes:
    return cell.encode("utf-8", "surrogateescape")


def _header_lines(lines: Iterable[str]) -> list[str]:
    """Read the lines of the names, which may hold line ends in quotation marks."""
    held: list[str] = []
    for line in lines:
        held.append(line)
        text = "".join(held)
        if text.strip() and text.count('"') % 2 == 0:
            break
    return held


def _header(
    path: str, held: list[str], kind: Literal["CSV", "TSV"], check: FieldCheck
) -> tuple[str, list[str]]:
    """Find what separates the names; give it and them.

    Raises:
        NoColumnError: none of them is that of the text.
    """
    usual, *others = _SEPARATORS[kind]
    first: list[str] = []
    for separator in (usual, *others):
        for _, row, _ in _rows(held, separator, 0):
            names = [name.strip() for name in row] if not isinstance(row, str) else []
            first = first or names
            check.see(shown(path), names)
            if check.fields.text in names:
                return separator, names
            break
    raise NoColumnError(
        f"{shown(path)} has no column {check.fields.text!r}; its columns are {list_names(first)}; "
        "name one of them with --text-field"
    )


def _rows(
    lines: Iterable[str], separator: str, num_before: int
) -> Iterator[tuple[int, list[str] | str, bool]]:
    """Yield each row with the number of its line, and whether it is the last.

    In place of what is no row stands the reason.
    """
    reader = csv.reader(lines, delimiter=separator, strict=True)
    waiting: tuple[int, list[str] | str] | None = None
    while True:
        number = num_before + reader.line_num + 1
        row: list[str] | str
        before = csv.field_size_limit(CELL_BYTES)  # of the whole process, so put back at once
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            if "limit" in str(error):
                if waiting is not None:
                    yield *waiting, False
                raise DamagedFileError(_UNCLOSED.format(number)) from error
            at_end = "end of data" in str(error)
            unclosed = "a quotation mark is not closed (what follows it is lost)"
            row = unclosed if at_end else f"not a row ({error})"
        finally:
            csv.field_size_limit(before)
        if row:
            if waiting is not None:
                yield *waiting, False
            waiting = number, row
    if waiting is not None:
        yield *waiting, True


_UNCLOSED = f"a cell is larger than {CELL_BYTES >> 20} MiB: in line {{}} a quotation mark begins it"


class _Blocks(io.RawIOBase):
    """Blocks of bytes as a file; it ends where they are damaged."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks, self._left = iter(blocks), memoryview(b"")
        self._in_line = 0
        self.damage: DamagedFileError | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]  # BufferedReader gives a memoryview
        while not self._left and self.damage is None:
            try:
                self._left = memoryview(self._bounded(next(self._blocks)))
            except StopIteration:
                return 0
            except DamagedFileError as error:
                self.damage = error
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size

    @property
    def is_cut(self) -> bool:
        """Whether it ends inside a line, with damage after it."""
        return self.damage is not None and self._in_line > 0

    def _bounded(self, block: bytes) -> bytes:
        """Return the block, or the whole lines of it where a line is too long."""
        end = max(block.rfind(b"\n"), block.rfind(b"\r")) + 1
        self._in_line = len(block) - end + (0 if end else self._in_line)
        if self._in_line > CELL_BYTES:
            self.damage = DamagedFileError(f"a line is longer than {CELL_BYTES >> 20} MiB")
            self._in_line = 0 if end else self._in_line
            return block[:end]
        return block
