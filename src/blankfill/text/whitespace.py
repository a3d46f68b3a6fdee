"""Shorter white space, for text that was laid out for the eye: extracted pages, mail, tables."""

from __future__ import annotations

import re

__all__ = ["squeezed"]

_LINE_ENDS = re.compile("\r\n?|[\u2028\u2029\x85]")
_BLANKS = re.compile("[^\\S\n]+")
_AROUND_LINE_END = re.compile(" ?\n ?")
_EMPTY_LINES = re.compile("\n{3,}")


def squeezed(text: str) -> str:
    """Shorten the white space of a text.

    Every line end becomes a line feed; a run of other white space becomes one space, and goes at
    the start and end of a line; several empty lines become one; those around the text go.
    """
    text = _LINE_ENDS.sub("\n", text)
    text = _BLANKS.sub(" ", text)
    text = _AROUND_LINE_END.sub("\n", text)
    return _EMPTY_LINES.sub("\n\n", text).strip()
