"""How text files are read: one set of options for every verb that reads text."""

from __future__ import annotations

import typing
from dataclasses import dataclass

from blankfill.errors import ConfigError
from blankfill.text.encodings import AUTO, check_encoding
from blankfill.text.fields import Fields
from blankfill.text.plain import Unit

__all__ = ["TextOptions"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TextOptions:
    """How text files are read.

    Raises:
        ConfigError: there is no such encoding, or no such way to cut a text.
    """

    text_field: str = "text"
    """The JSON field or the column of a table that holds the text."""
    answer_field: str = ""
    """The one that holds the answer of a pair; "" where everything is plain text."""
    encoding: str = AUTO
    """Of text, JSON, CSV and TSV files: the name of one, or `AUTO`."""
    documents: Unit = "file"
    """What of a plain text is one document."""
    squeeze_whitespace: bool = False
    """Whether runs of white space are shortened (`whitespace.py`)."""

    def __post_init__(self) -> None:
        check_encoding(self.encoding)
        if self.documents not in typing.get_args(Unit):
            raise ConfigError(
                f"documents={self.documents!r} is not one of: {', '.join(typing.get_args(Unit))}"
            )

    @property
    def fields(self) -> Fields:
        """The fields that are read."""
        return Fields(self.text_field, self.answer_field)
