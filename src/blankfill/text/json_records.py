"""JSON cut into records: one object a line, or arrays and objects laid out in any way.

Most corpora have one record a line. They are cut at line feeds, which is fast, and a broken line
loses only itself. Where the start of a file shows something else (an array; an object over several
lines; several objects on one line), its brackets are counted instead. Either way memory holds one
record and a block of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from blankfill.text.kinds import blank_length
from blankfill.text.records import Record, Skipped, Skips

__all__ = ["RECORD_BYTES", "cut_at_brackets", "cut_at_lines", "is_one_a_line"]

RECORD_BYTES = 64 << 20
"""A longer record is skipped: it must fit into memory several times."""


def is_one_a_line(start: bytes) -> bool:
    """Tell from the first bytes that are not blank whether each line is a record.

    A broken line must not decide for the whole file: the answer is no only where the first line
    ends between two tokens of an object, or continues after a first complete object.
    """
    if start[:1] == b"[":
        return False
    line, end, after = start.partition(b"\n")
    line = line.rstrip()
    splitter = _Splitter(1)
    num_records = sum(1 for _, data in splitter.feed(line) if data is None or data.strip())
    rest = bytes(splitter.rest).strip()
    if num_records and (num_records > 1 or line.endswith(b",") or rest[:1] in (b"{", b"[")):
        return False
    is_open = end and splitter.open and not splitter.in_string
    if rest[-1:] in (b"{", b","):  # a name has to follow here; an object begins another line
        is_open = is_open and after.lstrip()[:1] != b"{"
    return not (is_open and rest[-1:] in (b"{", b"[", b",", b":"))


def cut_at_lines(path: str, blocks: Iterable[bytes], line: int, skips: Skips) -> Iterator[Record]:
    """Cut at line feeds, and nowhere else: U+2028 and its like are text.

    Args:
        path: the file.
        blocks: its bytes.
        line: number of the first line.
        skips: where lines that are too long are counted.
    """
    held: list[bytes] = []  # the beginning of a line whose end has not come yet
    held_bytes = 0
    for block in blocks:
        first, *others = block.split(b"\n")
        held_bytes += len(first)
        if held_bytes <= RECORD_BYTES:
            held.append(first)
        if not others:
            continue
        *whole, last = others
        if held_bytes > RECORD_BYTES:
            skips.add(_too_long(path, line))
            yield from _lines(path, whole, line + 1)
        else:
            yield from _lines(path, [b"".join(held), *whole], line)
        line += 1 + len(whole)
        held, held_bytes = [last], len(last)
    if held_bytes > RECORD_BYTES:
        skips.add(_too_long(path, line))
    else:
        yield from _lines(path, [b"".join(held)], line)


def _lines(path: str, lines: Sequence[bytes], number: int) -> Iterator[Record]:
    for i, data in enumerate(lines):
        if data and not data.isspace() and blank_length(data) < len(data):
            yield Record(data, "JSON", path, number + i)


def _too_long(path: str, line: int) -> Skipped:
    return Skipped(path, line, f"a record of more than {RECORD_BYTES >> 20} MiB")


def cut_at_brackets(
    path: str, blocks: Iterable[bytes], line: int, skips: Skips
) -> Iterator[Record]:
    """Cut out the elements of arrays, and objects that follow each other in any layout.

    Args:
        path: the file.
        blocks: its bytes, from the first that is not blank.
        line: number of the line of that byte.
        skips: where records that are too long, and arrays without an end, are counted.
    """
    splitter = _Splitter(line)
    for block in blocks:
        for number, data in splitter.feed(block):
            yield from _record(path, number, data, skips)
    yield from _record(path, *splitter.take(), skips)
    if splitter.in_array:
        skips.add(Skipped(path, splitter.line, "the JSON array is cut off"))


def _record(path: str, line: int, data: bytes | None, skips: Skips) -> Iterator[Record]:
    if data is None:
        skips.add(_too_long(path, line))
        return
    lead = blank_length(data)
    if lead < len(data):
        yield Record(data[lead:], "JSON", path, line + data.count(b"\n", 0, lead))


_OUTSIDE = re.compile(rb'["{}\[\],]')
_NEAR = 1000  # bytes in which the last one before some white space is looked for
_INSIDE = re.compile(rb'["\\\n]')


class _Splitter:
    """Counts brackets over blocks of JSON, and gives what lies between.

    A string ends at the end of its line at the latest, as in JSON, and a line that begins like a
    record, where no value can stand, begins a record. So a missing quotation mark or bracket loses
    only one record.
    """

    def __init__(self, line: int):
        self.line = line
        self.open = bytearray()
        """Brackets that the record has opened; that of an array around it is not among them."""
        self.in_string = self.in_array = False
        self.rest = bytearray()
        """What the blocks so far hold of the record that is not complete."""
        self._start_line = line  # of that record, with the white space before it
        self._too_long = self._escaped = False
        self._indent: bytes | None = None  # before the latest record that begins a line

    def feed(self, block: bytes) -> Iterator[tuple[int, bytes | None]]:
        """Yield each record that the block ends, with the number of the line where it starts.

        The bytes may be blank; they are None where the record is too long to hold.
        """
        start = place = 0
        while (found := self._next(block, place)) is not None:
            mark, place = found
            if mark in b"{[":
                before = block[start : place - 1]
                if mark == b"[" and not (self.in_array or self.open) and self._is_blank(before):
                    self.in_array = True
                    self.take(before)
                    start = place
                    continue
                if self._is_lost_end(before):
                    yield self.take(before)
                    self.open.clear()
                    start = place - 1
                self.open += mark
                continue
            if mark in b"}]" and self.open:
                self.open.pop()
                if self.in_array or self.open:
                    continue
                yield self.take(block[start:place])  # an object that stands in no array
            elif not self.open and (mark == b"," or (mark == b"]" and self.in_array)):
                yield self.take(block[start : place - 1])
                self.in_array = self.in_array and mark == b","
            else:
                continue
            start = place
        self._hold(block[start:])

    def _next(self, block: bytes, place: int) -> tuple[bytes, int] | None:
        """Find the next bracket or comma outside strings, and the place after it."""
        while place < len(block):
            if self._escaped:
                self._escaped, place = False, place + 1
                continue
            found = (_INSIDE if self.in_string else _OUTSIDE).search(block, place)
            if found is None:
                return None
            mark, place = found[0], found.end()
            if self.in_string:
                self._escaped = mark == b"\\"
                self.in_string = self._escaped
            elif mark == b'"':
                self.in_string = True
            else:
                return mark, place
        return None

    def _is_blank(self, data: bytes) -> bool:
        data = bytes(self.rest) + data
        return blank_length(data) == len(data)

    def _is_lost_end(self, data: bytes) -> bool:
        """Tell whether a bracket begins a record although the one before has not ended.

        It does where records begin in the same column, and where it cannot be a value of the one
        before: in an array a value follows a comma, in an object a colon.
        """
        if self._indent is None or not self.open:
            return False
        mark = b"\n" + self._indent
        if not (bytes(self.rest[-len(mark) :]) + data[-len(mark) :]).endswith(mark):
            return False
        before = (bytes(self.rest[-_NEAR:]) + data[-_NEAR:]).rstrip()[-1:]
        return before not in ((b"[", b",") if self.open.endswith(b"[") else (b":",))

    def take(self, data: bytes = b"") -> tuple[int, bytes | None]:
        """Give the record that ends with these bytes, or None where it is too long, and its line.

        Blank bytes are no record.
        """
        self._hold(data)
        record = None if self._too_long else bytes(self.rest)
        line = self._start_line
        if record and record.strip():
            lead = record[: blank_length(record)]
            if b"\n" in lead or self._indent is None:
                self._indent = lead.rpartition(b"\n")[2]
        self.rest.clear()
        self._too_long = False
        self._start_line = self.line
        return line, record

    def _hold(self, data: bytes) -> None:
        self.line += data.count(b"\n")
        self._too_long = self._too_long or len(self.rest) + len(data) > RECORD_BYTES
        if self._too_long:
            self.rest.clear()
        else:
            self.rest += data
