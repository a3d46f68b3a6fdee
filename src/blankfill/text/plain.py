"""Plain text cut into documents: whole files, paragraphs, or lines.

A document is never larger than `TEXT_BYTES`: what is larger is cut after a paragraph, else a line,
else a space, else between characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Literal

from blankfill.text.compressed import DamagedFileError
from blankfill.text.kinds import blank_length
from blankfill.text.records import Record

__all__ = ["TEXT_BYTES", "Unit", "text_records"]

TEXT_BYTES = 4 << 20
"""A larger document becomes several of at most this size."""

Unit = Literal["file", "paragraph", "line"]
"""What of a plain text is one document."""

_WHITE_SPACE = b" \t\r\n\v\f"
_EMPTY_LINES = re.compile(rb"(?:[ \t\r\v\f]*+\n)*+")
_ENDS = {"paragraph": re.compile(rb"\n(?:[ \t\r\v\f]*+\n)+"), "line": re.compile(rb"\n")}


def text_records(path: str, blocks: Iterable[bytes], unit: Unit) -> Iterator[Record]:
    """Cut a text.

    Args:
        path: the file.
        blocks: its bytes in UTF-8.
        unit: what is a document; the white space between paragraphs or lines is none of theirs.

    Yields:
        Records in order, numbered by piece (file) or by the line that they begin in.

    Raises:
        DamagedFileError: after all that could be read.
    """
    yield from _files(path, blocks) if unit == "file" else _units(path, blocks, _ENDS[unit])


def _files(path: str, blocks: Iterable[bytes]) -> Iterator[Record]:
    held = bytearray()
    piece = 0
    damage: DamagedFileError | None = None
    try:
        for block in blocks:
            held += block
            while len(held) > TEXT_BYTES:
                piece += 1
                stop = _cut(held, TEXT_BYTES)
                yield Record(bytes(held[:stop]), "text", path, piece)
                del held[:stop]
    except DamagedFileError as error:
        damage = error
        del held[_whole_characters(held) :]
    yield Record(bytes(held), "text", path, piece + 1 if piece else 0)
    if damage is not None:
        raise damage


def _units(path: str, blocks: Iterable[bytes], end: re.Pattern[bytes]) -> Iterator[Record]:
    held, line = b"", 1
    damage: DamagedFileError | None = None
    try:
        for block in blocks:
            held += block
            # White space at the end of the block may go on in the next.
            last, start = len(held.rstrip(_WHITE_SPACE)), 0
            for found in end.finditer(held):
                if found.start() >= last:
                    break
                yield from _record(path, held[start : found.start()], line)
                line += held.count(b"\n", start, found.end())
                start = found.end()
            held = held[start:]
            while len(held) > TEXT_BYTES:
                stop = _cut(held, TEXT_BYTES)
                yield from _record(path, held[:stop], line)
                line += held.count(b"\n", 0, stop)
                held = held[stop:]
    except DamagedFileError as error:
        damage = error
        held = held[: _whole_characters(held)]
    yield from _record(path, held, line)
    if damage is not None:
        raise damage


def _record(path: str, data: bytes, line: int) -> Iterator[Record]:
    lead = _EMPTY_LINES.match(data)
    if lead is not None and lead.end():
        line += data.count(b"\n", 0, lead.end())
        data = data[lead.end() :]
    data = data.rstrip(_WHITE_SPACE)
    if blank_length(data) < len(data):
        yield Record(data, "text", path, line)


def _whole_characters(data: bytes | bytearray) -> int:
    """Count the bytes up to a character of UTF-8 that the end cuts through."""
    for back in range(1, min(4, len(data)) + 1):
        lead = data[-back]
        if lead & 0xC0 != 0x80:
            size = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            return len(data) - back if size > back else len(data)
    return len(data)


def _cut(data: bytes | bytearray, limit: int) -> int:
    """Find where to cut: after a paragraph, else a line, else a space, else between characters."""
    for mark in (b"\n\n", b"\n", b" "):
        stop = data.rfind(mark, limit // 2, limit)
        if stop >= 0:
            return stop + len(mark)
    stop = limit
    while stop > limit - 4 and data[stop] & 0xC0 == 0x80:
        stop -= 1
    return stop
