"""Hidden states kept on disk, named by the hashes of the weights, the texts and the place.

    CACHE/representations/SHA256.npy     `[L + 1, n, D]` float32

A file appears when it is whole. Where they take more than a stated size, those that were used
longest ago go. All of it can be made again, so nothing is lost with it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from blankfill.atomic import new_file
from blankfill.probe.represent import Float32, Item
from blankfill.runtime import cache_folder

__all__ = ["keep", "kept", "name_of"]

log = logging.getLogger(__name__)

VERSION = 1
LIMIT_BYTES = 4_000_000_000
"""Most bytes of all files."""


def name_of(weights: Mapping[str, str], items: Sequence[Item]) -> str:
    """Name the hidden states of texts.

    Args:
        weights: what says which weights they are, such as the hashes of their files.
        items: as the model reads them: tokens, positions and places.
    """
    found = hashlib.sha256(json.dumps([VERSION, sorted(weights.items())]).encode())
    for item in items:
        found.update(item.prompt.tokens.tobytes() + item.prompt.positions.tobytes())
        found.update(repr((item.sop, item.index, len(item.prompt.tokens))).encode())
    return found.hexdigest()


def kept(name: str, count: int) -> Float32 | None:
    """Give states that are there whole; None where they are not."""
    try:
        path = _folder() / f"{name}.npy"
        found = np.load(path, allow_pickle=False)
        os.utime(path)
    except (OSError, ValueError, EOFError):
        return None
    whole = found.ndim == 3 and found.shape[1] == count and found.dtype == np.float32
    return found if whole else None


def keep(name: str, states: Float32) -> None:
    """Keep states, if the disk takes them; others that were used longest ago make room."""
    try:
        folder = _folder()
        folder.mkdir(parents=True, exist_ok=True)
        with new_file(folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, states, allow_pickle=False)
        _make_room(folder)
    except OSError as error:
        log.warning("hidden states are not kept for the next time (%s)", error.strerror or error)


def _folder() -> Path:
    return cache_folder() / "representations"


def _make_room(folder: Path) -> None:
    files = [(path.stat(), path) for path in folder.glob("*.npy")]
    files.sort(key=lambda each: -each[0].st_mtime)
    total = 0
    for number, (status, path) in enumerate(files):
        total += status.st_size
        if number and total > LIMIT_BYTES:
            path.unlink(missing_ok=True)
