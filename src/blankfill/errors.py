"""The errors that people see: each names the value, the rule it broke, and the way out.

    BlankfillError
    |- ConfigError       a field of a configuration, or an option of a command
    |- DataError         a text file, a token store, a document, a span
    |- CheckpointError   a run or checkpoint folder
    |- TrainingError     a run that cannot go on as it is
    |- ConversionError   weights or vocabularies of another project
    |- OutputError       a file or folder that is to be written
    |- FileError         a file that the system does not give or take
    |- NoMemoryError     memory that is not there
    |- RequestError      a text to fill or to continue
    |- ProcessLostError  another process of a run of several

The command line prints the message of a `BlankfillError` as one sentence and exits with code 2.
Our own invariants are `assert`ed instead: breaking one is a bug in blankfill, not in its use.
"""

from __future__ import annotations

import errno

__all__ = [
    "BlankfillError",
    "CheckpointError",
    "ConfigError",
    "ConversionError",
    "DataError",
    "FileError",
    "NoMemoryError",
    "OutputError",
    "ProcessLostError",
    "RequestError",
    "TrainingError",
    "for_people",
    "refused_by_system",
]


class BlankfillError(Exception):
    """Something the user can put right; the message says how."""


class ConfigError(BlankfillError):
    """A configuration value that cannot be used."""


class DataError(BlankfillError):
    """Text, tokens or spans that cannot be used."""


class CheckpointError(BlankfillError):
    """A run or checkpoint that cannot be read or written."""


class TrainingError(BlankfillError):
    """A run whose losses or weights do not let it go on."""


class ConversionError(BlankfillError):
    """Foreign weights or vocabularies that cannot be converted."""


class OutputError(BlankfillError):
    """A file or folder that cannot be written, or would be lost."""


class FileError(BlankfillError):
    """A file or folder that the system refuses; where the name and the reason are known, they say
    all that the user needs."""


class NoMemoryError(BlankfillError):
    """Memory that this machine or its GPU does not have."""


class RequestError(BlankfillError):
    """A text that cannot be filled or continued."""


class ProcessLostError(BlankfillError):
    """Another process of this run that has ended or cannot be reached."""


_REFUSALS = frozenset({
    errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EPERM, errno.ENOENT, errno.ENOTDIR,
    errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EBADF, errno.EFBIG, errno.EIO,
})  # fmt: skip
_TOO_MANY = frozenset({errno.EMFILE, errno.ENFILE})


def refused_by_system(error: OSError) -> FileError | None:
    """Say in a sentence what the system refused; None where it is no matter of files."""
    if error.errno in _TOO_MANY:
        return FileError("too many files are open; raise the limit: ulimit -n 1024")
    if error.errno not in _REFUSALS:
        return None
    name = f"{error.filename}: " if error.filename else ""
    return FileError(f"{name}{error.strerror}")


def for_people(error: BaseException) -> BlankfillError | None:
    """Give the error to show to people for one that they can put right; None of a bug of ours."""
    if isinstance(error, BlankfillError):
        return error
    if isinstance(error, OSError):
        return refused_by_system(error)
    # Torch has an error of its own for a GPU and none for a CPU; both say it in these words.
    short = any(word in str(error) for word in ("can't allocate memory", "out of memory"))
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and short):
        detail = str(error).split("\n")[0] or "no more is known"
        return NoMemoryError(
            f"there is not enough memory for this ({detail}); take a smaller model, shorter or "
            "fewer rows in a micro-batch, or fewer texts at a time"
        )
    return None
