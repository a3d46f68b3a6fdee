"""Exact duplicates, found by 16 bytes of each document's hash.

Memory holds 16 bytes a document (twice that while they are sorted), up to `MOST_DOCUMENTS`. Two
documents of a billion have the same 128 bits of SHA-256 with a probability of 1e-21.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["DUPLICATE", "MOST_DOCUMENTS", "SeenDocuments", "identity_of"]

DUPLICATE = "an exact duplicate"
"""Why a document that was there before is left out."""
MOST_DOCUMENTS = 1 << 26
"""Documents that are remembered, in 1 GiB; those after them are compared with these only."""
RECENT_DOCUMENTS = 1 << 16
"""Of these, how many wait in a set until they are sorted."""
_BYTES = 16


def identity_of(text: str, answer: str | None) -> bytes:
    """Give the 16 bytes that stand for a document."""
    digest = hashlib.sha256(text.encode()).digest()
    if answer:
        digest = hashlib.sha256(digest + hashlib.sha256(answer.encode()).digest()).digest()
    return digest[:_BYTES]


class SeenDocuments:
    """The documents so far."""

    def __init__(self) -> None:
        self._recent: set[bytes] = set()
        self._sorted: list[npt.NDArray[np.bytes_]] = []  # ever shorter
        self._num_sorted = 0

    @property
    def is_full(self) -> bool:
        """Whether no more documents are remembered."""
        return self._num_sorted >= MOST_DOCUMENTS

    def add(self, identities: Sequence[bytes]) -> list[bool]:
        """Add documents, and say of each whether it was there before."""
        if not identities:
            return []
        wanted = np.array(identities, f"S{_BYTES}")
        found = np.zeros(len(wanted), bool)
        for known in self._sorted:
            places = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
            found |= known[places] == wanted
        seen: list[bool] = []
        for identity, before in zip(identities, found.tolist(), strict=True):
            seen.append(before or identity in self._recent)
            if not seen[-1] and not self.is_full:
                self._recent.add(identity)
        if len(self._recent) >= RECENT_DOCUMENTS:
            self._sort()
        return seen

    def _sort(self) -> None:
        """Sort the recent ones, joined with what is not larger: each is sorted a few times only."""
        merged = np.array(list(self._recent), f"S{_BYTES}")
        self._recent.clear()
        self._num_sorted += len(merged)
        while self._sorted and len(self._sorted[-1]) <= len(merged):
            merged = np.concatenate([self._sorted.pop(), merged])
        merged.sort()
        self._sorted.append(merged)
