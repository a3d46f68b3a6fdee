"""The errors that people see: each names the value, the rule it broke, and the way out.

    BlankfillError
    |- ConfigError       a field of a configuration, or an option of a command
    |- DataError         a text file, a token store, a document, a span
    |- CheckpointError   a run or checkpoint folder
    |- TrainingError     a run that cannot go on as it is
    |- ConversionError   weights or vocabularies of another project
    |- OutputError       a file or folder that is to be written
    |- RequestError      a text to fill or to continue

The command line prints the message of a `BlankfillError` as one sentence and exits with code 2.
Our own invariants are `assert`ed instead: breaking one is a bug in blankfill, not in its use.
"""

from __future__ import annotations

__all__ = [
    "BlankfillError",
    "CheckpointError",
    "ConfigError",
    "ConversionError",
    "DataError",
    "OutputError",
    "RequestError",
    "TrainingError",
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


class RequestError(BlankfillError):
    """A text that cannot be filled or continued."""
