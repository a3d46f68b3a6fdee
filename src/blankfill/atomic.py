"""Files and folders that appear whole or not at all.

What is written lies under a temporary name beside its place, reaches the disk, and is renamed.
Where that fails nothing is left; a process that is killed leaves the temporary name at most.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["flush", "new_file", "new_folder", "temporary_pattern", "write_text"]


@contextmanager
def new_file(path: Path) -> Generator[Path]:
    """Give the name to write a file under, which then becomes `path`, over what stood there.

    Args:
        path: the file; its folder exists.
    """
    temporary = _beside(path)
    try:
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Generator[Path]:
    """Give an empty folder to fill, which then becomes `path`, where nothing or an empty one is.

    Args:
        path: the folder; those above it are made, and go again where this fails.
    """
    temporary = _beside(path)
    made = [folder for folder in temporary.parents if not folder.exists()]
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):  # another process has put something there
                folder.rmdir()
        raise


def write_text(path: Path, text: str, *, errors: str = "strict") -> None:
    """Write a file of UTF-8.

    Args:
        path: the file; its folder exists.
        text: all of it.
        errors: what becomes of lone surrogates, as `str.encode` takes it.
    """
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors=errors)


def flush(path: Path) -> None:
    """Wait until the disk has a file or folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def temporary_pattern(name: str) -> str:
    """Give the pattern of what a process that was killed leaves of a file or folder."""
    return f".{name}.*.tmp"


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")
