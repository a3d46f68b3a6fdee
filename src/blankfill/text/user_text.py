"""Text that a user gives directly: as an argument, or on stdin."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from blankfill.errors import RequestError
from blankfill.text.characters import reading_words

__all__ = [
    "UserText",
    "blanks_after_space",
    "checked",
    "is_open_ended",
    "no_blank",
    "read_stdin",
    "require_blank",
    "require_complete",
    "require_fills",
    "require_words",
    "to_continue",
]

_BLANKS = ("[MASK]", "[sMASK]", "[gMASK]")
_BLANK = re.compile(r"( ?)\[[sg]?MASK\]")
_NO_KNOWN_BLANK = re.compile(r"\[(?![sg]?MASK\])[A-Za-z]?MASK[ _-]?\d*\]")
"""What looks like a blank and is none: one of another model, a sentinel, or misspelt."""
_MEANT_AS_BLANK = re.compile(
    r"\[\s*[a-z]?mask\s*\]|<\s*(?:mask|blank|fim_\w+|extra_id_\d+)\W*>|\{+\s*mask\s*\}+|_{3,}",
    re.IGNORECASE,
)
"""How other programs write a blank."""


@dataclass(frozen=True, slots=True)
class UserText:
    """One text of several that a user gives."""

    text: str
    """The text; what could be read of it where there is an error."""
    place: str
    """Where it stands, such as `line 3`; empty for the only one."""
    error: str | None = None
    """Why it cannot be used."""


def checked(text: str) -> str:
    """Return the text if it can be encoded as UTF-8.

    Raises:
        RequestError: it holds half a surrogate pair, as a wrongly decoded argument does.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError(
            f"the text is not valid Unicode at character {error.start}; pass it as UTF-8"
        ) from error
    return text


def read_stdin(*, keep_mark: bool = False) -> str:
    """Read all of stdin.

    Args:
        keep_mark: keep a byte order mark at its start, which is not part of the user's text.

    Raises:
        RequestError: it is not UTF-8.
    """
    try:
        return _stdin_bytes().decode("utf-8" if keep_mark else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(
            f"stdin is not UTF-8 at byte {error.start}; convert it to UTF-8 first"
        ) from error


def require_blank(text: str) -> None:
    """Check that a text has a blank, and none that we do not know.

    Raises:
        RequestError: it has none, or one of another kind.
    """
    if unknown := _NO_KNOWN_BLANK.search(text):
        raise RequestError(
            f"there is no blank {unknown[0]}; write [MASK] for a word or phrase, [sMASK] for a "
            "sentence, [gMASK] for a long passage"
        )
    if not any(blank in text for blank in _BLANKS):
        raise no_blank(text)


def require_complete(text: str) -> None:
    """Check that a text has no blank.

    Raises:
        RequestError: it has one.
    """
    if found := _BLANK.search(text):
        raise RequestError(
            f"the text has the blank {found[0].strip()}, and what is measured is a text that is "
            "complete; fill it first, or score candidates for it"
        )


def require_words(text: str) -> list[tuple[int, int]]:
    """Find the words of a complete text, as `(start, end)`.

    Raises:
        RequestError: it has a blank, or no word.
    """
    require_complete(text)
    words = reading_words(text)
    if not words:
        raise RequestError("the text has no word to measure; give one with words")
    return words


def blanks_after_space(text: str) -> list[bool]:
    """Tell of each blank of a text, left to right, whether a space stands before it."""
    return [bool(found[1]) for found in _BLANK.finditer(text)]


def require_fills(text: str, fills: Sequence[str]) -> None:
    """Check that fills are candidates for the blanks of a text: one for each blank, or several.

    Raises:
        RequestError: the text has no blank, the fills do not go round, or one is empty.
    """
    require_blank(checked(text))
    num_blanks = len(blanks_after_space(text))
    if not fills or len(fills) % num_blanks:
        raise RequestError(
            f"{len(fills)} given for a text with {num_blanks} blank{'s' * (num_blanks > 1)}; give "
            "each candidate as one fill for each blank, left to right"
        )
    for number, fill in enumerate(fills, start=1):
        if not checked(fill):
            raise RequestError(f"fill {number} is empty; give the words that stand in the blank")


def is_open_ended(text: str) -> bool:
    """Tell whether a text is continued at its end, and has no other blank."""
    return "MASK]" not in to_continue(text).removesuffix("[gMASK]")


def to_continue(text: str) -> str:
    """Give a text with the blank for what comes after it, at its end where it has none."""
    return text if "[gMASK]" in text else text + "[gMASK]"


def no_blank(text: str = "") -> RequestError:
    """Say that a text has no blank, and what one is."""
    meant = _MEANT_AS_BLANK.search(text)
    none = f", and {meant[0]} is none" if meant else ""
    return RequestError(
        f"the text has no blank{none}; write [MASK] where a word or phrase is to be filled in"
    )


def _stdin_bytes() -> bytes:
    if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]  # so where it was closed
        raise RequestError("stdin is closed; give the text as an argument, or a file as stdin")
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise RequestError(f"stdin cannot be read ({error})") from error
