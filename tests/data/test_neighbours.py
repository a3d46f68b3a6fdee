"""Counts of neighbours against a loop over pairs."""

import numpy as np
import pytest

from blankfill.data import neighbours
from blankfill.data.neighbours import count_neighbours
from conftest import MemoryStore


def documents(count, vocab_size, seed):
    rng = np.random.default_rng(seed)
    law = 1.0 / np.arange(1, vocab_size + 1)
    return [
        rng.choice(vocab_size, rng.integers(1, 40), p=law / law.sum()).tolist()
        for _ in range(count)
    ]


def by_pairs(texts, vocab_size, contexts):
    """Count one pair of positions at a time."""
    counts = np.zeros((vocab_size, vocab_size))
    for text in texts:
        for i, token in enumerate(text):
            for j, other in enumerate(text):
                if i != j and abs(i - j) <= neighbours.REACH:
                    counts[token, other] += 1 / abs(i - j)
    return counts[:, contexts]


@pytest.mark.parametrize("chunk", [1, 50, 10**6])
def test_counts_are_those_of_all_pairs_inside_documents(monkeypatch, chunk):
    monkeypatch.setattr(neighbours, "CHUNK_TOKENS", chunk)
    english, chinese = documents(60, 30, 1), documents(40, 30, 2)
    counts, frequency = count_neighbours([MemoryStore(english), MemoryStore(chinese)], 33)
    texts = english + chinese
    expected = np.bincount(np.concatenate(texts), minlength=33)
    assert frequency.tolist() == expected.tolist()
    contexts = np.argsort(-expected, kind="stable")[: counts.shape[1]]
    assert counts.shape == (33, (expected > 0).sum())  # tokens that never occur are no context
    np.testing.assert_allclose(counts, by_pairs(texts, 33, contexts), rtol=1e-5)


def test_only_frequent_tokens_are_contexts_and_large_stores_are_read_in_part(monkeypatch):
    monkeypatch.setattr(neighbours, "MAX_CONTEXTS", 5)
    texts = documents(90, 30, 3)
    monkeypatch.setattr(neighbours, "MAX_TOKENS", sum(map(len, texts)) // 3 + 1)
    counts, frequency = count_neighbours([MemoryStore(texts)], 30)
    read = texts[::3]
    assert frequency.tolist() == np.bincount(np.concatenate(read), minlength=30).tolist()
    contexts = np.argsort(-frequency, kind="stable")[:5]
    np.testing.assert_allclose(counts, by_pairs(read, 30, contexts), rtol=1e-5)
