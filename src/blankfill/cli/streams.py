"""stdin, stdout and stderr, whatever the caller made of them.

A closed one is the null device from here on: else the next file that is opened would take its
number, and what a library writes to it would land in that file. A character that an encoding lacks
is written as its escape (`\\u4e2d`), in a message and in an answer alike.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Generator
from typing import Any

__all__ = ["can_write", "leave_stdout", "say", "settle_streams", "writing_stdout"]

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def settle_streams() -> None:
    """Open what is closed, and let nothing fail for its encoding."""
    for number, (name, mode) in enumerate(_STREAMS):
        if getattr(sys, name) is not None:
            continue
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
        setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def writing_stdout() -> Generator[None]:
    """Name stdout in what fails while an answer is written to it.

    Raises:
        OSError: it cannot be written; `BrokenPipeError` where the reader has gone.
    """
    try:
        yield
    except OSError as error:
        leave_stdout()
        if error.filename is None and not isinstance(error, BrokenPipeError):
            error.filename = "stdout"
        raise


def leave_stdout() -> None:
    """Let what is still held back go nowhere, so that the interpreter's end does not fail on it."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(sentence: str) -> None:
    """Write a sentence to stderr, where anybody is listening."""
    with contextlib.suppress(OSError, ValueError):
        print(f"blankfill: {' '.join(sentence.split())}", file=sys.stderr, flush=True)


def can_write(text: str, stream: Any) -> bool:
    """Tell whether a stream's encoding has every character of a text."""
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
