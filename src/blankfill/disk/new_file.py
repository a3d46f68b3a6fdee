"""A single file for the user, such as a report or a picture: `publish.py`'s rule for one file.

    with NewFile(out, "a report", is_report) as file:   # links followed, name locked, checked
        file.write(data)                                # checked again, and put in its place

Pipes and devices are written into.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from blankfill import atomic
from blankfill.disk.publish import NameLock, refused_by_disk
from blankfill.disk.renames import put
from blankfill.errors import OutputError

__all__ = ["NewFile", "require_writable"]


def require_writable(out: Path, title: str, is_ours: Callable[[Path], bool]) -> None:
    """Find out before long work begins what `NewFile` would say of a place."""
    with NewFile(out, title, is_ours):
        pass


class NewFile:
    """A file that is being written for the user; it appears when it is complete.

        with NewFile(out, "a report", is_report) as file:
            file.write(data)

    Args:
        out: the file, as the user named it; or a pipe or device, which is written into.
        title: what such a file is called.
        is_ours: tells of a file that exists whether blankfill wrote it, so that it is replaced.

    Raises:
        OutputError: it would be lost, is being written by another process, or cannot be written.
    """

    def __init__(self, out: Path, title: str, is_ours: Callable[[Path], bool]) -> None:
        self._shown, self._title, self._is_ours = out, title, is_ours
        self._name: NameLock | None = None
        with refused_by_disk(out):
            self._into = _is_stream(out)
            if self._into:
                return
            self._name = NameLock(out)
        try:
            with refused_by_disk(out):
                self._before = self._look(self._name.path)
        except BaseException:
            self._name.release()
            raise

    def write(self, data: bytes) -> None:
        """Write all of it.

        Raises:
            OutputError: something else took the place meanwhile, or the disk refuses.
        """
        with refused_by_disk(self._shown):
            if self._into:
                with self._shown.open("ab", buffering=0) as file:
                    left = memoryview(data)
                    while left:
                        left = left[file.write(left) or 0 :]
                return
            assert self._name is not None
            target = self._name.path
            temporary = atomic.beside(target, "tmp")
            try:
                temporary.write_bytes(data)
                atomic.flush(temporary)
                if reason := put(temporary, target, self._before, self._foreign):
                    raise OutputError(f"{self._shown} {reason} since the work began, so it stays "
                                      "as it is; name another file")  # fmt: skip
            finally:
                temporary.unlink(missing_ok=True)

    def _look(self, target: Path) -> tuple[int, int] | None:
        try:
            found = target.stat()
        except FileNotFoundError:
            return None
        if stat.S_ISDIR(found.st_mode):
            raise OutputError(
                f"{self._shown} is a folder; name a file, such as {self._shown / 'NAME'}"
            )
        if self._foreign(target):
            raise OutputError(
                f"{self._shown} is not {self._title} and would be lost; name another file"
            )
        return found.st_dev, found.st_ino

    def _foreign(self, path: Path) -> str:
        empty = (
            path.is_file() and not path.stat().st_size
        )  # an empty file, as `mktemp` and `touch` make it
        return "" if empty or (path.is_file() and self._is_ours(path)) else "has come to be"

    def __enter__(self) -> NewFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._name is not None:
            self._name.release()


def _is_stream(out: Path) -> bool:
    """Tell a pipe or a device, which is written into, from a place for a file."""
    try:
        mode = out.stat().st_mode
    except OSError:
        return False  # what it is will be said when it is locked
    if stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        raise OutputError(f"{out} is a disk or a socket; name a file")
    # What a descriptor leads to is already open; a new file of that name would not be read.
    held = os.path.abspath(out).startswith(("/dev/fd/", "/dev/std", "/proc/"))
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or (held and stat.S_ISREG(mode))
