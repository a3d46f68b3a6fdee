"""Renames that replace only what they should, in one step where the system can.

Linux exchanges two names atomically (renameat2). The replaced item is checked after the exchange,
and put back if it is not what was expected. Other systems need two steps, and between them the
place is empty for a moment.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import shutil
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

from blankfill import atomic

__all__ = ["keep_beside", "put", "remove"]

log = logging.getLogger(__name__)


def put(
    new: Path, target: Path, before: tuple[int, int] | None, foreign: Callable[[Path], str]
) -> str:
    """Rename `new` to `target`, unless what stands there has changed since `before` was read.

    Returns:
        "", or what stands there now, as the rest of a sentence; then nothing was changed.
    """
    if _rename_into_nothing(new, target):
        return ""
    if new.is_dir() and target.is_dir() and not target.is_symlink():
        try:
            os.rename(new, target)  # which replaces an empty folder and no other
            return ""
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    if before is None:
        return "has appeared"
    if reason := _changed(target, before, foreign):
        return reason
    old = _exchange(new, target)
    if reason := _changed(
        old, before, foreign
    ):  # something changed between the check and the rename
        _exchange_back(old, new, target)
        return reason
    remove(old)
    return ""


def _changed(path: Path, before: tuple[int, int], foreign: Callable[[Path], str]) -> str:
    found = path.lstat()
    if (found.st_dev, found.st_ino) != before:
        return "was replaced by another"
    return foreign(path)


def keep_beside(folder: Path, target: Path) -> Path:
    """Give a finished folder the first name that is free beside its place."""
    for number in count(2):
        kept = target.with_name(f"{target.name}-{number}")
        if not os.path.lexists(kept) and _rename_into_nothing(folder, kept):
            return kept
    raise AssertionError


def remove(path: Path) -> None:
    """Remove a file, or a folder with its content; log a warning where that fails."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        log.warning("%s could not be removed (%s)", path, error)


_AT_FDCWD, _NOREPLACE, _EXCHANGE = -100, 1, 2  # linux/fcntl.h, linux/fs.h
_NOT_HERE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)


def _renameat2(source: Path, target: Path, flags: int) -> int | None:
    """Call renameat2(2): an error number, 0 on success, None where the system has no such call."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    names = os.fsencode(source), os.fsencode(target)
    if function(_AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(flags)) == 0:
        return 0
    number = ctypes.get_errno()
    return None if number in _NOT_HERE else number


def _rename_into_nothing(source: Path, target: Path) -> bool:
    """Rename where nothing stands; False where something does."""
    number = _renameat2(source, target, _NOREPLACE)
    if number is None:
        if os.path.lexists(target):
            return False
        os.rename(source, target)
        return True
    if number not in (0, errno.EEXIST):
        raise OSError(number, os.strerror(number), str(target))
    return number == 0


def _exchange(new: Path, target: Path) -> Path:
    """Put `new` in the place of `target`; give the name that the old has then."""
    number = _renameat2(new, target, _EXCHANGE)
    if number == 0:
        return new
    if number is not None:
        raise OSError(number, os.strerror(number), str(target))
    # In two steps; a process that is killed between them has its old one put back (`_sweep`).
    old = atomic.beside(target, "old")
    os.rename(target, old)
    try:
        os.rename(new, target)
    except BaseException:
        os.rename(old, target)
        raise
    return old


def _exchange_back(old: Path, new: Path, target: Path) -> None:
    if old == new:
        _exchange(old, target)
    else:
        os.rename(target, new)
        os.rename(old, target)
