"""Paths for others: a library that takes only UTF-8 names, and a shell."""

from __future__ import annotations

import os
import shlex
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["readable_name", "resume_option", "shell_word"]


@contextmanager
def readable_name(path: Path) -> Generator[str]:
    """Give a name by which a library can open a file, or what lies in a folder.

    It is the path itself, or where that is not UTF-8 another name, valid inside the block.

    Only Linux has such names, and there an open file has a second one.

    Raises:
        OSError: it cannot be opened.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        handle = os.open(path, os.O_RDONLY)
        try:
            yield f"/proc/self/fd/{handle}"
        finally:
            os.close(handle)
    else:
        yield os.fspath(path)


def shell_word(path: str | Path) -> str:
    """Write a path as a word that a shell reads as this path.

    What cannot be printed, or is not UTF-8, is written by its bytes, as bash and zsh read them.
    """
    text = os.fspath(path)
    if text.isprintable():
        return shlex.quote(text)
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b"\\'" else f"\\{byte:03o}"
             for byte in os.fsencode(text))  # fmt: skip
    return f"$'{''.join(plain)}'"


def resume_option(run: str | Path) -> str:
    """Write the option by which `pretrain` goes on with a run, for a shell."""
    word = shell_word(run)
    return f"--resume={word}" if str(run).startswith("-") else f"--resume {word}"
