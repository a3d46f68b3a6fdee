"""The baselines of an evaluation: a unigram and an interpolated Kneser-Ney trigram.

Kneser and Ney 1995, in the interpolated form of Chen and Goodman 1999, section 3.2, with one
absolute discount per order, `n1 / (n1 + 2 n2)`. The lowest order is interpolated with the uniform
law, so every token of the vocabulary has a probability. Documents are independent: each begins
after two begin marks, and nothing is predicted across documents.

Counts are sorted arrays of integer keys that are looked up by binary search. Text is counted in
stretches that are merged as they come, so memory holds 12 bytes for each different n-gram and 16
for each different context, twice the first while one is merged, and never the text.

Shapes: n tokens to score, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Trigram", "Unigram", "count_keys", "find_keys"]

Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
STRETCH = 1 << 22
"""Tokens that are counted at a time."""


@dataclass(frozen=True, slots=True)
class Unigram:
    """Token frequencies with one added to every count."""

    log_probs: Float64
    """`[V]` natural logarithms."""

    @classmethod
    def fit(cls, documents: Iterable[npt.NDArray[np.generic]], vocab_size: int) -> Unigram:
        """Count the tokens of documents."""
        counts = np.ones(vocab_size)
        for document in documents:
            for start in range(0, len(document), STRETCH):
                stretch = document[start : start + STRETCH].astype(np.int64)
                counts += np.bincount(stretch, minlength=vocab_size)
        return cls(np.log(counts / counts.sum()))

    @property
    def best(self) -> int:
        """The most frequent token: all that this model ever writes."""
        return int(self.log_probs.argmax())


@dataclass(frozen=True, slots=True)
class _Order:
    """One order of the model: discounted n-grams and the weight of the order below."""

    contexts: Int64
    """`[C]` sorted context keys."""
    totals: Int32
    """`[C]` what the counts of a context sum to."""
    types: Int32
    """`[C]` different tokens seen after the context."""
    grams: Int64
    """`[G]` sorted n-gram keys."""
    counts: Int32
    """`[G]`."""
    discount: float
    """Taken from every count."""

    def look_up(self, contexts: Int64, grams: Int64) -> tuple[Float64, Float64]:
        """Give the discounted probability and the weight of the lower order, `[n]` each."""
        place, known = find_keys(self.contexts, contexts)
        total = np.where(known, self.totals[place], 1)
        lower = np.where(known, self.discount * self.types[place] / total, 1.0)
        at, seen = find_keys(self.grams, grams)
        count = np.where(seen & known, self.counts[at] - self.discount, 0.0)
        return count / total, lower


class Trigram:
    """Interpolated Kneser-Ney over token ids.

    Args:
        documents: token ids of each document, each below `vocab_size`.
        vocab_size: tokens over which probabilities sum to one.
    """

    def __init__(self, documents: Iterable[npt.NDArray[np.generic]], vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.begin = vocab_size
        """Id of the mark that stands twice before every document."""
        self._base = vocab_size + 1
        trigrams, counts = count_keys(self._stretches(documents))
        self._third = _order(trigrams, counts, self._base)
        # Lower orders count in how many different contexts an n-gram was seen.
        square = self._base * self._base
        bigrams, counts = count_keys(part % square for part in _parts(trigrams))
        self._second = _order(bigrams, counts, self._base)
        words, counts = count_keys(part % self._base for part in _parts(bigrams))
        discount = _discount(counts)
        self._first = np.full(vocab_size, discount * len(words) / max(1, counts.sum()) / vocab_size)
        self._first[words] += (counts - discount) / counts.sum()
        if not len(words):
            self._first[:] = 1 / vocab_size

    def log_prob(self, two_back: Int64, one_back: Int64, tokens: Int64) -> Float64:
        """Score tokens given the two before each.

        Args:
            two_back: `[n]` token two places before; `begin` at the start of a document.
            one_back: `[n]` token before.
            tokens: `[n]`.

        Returns:
            `[n]` natural logarithms.
        """
        context = self._key(two_back, one_back)
        third, weight3 = self._third.look_up(context, context * self._base + tokens)
        second, weight2 = self._second.look_up(one_back, self._key(one_back, tokens))
        return np.log(third + weight3 * (second + weight2 * self._first[tokens]))

    def distribution(self, two_back: int, one_back: int) -> Float64:
        """Give the probability of every token, `[V]`."""
        n = np.ones(self.vocab_size, np.int64)
        tokens = np.arange(self.vocab_size)
        return np.exp(self.log_prob(two_back * n, one_back * n, tokens))

    def greedy(self, two_back: int, one_back: int, num_tokens: int) -> Int64:
        """Continue with the most probable token, `num_tokens` times."""
        out = np.zeros(num_tokens, np.int64)
        for i in range(num_tokens):
            out[i] = self.distribution(two_back, one_back).argmax()
            two_back, one_back = one_back, int(out[i])
        return out

    def _stretches(self, documents: Iterable[npt.NDArray[np.generic]]) -> Iterator[Int64]:
        """Turn text into trigrams' keys, about `STRETCH` at a time."""
        keys: list[Int64] = []
        size = 0
        for document in documents:
            before = np.full(2, self.begin, np.int64)
            for start in range(0, len(document), STRETCH):
                line = np.concatenate([before, document[start : start + STRETCH].astype(np.int64)])
                keys.append(self._key(self._key(line[:-2], line[1:-1]), line[2:]))
                size += len(line) - 2
                before = line[-2:]
                if size >= STRETCH:
                    yield np.concatenate(keys)
                    keys, size = [], 0
        if keys:
            yield np.concatenate(keys)

    def _key(self, left: Int64, right: Int64) -> Int64:
        return np.asarray(left, np.int64) * self._base + right


def _parts(keys: Int64) -> Iterator[Int64]:
    return (keys[start : start + STRETCH] for start in range(0, len(keys), STRETCH))


def count_keys(stretches: Iterable[Int64]) -> tuple[Int64, Int32]:
    """Count keys: each different one, ascending, and how often it came."""
    keys, counts = np.zeros(0, np.int64), np.zeros(0, np.int32)
    for stretch in stretches:
        new, found = np.unique(stretch, return_counts=True)
        times = found.astype(np.int32)
        place = np.searchsorted(keys, new)
        known = place < len(keys)
        known[known] = keys[place[known]] == new[known]
        counts[place[known]] += times[known]
        keys = np.insert(keys, place[~known], new[~known])
        counts = np.insert(counts, place[~known], times[~known])
    return keys, counts


def _order(grams: Int64, counts: Int32, base: int) -> _Order:
    begins = np.ones(len(grams), np.bool_)
    for start in range(1, len(grams), STRETCH):
        part = grams[start - 1 : start + STRETCH] // base
        begins[start : start + STRETCH] = part[1:] != part[:-1]
    first = np.flatnonzero(begins)
    totals = np.add.reduceat(counts, first, dtype=np.int32) if len(first) else counts
    types = np.diff(first, append=len(grams)).astype(np.int32)
    return _Order(
        contexts=grams[first] // base, totals=totals, types=types, grams=grams, counts=counts,
        discount=_discount(counts),
    )  # fmt: skip


def _discount(counts: Int32) -> float:
    """Estimate the absolute discount from how many n-grams were seen once and twice."""
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return once / (once + 2 * twice) if once and twice else 0.5


def find_keys(sorted_keys: Int64, keys: Int64) -> tuple[Int64, npt.NDArray[np.bool_]]:
    """Find keys in a sorted array that is not empty: their places, and whether they are there."""
    if not len(sorted_keys):
        raise ValueError("the n-gram model was fitted on no token")
    place = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return place, sorted_keys[place] == keys
