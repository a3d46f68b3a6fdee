"""Token stores that lie elsewhere, read through fsspec: `https://host/store`, `s3://bucket/store`.

Their manifest and tokenizer are fetched when they are opened, a shard when a document of it is
asked for, or a group of them while the one before it is read: whole files into the cache
(`cache.py`), each compared with the hash that the manifest names. fsspec is imported here alone,
and only when an address is opened.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar, cast

from blankfill.data.cache import FileCache, shown_bytes
from blankfill.data.manifest import MANIFEST
from blankfill.data.shard import ShardEntry
from blankfill.disk.address import address_of
from blankfill.errors import BlankfillError, DataError
from blankfill.text.tokenizer import INNER_TOKENIZER

__all__ = ["RemoteFiles", "fetch_description"]

log = logging.getLogger(__name__)

TRIES = 4
"""How often a file is asked for before the work ends."""
FIRST_WAIT_SECONDS = 1.0
"""Before the second try; twice as long before each further one."""
FETCHED_AT_ONCE = 8
"""Shards that are fetched side by side."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OURS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EMFILE})
"""What the disk of the cache says, and no place elsewhere."""

T = TypeVar("T")


class FileSystem(Protocol):
    """What is used of fsspec."""

    def cat_file(self, path: str, /) -> bytes:
        """Read a file."""
        ...

    def get_file(self, rpath: str, lpath: str, /) -> None:
        """Copy a file to this machine."""
        ...


def fetch_description(path: str | Path) -> tuple[Path, RemoteFiles]:
    """Fetch what opening a store needs.

    Args:
        path: its address.

    Returns:
        A folder of this machine with its manifest and its tokenizer, and where its shards are.

    Raises:
        DataError: fsspec is missing, or the store cannot be had.
        OutputError: the cache cannot be written.
    """
    address = address_of(path)
    file_system, root = _file_system(address)
    files = RemoteFiles(address, file_system, root, FileCache.here())
    return files.describe(), files


class RemoteFiles:
    """The files of a store that lies elsewhere.

    Args:
        address: its address, as it is shown.
        file_system: where it lies.
        root: its path there.
        cache: where its files are kept.
    """

    def __init__(self, address: str, file_system: FileSystem, root: str, cache: FileCache) -> None:
        self.address = self.shown = address
        self._file_system, self._root, self._cache = file_system, root.rstrip("/"), cache
        self._expected: list[ShardEntry] = []

    def describe(self) -> Path:
        """Fetch manifest and tokenizer, and give the folder that holds them."""
        manifest = self._content(MANIFEST)

        def fill(folder: Path) -> None:
            (folder / MANIFEST).write_bytes(manifest)
            for name in INNER_TOKENIZER.files:  # which of them there are, no address lists
                if content := self._content(f"tokenizer/{name}", may_lack=True):
                    (folder / "tokenizer").mkdir(exist_ok=True)
                    (folder / "tokenizer" / name).write_bytes(content)

        return self._cache.describe(manifest, fill)

    def check(self, entries: Sequence[ShardEntry]) -> None:
        """Require the hash of every file; the files themselves are compared when they come.

        Raises:
            ValueError: one is missing.
        """
        for entry in entries:
            for name in entry.sizes:
                if not _SHA256.fullmatch(str(entry.sha256.get(name))):
                    where = f"{entry.name}/{name}".lstrip("/")
                    raise ValueError(f"its manifest names no SHA-256 of {where}")

    def ready(self, entries: Sequence[ShardEntry]) -> None:
        """Fetch what is not in the cache, several shards side by side."""
        missing: list[ShardEntry] = []
        room = self._cache.limit_bytes
        for entry in entries:
            room -= entry.num_bytes
            files = entry.sizes.items()
            if room >= 0 and any(not self._cache.find(entry.sha256[n], size) for n, size in files):
                missing.append(entry)
        if not missing:
            return
        size = sum(entry.num_bytes for entry in missing)
        log.info("fetching %d shards (%s) of %s", len(missing), shown_bytes(size), self.shown)
        with ThreadPoolExecutor(FETCHED_AT_ONCE, thread_name_prefix="fetch") as pool:
            waiting = [pool.submit(self.of, entry) for entry in missing]
            try:
                for one in waiting:
                    one.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def expect(self, entries: Sequence[ShardEntry], beside: Sequence[ShardEntry]) -> None:
        """Fetch shards on a thread, one file after another, where the cache holds them beside
        others that are read; what cannot be had is said when it is needed."""
        size = sum(entry.num_bytes for entry in (*entries, *beside))
        if size <= self._cache.limit_bytes and entries != self._expected:
            self._expected = list(entries)
            threading.Thread(
                target=self._fetch_ahead, args=(self._expected,), name="fetch ahead", daemon=True
            ).start()

    def _fetch_ahead(self, entries: list[ShardEntry]) -> None:
        for entry in entries:
            if self._expected is not entries:
                return  # the next ones are on their way
            try:
                self.of(entry)
            except (BlankfillError, OSError) as error:
                log.debug("fetching ahead: %s", error)
                return

    def of(self, entry: ShardEntry) -> Mapping[str, Path]:
        """Give the files of a shard by name, fetched where they are not in the cache.

        Raises:
            DataError: one cannot be had, or holds something else.
            OutputError: the cache is too small, or its disk refuses.
        """
        self._cache.require_room(entry.num_bytes, self._path(entry.name))
        return {name: self._file(entry, name, size) for name, size in entry.sizes.items()}

    def _file(self, entry: ShardEntry, name: str, size: int) -> Path:
        sha256 = entry.sha256[name]
        remote = self._path(f"{entry.name}/{name}".lstrip("/"))

        def download(part: Path) -> None:
            self._patiently(remote, lambda: self._get(remote, part, size, sha256))

        return self._cache.find(sha256, size) or self._cache.fetch(sha256, size, download, remote)

    def _get(self, remote: str, part: Path, size: int, sha256: str) -> None:
        self._file_system.get_file(remote, str(part))
        found = part.stat().st_size
        if found != size:
            raise ValueError(f"it has {found:,} bytes, and the store's manifest says {size:,}")
        with part.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise ValueError("its SHA-256 is not the one in the store's manifest: it was "
                                 "damaged, or is another store's")  # fmt: skip

    def _content(self, name: str, *, may_lack: bool = False) -> bytes:
        """Read a small file; nothing where it may lack and does."""
        remote = self._path(name)
        try:
            return self._patiently(remote, lambda: self._file_system.cat_file(remote))
        except _AbsentError as error:
            if may_lack:
                return b""
            raise DataError(
                f"there is no token store at {self.shown}: {error}; name a folder that "
                "`blankfill data build` wrote, and that was copied there"
            ) from error

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")

    def _patiently(self, remote: str, work: Callable[[], T]) -> T:
        """Do something with a file that lies elsewhere, again where it fails.

        Raises:
            DataError: it cannot be had.
            OSError: the disk of this machine refuses.
        """
        for left in reversed(range(TRIES)):
            try:
                return work()
            except (FileNotFoundError, PermissionError) as error:
                refused = "is not there" if isinstance(error, FileNotFoundError) else "is closed"
                raise _AbsentError(f"{remote} {refused}") from error
            except Exception as error:  # every file system has errors of its own
                if isinstance(error, OSError) and error.errno in _OURS:
                    raise
                if not left:
                    raise DataError(
                        f"{remote} cannot be had, after {TRIES} tries ({_shown(error)}); see "
                        "whether the place can be reached, or copy the store there again"
                    ) from error
                log.debug("%s: %s", remote, error)
            time.sleep(FIRST_WAIT_SECONDS * 2 ** (TRIES - 1 - left))
        raise AssertionError


class _AbsentError(DataError):
    """A file that is not there, or may not be read."""


def _shown(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__


def _file_system(address: str) -> tuple[FileSystem, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise DataError(
            f"{address} lies elsewhere, and fsspec, which reads it, is not installed: "
            "pip install 'blankfill[remote]', or copy the store to this machine"
        ) from error
    try:
        file_system, root = url_to_fs(address)
    except ImportError as error:
        raise DataError(f"{address} cannot be read: {_shown(error)}") from error
    except ValueError as error:
        raise DataError(
            f"{address} cannot be read: {_shown(error)}; a folder of this machine is named by "
            "its path, and stands there"
        ) from error
    return cast("FileSystem", file_system), root
