"""Text that a user gives directly: as an argument, or on stdin."""

from __future__ import annotations

import sys

from blankfill.errors import RequestError

__all__ = ["checked", "read_stdin"]


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
        keep_mark: keep a byte order mark at its start, which is no text of the user's.

    Raises:
        RequestError: it is not UTF-8.
    """
    try:
        return sys.stdin.buffer.read().decode("utf-8" if keep_mark else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(
            f"stdin is not UTF-8 at byte {error.start}; convert it to UTF-8 first"
        ) from error
