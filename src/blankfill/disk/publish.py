"""What a user names with `--out` is written here: only what is ours is replaced, and all at once.

    with new_folder(out, STORE, overwrite=True) as folder:   # links followed, name locked, checked
        ...                                                  # written under a temporary name
                                                             # checked again, and put in its place

One rule for every verb. The name is looked at before work begins: what stands there may be nothing,
an empty folder, or, where it may be replaced, one of our own without anything foreign in it
(`ownership.py`). Meanwhile the name is locked, so a second process that writes it is refused, and
what a killed one left beside it is removed. At the end the name is looked at again, in the moment
that the new takes the place of the old: a folder that has come meanwhile is never touched.

A link is written through: what it leads to is replaced and the link stays. `new_file.py` is the
same for a single file.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from blankfill import atomic
from blankfill.disk.address import address_of, is_address
from blankfill.disk.locks import lock_file
from blankfill.disk.ownership import FolderKind, foreign_in, temporaries
from blankfill.disk.renames import keep_beside, put, remove
from blankfill.errors import OutputError

__all__ = [
    "NameLock", "NewFolder", "emptied", "followed", "new_folder", "publish_all", "refused_by_disk",
    "require_free", "scratch_folder", "why",
]  # fmt: skip


def why(error: OSError, place: Path | str) -> str:
    """Say in words what a disk refused, for a sentence that names the place.

    Args:
        error: what the system said.
        place: the file or folder that was being written.
    """
    where = error.filename or place
    known = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the quota of the disk is used up",
        errno.EFBIG: "a file would be larger than this process may write",
        errno.EROFS: "the disk is read-only",
        errno.EMFILE: "this process has too many files open: raise `ulimit -n`",
        errno.ENFILE: "the system has too many files open",
        errno.EEXIST: f"{where} is no folder",
        errno.ENOTDIR: f"{where} lies below a file, which holds no folders",
        errno.ENAMETOOLONG: f"the name {Path(where).name[:24]!r}... is too long for the disk",
        errno.EACCES: f"{where} may not be written: permission denied",
        errno.EPIPE: f"nobody reads {place} any more",
    }
    return known.get(error.errno or 0, f"{where}: {error.strerror or error}")


@contextmanager
def refused_by_disk(place: Path | str) -> Generator[None]:
    """Turn an error of the disk into one sentence.

    Args:
        place: what is being written, as the user named it.

    Raises:
        OutputError: with the reason.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{place} could not be written ({why(error, place)}); nothing was left there"
        ) from error


def followed(out: Path) -> Path:
    """Follow links to where `out` is written.

    Raises:
        OutputError: it leads nowhere, or is the current folder or one above it.
    """
    if is_address(out):
        raise OutputError(f"{address_of(out)} is an address, and what is written is a folder or a "
                          "file of this machine; name one, and copy it there")  # fmt: skip
    if out.is_symlink() and not out.exists():
        raise OutputError(f"{out} is a link that leads nowhere ({os.readlink(out)}); make what it "
                          "leads to, or remove the link")  # fmt: skip
    path, here = Path(os.path.realpath(out)), Path(os.path.realpath(os.curdir))
    if path == here or path in here.parents:
        raise OutputError(
            f"{str(out)!r} is the current folder or one above it; name a new one, such as "
            f"{out / 'NAME'}"
        )
    return path


class NameLock:
    """A name that this process alone writes, from here to `release`.

    Missing parent folders are made, and removed at `release` if nothing was put into them.

    Args:
        out: the name, as the user gave it.

    Raises:
        OutputError: another process writes it, or nothing can be written there.
    """

    def __init__(self, out: Path) -> None:
        self.shown = out
        self._handle = -1
        with refused_by_disk(out):
            self.path = followed(out)
            """Where it is written: `out` without links."""
            self._lock = self.path.with_name(f".{self.path.name}.lock")
            self._made = [folder for folder in self.path.parents if not folder.exists()]
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._handle, locked = lock_file(self._lock)
                if locked is False:
                    os.close(self._handle)
                    self._handle = -1
                    raise OutputError(
                        f"another process is writing {out}; wait until it has ended, or name "
                        "another --out"
                    )
                if locked:
                    self._sweep()
            except BaseException:
                self.release()
                raise

    def release(self) -> None:
        """Release the name for other processes; calling it again does no harm."""
        if self._handle >= 0:
            self._lock.unlink(missing_ok=True)  # before the lock ends: see `lock_file`
            os.close(self._handle)
            self._handle = -1
        for folder in self._made:
            with suppress(OSError):  # something lies in it
                folder.rmdir()
        self._made = []

    def __enter__(self) -> NameLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _sweep(self) -> None:
        """Remove what killed processes left; the lock proves that none of them is still running."""
        for path in temporaries(self.path.parent, self.path.name):
            if path.suffix == ".old" and not os.path.lexists(self.path):
                os.rename(path, self.path)  # it was killed between two renames
            else:
                remove(path)


class NewFolder:
    """A folder that is being written; it appears when it is complete.

    Args:
        out: the folder, as the user named it.
        kind: what may be replaced; nothing where not given.
        overwrite: whether one of `kind` is replaced.

    Raises:
        OutputError: the name is taken, is being written by another process, or cannot be written.
    """

    def __init__(
        self, out: Path, kind: FolderKind | None = None, *, overwrite: bool = False
    ) -> None:
        self._kind, self._overwrite = kind, overwrite
        self._name = NameLock(out)
        try:
            with refused_by_disk(out):
                self._before = self._look()
                self.path = atomic.beside(self._name.path, "tmp")
                """Where to write what is to be in it; empty at first."""
                self.path.mkdir()
        except BaseException:  # a signal may come before there is a `with` block to end
            self._name.release()
            raise

    def publish(self) -> None:
        """Put the folder in its place.

        Raises:
            OutputError: the place was taken meanwhile; the folder is complete beside it.
        """
        shown, target = self._name.shown, self._name.path
        with refused_by_disk(shown):
            for path in (*(p for p in self.path.rglob("*") if p.is_file()), self.path):
                atomic.flush(path)
            reason = put(self.path, target, self._before, self._foreign)
            if reason:
                kept = keep_beside(self.path, target)
                raise OutputError(
                    f"{shown} {reason} since the work began, so it stays as it is; what was made "
                    f"is complete in {shown.with_name(kept.name)}"
                )
            with suppress(OSError):
                atomic.flush(target.parent)
        self._name.release()

    def discard(self) -> None:
        """Leave nothing, unless it was published."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._name.release()

    def _look(self) -> tuple[int, int] | None:
        """Tell what stands in the place: an identity where that may be replaced, else None."""
        shown, target = self._name.shown, self._name.path
        try:
            found = target.stat()
        except FileNotFoundError:
            return None
        if not stat.S_ISDIR(found.st_mode):
            raise OutputError(f"{shown} is not a folder; name another --out")
        if not any(target.iterdir()):
            return None
        if self._kind is None:
            raise OutputError(f"{shown} already holds something; name a new folder with --out")
        if not self._overwrite:
            raise OutputError(
                f"{shown} exists already; name another --out, or replace {self._kind.title} with "
                "--overwrite"
            )
        if reason := self._foreign(target):
            raise OutputError(f"{shown} {reason}; it is not overwritten: name another --out")
        return found.st_dev, found.st_ino

    def _foreign(self, folder: Path) -> str:
        assert self._kind is not None
        return foreign_in(folder, self._kind)

    def __enter__(self) -> NewFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()


def publish_all(folders: Sequence[NewFolder]) -> None:
    """Put several complete folders in their places; none is lost where one place was taken.

    Raises:
        OutputError: a place was taken meanwhile; that folder is complete beside it.
    """
    refusals: list[str] = []
    for folder in folders:
        try:
            folder.publish()
        except OutputError as error:
            refusals.append(str(error))
    if refusals:
        raise OutputError("; ".join(refusals))


@contextmanager
def new_folder(
    out: Path, kind: FolderKind | None = None, *, overwrite: bool = False
) -> Generator[Path]:
    """Give an empty folder to fill, which becomes `out` at the end and vanishes where that fails.

    Takes and raises what `NewFolder` does; an error of the disk becomes an OutputError.
    """
    with NewFolder(out, kind, overwrite=overwrite) as folder:
        with refused_by_disk(out):
            yield folder.path
        folder.publish()


def require_free(out: Path) -> None:
    """Find out before long work begins what `new_folder` would say of a place.

    Raises:
        OutputError: it is taken, is being written by another process, or cannot be written.
    """
    NewFolder(out).discard()


@contextmanager
def scratch_folder(out: Path) -> Generator[Path]:
    """Name a folder beside `out`, removed at the end; `out` is locked meanwhile."""
    with NameLock(out) as name:
        folder = atomic.beside(name.path, "tmp")
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def emptied(name: NameLock, kind: FolderKind) -> Path:
    """Make a new folder under a name that is held, in the place of an earlier one of its kind.

    Raises:
        OutputError: what stands there is something else, or cannot be removed.
    """
    shown, target = name.shown, name.path
    with refused_by_disk(shown):
        if target.is_dir() and any(target.iterdir()):
            old = atomic.beside(target, "old")
            if not (reason := foreign_in(target, kind)):
                os.rename(target, old)
                if reason := foreign_in(
                    old, kind
                ):  # something changed between the check and the rename
                    os.rename(old, target)
            if reason:
                raise OutputError(f"{shown} {reason}; it is not replaced: name another --out")
            remove(old)
        target.mkdir(exist_ok=True)
    return target
