"""The files that a corpus is made of: what is named, and what lies in named folders.

A folder stands for the files of known kinds under it, sorted by path. Links are followed; a folder
or file that is reached twice, by a link or by a second name, is read once. Hidden files and folders
(`.git`, `.ipynb_checkpoints`) are left out, and so is the README.md beside the records of a data
set, which is its card; a file that is named is always read. Everything that is not read is counted.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, cast

from blankfill.errors import DataError
from blankfill.text.records import Skipped, Skips, shown

__all__ = ["FORMATS", "Format", "Source", "find_files"]

Format = Literal["text", "JSON", "CSV", "TSV", "table"]

FORMATS: dict[str, Format] = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".markdown": "text",
    ".rst": "text",
    ".adoc": "text",
    ".org": "text",
    ".jsonl": "JSON",
    ".ndjson": "JSON",
    ".json": "JSON",
    ".csv": "CSV",
    ".tsv": "TSV",
    ".parquet": "table",
    ".arrow": "table",
    ".feather": "table",
}
_PACKED = (".gz", ".bz2", ".xz", ".zst")
# Suffixes, also before .gz, of kinds that blankfill does not read. Any other suffix may be part of
# the name, as in corpus.2024.gz; then the content decides.
_OTHER_KINDS = (".xml", ".html", ".htm", ".pdf", ".docx", ".doc", ".npy", ".pkl")
_CARD = "readme.md"
_STATE_BYTES = 16 << 20


class Source(NamedTuple):
    """A file to read."""

    path: str
    """Where it is; `-` is stdin."""
    format: Format | None
    """What its name says; None where the content has to decide."""
    named: bool
    """Whether the user named it: then it must be readable."""


class _Identity(NamedTuple):
    device: int
    inode: int


def find_files(paths: Iterable[str | Path], skips: Skips) -> list[Source]:
    """List the files to read.

    Raises:
        DataError: a path is missing, cannot be read or is of an unknown kind.
    """
    names = [str(path) for path in paths]
    if not names:
        raise DataError("no text was named; name files, folders, or - for stdin")
    if names.count("-") > 1:
        raise DataError("- stands for stdin, which can be read once: name it once")
    found: list[Source] = []
    walked: dict[_Identity, str] = {}
    for name in names:
        if name == "-":
            found.append(Source(name, None, named=True))
            continue
        status = _status(name)
        if stat.S_ISDIR(status.st_mode):
            found += _files_under(name, walked, skips)
        elif (before := walked.get(_identity(status))) is not None:
            skips.leave_out(Skipped(name, 0, f"read already (as {shown(before)})"))
        else:
            found.append(_named_file(name, status))
    return found


def _status(name: str) -> os.stat_result:
    try:
        return os.stat(name)
    except ValueError as error:  # a NUL in the name
        raise DataError(f"{shown(name)}: no such file or folder") from error
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            said = "no such file or folder"
            if os.path.islink(name):
                said = f"a broken link, to {shown(os.readlink(name))}"
        else:
            said = f"cannot be read ({error.strerror})"
        raise DataError(f"{shown(name)}: {said}") from error


def _identity(status: os.stat_result) -> _Identity:
    return _Identity(status.st_dev, status.st_ino)


def _named_file(name: str, status: os.stat_result) -> Source:
    known, kind = _format(name)
    if stat.S_ISFIFO(status.st_mode):  # as `<(command)` of a shell
        return Source(name, kind, named=True)
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{shown(name)} is {_special(status)}; give its content on stdin, as -")
    if not known:
        from blankfill.text.kinds import kind_of_file

        held = kind_of_file(name)
        raise DataError(
            f"{shown(name)}: {held}"
            if held
            else f"{shown(name)}: unknown kind of file; blankfill reads {' '.join(FORMATS)}, "
            f"each also as {' '.join(_PACKED)}; anything else as text on stdin, as -"
        )
    return Source(name, kind, named=True)


def _special(status: os.stat_result) -> str:
    kinds = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"))
    return next((said for test, said in kinds if test(status.st_mode)), "a device")


def _files_under(folder: str, walked: dict[_Identity, str], skips: Skips) -> list[Source]:
    """List a folder's files; `walked` are the folders and files that were reached before."""
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise DataError(f"{shown(folder)}: cannot be read ({error.strerror})") from error
    known: list[Source] = []
    for path in sorted(_walk(folder, walked, skips)):
        is_known, kind = _format(path)
        if is_known:
            known.append(Source(path, kind, named=False))
        else:
            suffix = shown(os.path.splitext(path)[1])
            said = f"unknown kind of file ({suffix or 'no suffix'}; name it .txt if it is text)"
            skips.add(Skipped(path, 0, said))
    records = [source.path for source in known if _holds_records(source)]
    data_sets = _data_sets(source.path for source in known)
    found: list[Source] = []
    for source in known:
        under, base = os.path.split(source.path)
        if under in data_sets and base not in data_sets[under]:
            skips.leave_out(Skipped(source.path, 0, "no rows of a data set (its state.json tells)"))
            continue
        if base.lower() == _CARD and any(path.startswith(under + os.sep) for path in records):
            skips.leave_out(Skipped(source.path, 0, "the card of a data set (name it to read it)"))
        else:
            found.append(source)
    return found


def _data_sets(paths: Iterable[str]) -> dict[str, set[str]]:
    """Find the folders that `datasets` saved, and the files that hold their rows.

    Beside these lie settings, and what was computed from the rows before (`cache-*.arrow`). A
    folder of several such folders has a `dataset_dict.json`.
    """
    found: dict[str, set[str]] = {}
    for path in paths:
        under, base = os.path.split(path)
        if base == "dataset_dict.json":
            found.setdefault(under, set())
        if base != "state.json":
            continue
        try:
            with open(path, "rb") as file:
                state: object = json.loads(file.read(_STATE_BYTES))
            entries = cast("dict[str, list[dict[str, str]]]", state)["_data_files"]
            found[under] = {entry["filename"] for entry in entries}
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue  # another's file of that name
    return found


def _holds_records(source: Source) -> bool:
    """Whether a file holds documents of a data set, not settings such as package.json."""
    return source.format in ("table", "CSV", "TSV") or any(
        source.path.lower().removesuffix(packed).endswith((".jsonl", ".ndjson"))
        for packed in ("", *_PACKED)
    )


def _walk(folder: str, walked: dict[_Identity, str], skips: Skips) -> Iterator[str]:
    """Yield the regular files under a folder, each once.

    Files in the folder itself come before files that links lead to, so that a file is listed under
    its own name and not under a link's.
    """
    waiting, links = [folder], list[str]()
    while waiting or links:
        path = waiting.pop() if waiting else links.pop()
        try:
            status = os.stat(path)
        except OSError as error:
            broken = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
            reason = "a broken link" if broken else f"cannot be read ({error.strerror})"
            skips.add(Skipped(path, 0, reason))
            continue
        is_folder = stat.S_ISDIR(status.st_mode)
        if not is_folder and not stat.S_ISREG(status.st_mode):
            skips.add(Skipped(path, 0, f"not a regular file ({_special(status)})"))
            continue
        before = walked.setdefault(_identity(status), path)
        if before is not path:
            skips.leave_out(Skipped(path, 0, f"read already (as {shown(before)})"))
        elif not is_folder:
            yield path
        else:
            _look_into(path, waiting, links, skips)


def _look_into(path: str, waiting: list[str], links: list[str], skips: Skips) -> None:
    """Sort a folder's entries into those to visit and links to follow later."""
    try:
        with os.scandir(path) as scan:
            entries = sorted(scan, key=lambda entry: entry.name, reverse=True)
    except OSError as error:
        skips.add(Skipped(path, 0, f"cannot be read ({error.strerror})"))
        return
    for entry in entries:
        if entry.name.startswith("."):
            skips.leave_out(Skipped(entry.path, 0, "hidden"))
        else:
            (links if entry.is_symlink() else waiting).append(entry.path)


def _format(path: str) -> tuple[bool, Format | None]:
    """Tell from a name whether it is a known kind of file, and which, if the name says."""
    stem, suffix = os.path.splitext(os.path.basename(path).lower())
    packed = suffix in _PACKED
    if packed:
        suffix = os.path.splitext(stem)[1]
    known = suffix in FORMATS or (packed and suffix not in _OTHER_KINDS)
    return known, FORMATS.get(suffix)
