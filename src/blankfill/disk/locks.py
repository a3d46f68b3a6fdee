"""Locks that are released when the process ends, for whatever reason."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["lock_file", "try_lock", "waiting_lock"]

_WAIT_SECONDS = 0.05
"""Between two looks at a lock that another process holds."""


def try_lock(handle: int) -> bool | None:
    """Lock an open file or folder for this process alone.

    Returns:
        True when it is ours, False when another holds it, None where there are no locks: the user
        has to take care that only one process writes.
    """
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return None
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    return True


def lock_file(path: Path) -> tuple[int, bool | None]:
    """Make a file and lock it.

    Returns:
        Its handle, and what `try_lock` says of it.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        locked = try_lock(handle)
        try:
            current = path.stat().st_ino == os.fstat(handle).st_ino
        except FileNotFoundError:
            current = False
        if current or locked is False:
            return handle, locked
        os.close(handle)  # its holder has removed it meanwhile; a file made now is another one


@contextmanager
def waiting_lock(path: Path) -> Generator[None]:
    """Hold the lock of a file, made for it and removed after it; wait where another holds it.

    Raises:
        OSError: the file cannot be made.
    """
    while True:
        handle, locked = lock_file(path)
        if locked is not False:
            break
        os.close(handle)
        time.sleep(_WAIT_SECONDS)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before the lock ends: see `lock_file`
        os.close(handle)
