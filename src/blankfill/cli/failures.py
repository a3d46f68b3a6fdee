"""What of all that may go wrong is the user's to put right, and the sentence that says how."""

from __future__ import annotations

from blankfill.errors import for_people

__all__ = ["sentence_of"]


def sentence_of(error: Exception) -> str | None:
    """Give the sentence about an error that the user can put right; None of a bug of ours."""
    said = for_people(error)
    return None if said is None else str(said)
