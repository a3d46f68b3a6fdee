"""What of all that may go wrong is the user's to put right, and the sentence that says how."""

from __future__ import annotations

from blankfill.errors import BlankfillError, refused_by_system

__all__ = ["sentence_of"]


def sentence_of(error: Exception) -> str | None:
    """Give the sentence about an error that the user can put right; None of a bug of ours."""
    if isinstance(error, BlankfillError):
        return str(error)
    if isinstance(error, OSError):
        refused = refused_by_system(error)
        return None if refused is None else str(refused)
    # Torch has an error of its own for a GPU and none for a CPU; both say it in these words.
    short = any(word in str(error) for word in ("can't allocate memory", "out of memory"))
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and short):
        detail = str(error).split("\n")[0] or "no more is known"
        return (
            f"there is not enough memory for this ({detail}); take a smaller model, shorter or "
            "fewer rows in a micro-batch, or fewer texts at a time"
        )
    return None
