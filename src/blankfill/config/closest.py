"""What was probably meant by a name that there is not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["closest", "did_you_mean"]

_ALIKE = 0.6
"""Least share of two names that is the same where one may be meant by the other; difflib's own."""


def closest(word: str, known: Iterable[str]) -> str | None:
    """Give the known name that is most like a word, or None where none is like it."""
    names = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), names, 1, _ALIKE)
    if not found:  # cut short or lengthened: `val` for `validation`
        wanted = word.lower()
        found = [n for n in names if len(wanted) > 2 and (n.startswith(wanted))]
    return names[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Ask whether the closest known name was meant: "did you mean x? "; "" where none is close."""
    found = closest(word, known)
    return f"did you mean {found}? " if found else ""
