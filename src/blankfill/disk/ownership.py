"""What blankfill has written, and may therefore replace.

A folder is ours if the file that describes it says so, in our format and a version that we know,
and if it holds nothing that we do not write: one foreign file, folder or link at any depth makes
the whole folder foreign. Names alone prove nothing, because other programs use the same ones, such
as `manifest.json` or `tokenizer.model`. The description of each kind (`KIND`) is beside its format.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from blankfill.disk.json_files import Description, read_object

__all__ = ["FolderKind", "foreign_in", "temporaries"]

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(\d+\.(tmp|old)|lock)", re.DOTALL)
"""Names of files that are being written, and of their locks (`publish.py`, `atomic.py`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderKind:
    """What distinguishes one kind of our folders from all other folders."""

    title: str
    """What it is called: "a token store"."""
    marker: str = ""
    """The file that describes it; "" for a folder that is ours because of its place."""
    description: Description | None = None
    """What that file says of itself."""
    files: tuple[str, ...] = ()
    """Names of the other files that may lie in it, with the wildcards of a shell."""
    folders: Mapping[str, FolderKind] = field(default_factory=dict[str, "FolderKind"])
    """Names of the folders that may lie in it, likewise, and what they are."""
    told_by_content: Mapping[str, Callable[[Path], bool]] = field(
        default_factory=dict[str, "Callable[[Path], bool]"]
    )
    """Names of files that users choose, and a check of their content that they are ours."""


def foreign_in(folder: Path, kind: FolderKind) -> str:
    """Say why a folder is not ours.

    Args:
        folder: it exists.
        kind: what it would be if it were ours.

    Returns:
        The first reason, as the end of a sentence that begins with the folder's name; "" where the
        folder is ours from top to bottom.

    Raises:
        OSError: it cannot be read.
    """
    return _foreign(folder, kind, Path())


def _foreign(top: Path, kind: FolderKind, below: Path) -> str:
    folder = top / below
    if kind.marker:
        marker = folder / kind.marker
        if marker.is_symlink() or not marker.is_file():
            return f"is not {kind.title}: it has no {below / kind.marker}"
        try:
            found = read_object(marker, kind.description)
        except ValueError as error:
            return f"is not {kind.title} that blankfill knows ({below / kind.marker}: {error})"
        if kind.description is not None and kind.description.field not in found:
            return f"is not {kind.title} that blankfill knows ({below / kind.marker} does not say)"
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        name = below / entry.name
        if entry.is_symlink():
            return f"holds the link {name}, which blankfill did not write"
        inner = _kind_of(entry.name, kind) if entry.is_dir() else None
        if inner is not None:
            if reason := _foreign(top, inner, name):
                return reason
        elif not _ours(entry, kind):
            return f"holds {name}, which blankfill did not write"
    return ""


def _kind_of(name: str, kind: FolderKind) -> FolderKind | None:
    return next((inner for shape, inner in kind.folders.items() if fnmatchcase(name, shape)), None)


def _ours(entry: os.DirEntry[str], kind: FolderKind) -> bool:
    files = (*kind.files, kind.marker)
    if unfinished := _TEMPORARY.fullmatch(entry.name):  # left by a killed process
        return _fits(unfinished["name"], (*files, *kind.folders))
    if not entry.is_file():
        return False
    if _fits(entry.name, files):
        return True
    told = kind.told_by_content.items()
    return any(
        fnmatchcase(entry.name, shape) and is_ours(Path(entry.path)) for shape, is_ours in told
    )


def _fits(name: str, shapes: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, shape) for shape in shapes)


def temporaries(folder: Path, name: str) -> list[Path]:
    """List what processes that wrote `name` into a folder have beside it, finished or killed."""
    pattern = re.compile(rf"\.{re.escape(name)}\.\d+\.(tmp|old)")
    with os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry in entries if pattern.fullmatch(entry.name))
