"""Files of stores that lie elsewhere, kept on this machine up to a stated size.

    CACHE/
      objects/SHA256          a file of a shard, named by the hash of its content
      objects/.SHA256.SIZE.PROCESS.part   one that is being fetched; its name reserves its bytes
      objects/.SHA256.lock    held while it is
      objects/.room.lock      held while room is made
      stores/SHA256/          manifest and tokenizer of a store, by the hash of the manifest

What a file holds is what it is named, so any number of processes and stores share one cache, and a
store that was built anew never meets an old file. A file appears when it is complete and its hash
was compared. Where room is needed the files that were used longest ago go; a process that has one
mapped keeps it until it lets go of the map.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from blankfill.atomic import beside
from blankfill.disk.locks import lock_file, waiting_lock
from blankfill.disk.ownership import temporaries
from blankfill.disk.publish import why
from blankfill.disk.renames import remove
from blankfill.errors import ConfigError, OutputError
from blankfill.runtime import cache_folder

__all__ = ["CACHE", "CACHE_GB", "FileCache", "shown_bytes"]

CACHE, CACHE_GB = "BLANKFILL_CACHE", "BLANKFILL_CACHE_GB"
"""Environment variables: its folder, and most gigabytes (10^9 bytes) of its files."""
USUAL_GB = 40.0
"""Where none is stated: two groups of a store of 16-bit ids, and as much again (`manifest.py`)."""
WAIT_SECONDS = 0.05
"""Between two looks for room that others take."""
_PART = re.compile(r"\.(?P<sha>[0-9a-f]{64})\.(?P<size>\d+)\.\d+\.part")
_OBJECT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class FileCache:
    """A cache of files by the hash of their content."""

    folder: Path
    """Where it is."""
    limit_bytes: int
    """Most bytes of its files."""

    @classmethod
    def here(cls) -> FileCache:
        """Give the cache that the environment names, or the usual one.

        Raises:
            ConfigError: its size is no number above 0.
            OutputError: there is no place for it.
        """
        text = os.environ.get(CACHE_GB) or str(USUAL_GB)
        try:
            size = float(text)
        except ValueError:
            size = math.nan
        if not 0 < size < math.inf:
            raise ConfigError(
                f"{CACHE_GB}={text!r} in the environment is not a number of gigabytes above 0, "
                f"such as {USUAL_GB:g}"
            )
        if named := os.environ.get(CACHE):
            folder = Path(named)
        else:
            try:
                folder = cache_folder() / "stores"
            except OSError as error:
                raise OutputError(
                    f"{error.strerror or error}, or name a folder with {CACHE}"
                ) from error
        return cls(folder=folder, limit_bytes=int(size * 1e9))

    def find(self, sha256: str, size: int) -> Path | None:
        """Give a file that is there whole, and mark it as used; None where it is not."""
        path = self.folder / "objects" / sha256
        try:
            os.utime(path)
            return path if path.stat().st_size == size else None
        except OSError:
            return None

    def fetch(self, sha256: str, size: int, download: Callable[[Path], None], name: str) -> Path:
        """Give a file, fetched where it is not there.

        Args:
            sha256: of its content.
            size: its bytes.
            download: writes it under a name; tried again by itself where that may help.
            name: what it is called in messages.

        Raises:
            DataError: it cannot be had, or holds something else.
            OutputError: the cache is too small, or its disk refuses.
        """
        self.require_room(size, name)
        target = self.folder / "objects" / sha256
        with self._writing():
            target.parent.mkdir(parents=True, exist_ok=True)
            with waiting_lock(target.with_name(f".{sha256}.lock")):
                if found := self.find(sha256, size):  # another process has fetched it meanwhile
                    return found
                for left in target.parent.glob(f".{sha256}.*.part"):
                    left.unlink(missing_ok=True)  # of a process that was killed: the lock is ours
                part = target.with_name(f".{sha256}.{size}.{os.getpid()}.part")
                self._make_room(part, size)
                try:
                    download(part)
                    os.replace(part, target)
                finally:
                    part.unlink(missing_ok=True)
        return target

    def describe(self, content: bytes, fill: Callable[[Path], None]) -> Path:
        """Give the folder of a store's manifest and tokenizer, made where it is not there.

        Args:
            content: the manifest.
            fill: writes all files into a new folder.
        """
        name = hashlib.sha256(content).hexdigest()
        folder = self.folder / "stores" / name
        with self._writing():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with waiting_lock(folder.with_name(f".{name}.lock")):
                for left in temporaries(folder.parent, name):
                    remove(left)
                if not folder.is_dir():
                    temporary = beside(folder, "tmp")
                    temporary.mkdir()
                    try:
                        fill(temporary)
                        os.rename(temporary, folder)
                    except BaseException:
                        remove(temporary)
                        raise
        return folder

    @contextmanager
    def _writing(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"the cache in {self.folder} cannot be written ({why(error, self.folder)}); free "
                f"some space there, name another folder with {CACHE}, or a smaller size with "
                f"{CACHE_GB}"
            ) from error

    def require_room(self, size: int, name: str) -> None:
        """Refuse what is larger than the whole cache.

        Raises:
            OutputError: with the size that would do.
        """
        if size > self.limit_bytes:
            raise OutputError(
                f"{name} has {shown_bytes(size)}, and the cache in {self.folder} may hold "
                f"{shown_bytes(self.limit_bytes)}; state a larger one with {CACHE_GB}"
            )

    def _make_room(self, part: Path, size: int) -> None:
        """Reserve the bytes of a file, after removing what was used longest ago.

        Where what others fetch takes the room, wait until it is there and may be removed.
        """
        while True:
            with waiting_lock(part.with_name(".room.lock")):
                kept, under_way = self._content(part.parent)
                room = self.limit_bytes - under_way - size
                if room >= 0:
                    room -= sum(bytes_ for _, bytes_, _ in kept)
                    for _, freed, path in sorted(kept):
                        if room >= 0:
                            break
                        path.unlink(missing_ok=True)
                        room += freed
                    part.touch()
                    return
            time.sleep(WAIT_SECONDS)

    def _content(self, objects: Path) -> tuple[list[tuple[float, int, Path]], int]:
        """List when each file was used, its bytes and its path; and count what is under way."""
        kept: list[tuple[float, int, Path]] = []
        under_way = 0
        for entry in os.scandir(objects):
            if part := _PART.fullmatch(entry.name):
                if self._is_left(objects / f".{part['sha']}.lock"):
                    Path(entry.path).unlink(missing_ok=True)
                else:
                    under_way += int(part["size"])
            elif _OBJECT.fullmatch(entry.name):
                try:
                    found = entry.stat()
                except FileNotFoundError:
                    continue
                kept.append((found.st_mtime, found.st_size, Path(entry.path)))
        return kept, under_way

    @staticmethod
    def _is_left(lock: Path) -> bool:
        """Tell whether a process that was fetching is gone: its lock is free then."""
        handle, locked = lock_file(lock)
        if locked:
            lock.unlink(missing_ok=True)
        os.close(handle)
        return locked is True


def shown_bytes(count: int) -> str:
    """Say a number of bytes as a person does."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
