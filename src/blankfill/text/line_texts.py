"""Texts of a user, one a line: from stdin or files of any length, some at a time.

A line ends in a line feed, or in a carriage return and a line feed; all else is text, and empty
lines are passed over. In JSON lines (`.jsonl`) a line is a JSON string, or an object with a string
`text`, so that a text may hold line breaks. Files may be compressed. A line that cannot be used
comes with its error, so that the others can be.

What has arrived is given at once, so that a program which writes a line and waits gets its answer.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from blankfill.errors import DataError, RequestError
from blankfill.text.compressed import MAGIC_BYTES, DamagedFileError, is_packed, read_blocks
from blankfill.text.user_text import UserText

__all__ = ["MOST_TEXTS", "LineFile", "lines_of_files", "lines_of_stdin"]

MOST_TEXTS = 256
"""Most texts that are given at a time."""
LONGEST_LINE = 2**24
"""Bytes of the longest line that is kept; no model reads as many."""
BLOCK_BYTES = 2**16
_MARK = b"\xef\xbb\xbf"
_JSON_ENDINGS = (".jsonl", ".ndjson")
_PACKED_ENDINGS = (".gz", ".bz2", ".xz", ".zst")


@dataclass(frozen=True, slots=True)
class LineFile:
    """A file whose lines are texts."""

    path: Path
    is_json: bool
    """Whether each line is JSON."""
    num_texts: int | None
    """Its texts; None where they cannot be counted beforehand."""


def lines_of_stdin() -> Iterator[list[UserText]]:
    """Read stdin's texts, as they arrive.

    Raises:
        RequestError: stdin is closed or cannot be read.
    """
    if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]  # so where it was closed
        raise RequestError("stdin is closed; give the text as an argument, or a file as stdin")
    stream = sys.stdin.buffer
    # Of what a test or a caller put in its place only `read` is sure to be there.
    read = cast("Any", getattr(stream, "read1", stream.read))

    def blocks() -> Generator[bytes]:
        try:
            while block := read(BLOCK_BYTES):
                yield block
        except OSError as error:
            raise RequestError(f"stdin cannot be read ({error})") from error

    return _texts(blocks(), "", is_json=False)


def lines_of_files(paths: Sequence[Path]) -> tuple[list[LineFile], Iterator[list[UserText]]]:
    """Read the texts of files, one after the other.

    Returns:
        The files, and their texts.

    Raises:
        DataError: one is missing, a folder, or cannot be read.
    """
    files = [_look(path) for path in paths]
    several = len(files) > 1

    def texts() -> Iterator[list[UserText]]:
        for file in files:
            prefix = f"{file.path}, " if several else ""
            with _opened(file.path) as stream:
                yield from _texts(read_blocks(stream), prefix, is_json=file.is_json)

    return files, texts()


def _look(path: Path) -> LineFile:
    """Find out what a file is, and how many texts it has."""
    name = path.name.lower()
    for ending in _PACKED_ENDINGS:
        name = name.removesuffix(ending)
    is_json = name.endswith(_JSON_ENDINGS)
    if path.exists() and not path.is_file() and not path.is_dir():
        return LineFile(path, is_json, None)  # a pipe is read once
    with _opened(path) as stream:
        if is_packed(stream.read(MAGIC_BYTES)):
            return LineFile(path, is_json, None)
        stream.seek(0)
        return LineFile(path, is_json, sum(1 for line in stream if line.strip()))


@contextlib.contextmanager
def _opened(path: Path) -> Generator[BinaryIO]:
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder; name files of texts, one a line")
        stream = path.open("rb")
        with stream:
            yield stream
    except DamagedFileError as error:
        raise DataError(f"{path} is damaged: {error}; restore it") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read, {error.strerror}") from error


def _texts(blocks: Iterable[bytes], prefix: str, *, is_json: bool) -> Iterator[list[UserText]]:
    """Cut bytes into texts: those of a block together, as many as may be given at a time."""
    number = 0
    texts: list[UserText] = []
    for lines in _lines(blocks):
        for line in lines:
            number += 1
            text = _text(line, f"{prefix}line {number:,}" if prefix else f"line {number}")
            if text is not None:
                texts.append(_parsed(text) if is_json and text.error is None else text)
            if len(texts) == MOST_TEXTS:
                yield texts
                texts = []
        if texts:
            yield texts
            texts = []


def _lines(blocks: Iterable[bytes]) -> Iterator[list[bytes | None]]:
    """Cut blocks into lines, without their ends; None of one that is too long to be kept."""
    rest, first, too_long = b"", True, False
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        lines: list[bytes | None] = [line.removesuffix(b"\r") for line in whole]
        if lines and too_long:
            lines[0], too_long = None, False
        if len(rest) > LONGEST_LINE:
            rest, too_long = b"", True
        if lines:
            if first and lines[0] is not None:
                lines[0] = lines[0].removeprefix(_MARK)
            first = False
            yield lines
    if rest or too_long:
        last = rest.removeprefix(_MARK) if first else rest
        yield [None if too_long else last]


def _text(line: bytes | None, place: str) -> UserText | None:
    """Make a text of a line; None of one that is empty."""
    if line is None:
        return UserText("", place, f"it is longer than {LONGEST_LINE:,} bytes; cut it")
    try:
        text, error = line.decode(), None
    except UnicodeDecodeError as wrong:
        text = line.decode(errors="replace")
        error = f"it is not UTF-8 at byte {wrong.start}; convert it to UTF-8 first"
    return UserText(text, place, error) if text.strip() else None


def _parsed(text: UserText) -> UserText:
    """Take the text of a line of JSON."""
    try:
        value: object = json.loads(text.text)
    except (ValueError, RecursionError):
        return replace(text, error="it is not JSON; a line of JSON lines is a string or an object")
    if isinstance(value, dict):
        value = cast("dict[str, object]", value).get("text")
    if not isinstance(value, str):
        return replace(text, error='it has no text; write a string, or an object with a "text"')
    return replace(text, text=value)
