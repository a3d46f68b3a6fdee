"""Access to paths that are not UTF-8, for libraries that take only UTF-8 names."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["readable_name"]


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
