"""Addresses of folders that lie elsewhere: `https://host/store`, `s3://bucket/store`.

They go where paths go, as a `Path`, which writes one slash for two: `address_of` gives both back.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = ["address_of", "is_address"]

_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/+(?P<rest>.*)", re.DOTALL)
"""A scheme has at least two letters: one is a drive of Windows."""


def is_address(path: str | Path) -> bool:
    """Tell an address from a path; what exists on this machine is a path."""
    return _ADDRESS.fullmatch(str(path)) is not None and not os.path.exists(path)


def address_of(path: str | Path) -> str:
    """Give an address as it is written, without a slash at its end."""
    found = _ADDRESS.fullmatch(str(path))
    assert found is not None
    scheme, rest = found["scheme"].lower(), found["rest"].rstrip("/")
    root = "/" if scheme == "file" else ""  # which names no host
    return f"{scheme}://{root}{rest}"
