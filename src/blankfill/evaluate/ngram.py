"""The baselines of an evaluation: a unigram and an interpolated Kneser-Ney trigram.

Kneser and Ney 1995, in the interpolated form of Chen and Goodman 1999, section 3.2, with one
absolute discount per order, `n1 / (n1 + 2 n2)`. The lowest order is interpolated with the uniform
law, so every token of the vocabulary has a probability. Documents are independent: each begins
behind two begin marks, and nothing is predicted across documents.

Counts are sorted arrays of integer keys that are looked up by binary search, so tens of millions
of tokens over a vocabulary of 150,000 fit into a laptop.

Shapes: n tokens to score, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Trigram", "Unigram"]

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


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
            counts += np.bincount(document.astype(np.int64), minlength=vocab_size)
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
    totals: Float64
    """`[C]` what the counts of a context sum to."""
    types: Float64
    """`[C]` different tokens seen behind the context."""
    grams: Int64
    """`[G]` sorted n-gram keys."""
    counts: Float64
    """`[G]`."""
    discount: float
    """Taken from every count."""

    def look_up(self, contexts: Int64, grams: Int64) -> tuple[Float64, Float64]:
        """Give the discounted probability and the weight of the lower order, `[n]` each."""
        place, known = _find(self.contexts, contexts)
        total = np.where(known, self.totals[place], 1.0)
        lower = np.where(known, self.discount * self.types[place] / total, 1.0)
        at, seen = _find(self.grams, grams)
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
        marks = np.full(2, self.begin, np.int64)
        keys: list[Int64] = []
        for document in documents:
            padded = np.concatenate([marks, document.astype(np.int64)])
            keys.append(self._key(padded[:-2], padded[1:-1]) * self._base + padded[2:])
        flat = np.concatenate(keys) if keys else np.zeros(0, np.int64)
        del keys
        trigrams, counts = np.unique(flat, return_counts=True)
        del flat
        self._third = _order(trigrams, counts, self._base)
        # Lower orders count in how many different contexts an n-gram was seen.
        bigrams, counts = np.unique(trigrams % (self._base * self._base), return_counts=True)
        self._second = _order(bigrams, counts, self._base)
        words, counts = np.unique(bigrams % self._base, return_counts=True)
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

    def _key(self, left: Int64, right: Int64) -> Int64:
        return np.asarray(left, np.int64) * self._base + right


def _order(grams: Int64, counts: Int64, base: int) -> _Order:
    contexts, first = np.unique(grams // base, return_index=True)
    ends = np.append(first[1:], len(grams))
    sums = np.concatenate([[0], np.cumsum(counts)])
    return _Order(
        contexts=contexts, totals=(sums[ends] - sums[first]).astype(float),
        types=(ends - first).astype(float), grams=grams, counts=counts.astype(float),
        discount=_discount(counts),
    )  # fmt: skip


def _discount(counts: Int64) -> float:
    """Estimate the absolute discount from how many n-grams were seen once and twice."""
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return once / (once + 2 * twice) if once and twice else 0.5


def _find(sorted_keys: Int64, keys: Int64) -> tuple[Int64, npt.NDArray[np.bool_]]:
    """Find keys in a sorted array: their places, and whether they are there."""
    if not len(sorted_keys):
        raise ValueError("the n-gram model was fitted on no token")
    place = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return place, sorted_keys[place] == keys
