"""Git LFS pointers: files whose content was not downloaded.

A repository cloned without Git LFS has, in place of each large file, a text of three lines: the
pointer's format, the hash of the real content, and its size
(https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md).
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["is_pointer", "pointer_sentence"]

_START = b"version https://git-lfs.github.com/spec/"
_LONGEST = 1024
"""The largest size of a pointer, according to the format's page."""


def is_pointer(content: Path | bytes) -> bool:
    """Tell whether a file, or its first bytes, are a Git LFS pointer.

    Args:
        content: the file, or what it begins with; a file that cannot be read is none.
    """
    if isinstance(content, bytes):
        return content.startswith(_START)
    try:
        with content.open("rb") as file:
            start = file.read(_LONGEST + 1)
    except OSError:
        return False
    return len(start) <= _LONGEST and is_pointer(start)


def pointer_sentence(path: Path | str) -> str:
    """Say that a file is a pointer, and how to get its content."""
    return (
        f"{path} is a Git LFS pointer and stands for a file that was not downloaded; run "
        "`git lfs install && git lfs pull` in the repository, or download the file itself"
    )
