"""Values that many tests share."""

from __future__ import annotations

import numpy as np
import pytest

from blankfill.objective.special import SpecialIds


class MemoryStore:
    """Documents in memory with the attributes of a token store."""

    def __init__(self, documents, languages=None):
        self.documents = [np.asarray(d, dtype=np.uint16) for d in documents]
        self.lengths = np.array([len(d) for d in self.documents], dtype=np.int64)
        self.languages = np.array(
            [1] * len(documents) if languages is None else languages, dtype=np.uint8
        )

    def document(self, index):
        return self.documents[index]


@pytest.fixture
def ids():
    return SpecialIds(pad=0, mask=1, smask=2, gmask=3, sop=4, eop=5, eos=6, dblock=7)


@pytest.fixture
def memory_store():
    """A function that wraps documents as a store."""
    return MemoryStore


@pytest.fixture
def random_store():
    """A function that makes a store of random documents of given lengths."""

    def make(lengths, seed=0, vocab_size=200):
        rng = np.random.default_rng(seed)
        return MemoryStore([rng.integers(8, vocab_size, n) for n in lengths])

    return make
