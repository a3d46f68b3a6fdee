"""Files that appear whole or not at all.

What is written lies under a temporary name beside its place, reaches the disk, and is renamed.
Where that fails nothing is left; a process that is killed leaves the temporary name at most. This
is for files of a folder that the process owns; what a user names is published (`disk/publish.py`).
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from blankfill.disk import json_files

__all__ = ["beside", "flush", "new_file", "write_json", "write_text"]


@contextmanager
def new_file(path: Path) -> Generator[Path]:
    """Give the name to write a file under, which then becomes `path`, over what stood there.

    Where `path` is a link, the file that it leads to is replaced and the link stays.

    Args:
        path: the file; its folder exists.
    """
    path = Path(os.path.realpath(path))
    temporary = beside(path, "tmp")
    try:
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, errors: str = "strict") -> None:
    """Write a file of UTF-8.

    Args:
        path: the file; its folder exists.
        text: all of it.
        errors: what becomes of lone surrogates, as `str.encode` takes it.
    """
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors=errors)


def write_json(path: Path, value: Any, *, indent: int = 2) -> None:
    """Write a file of JSON."""
    with new_file(path) as temporary:
        temporary.write_bytes(json_files.encode(value, indent=indent))


def flush(path: Path) -> None:
    """Wait until the disk has a file or folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def beside(path: Path, ending: str) -> Path:
    """Name what this process keeps beside `path` for a while."""
    return path.with_name(f".{path.name}.{os.getpid()}.{ending}")
