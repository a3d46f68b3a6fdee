import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from blankfill.evaluate.ngram import Trigram, Unigram

V = 12


def documents(seed=0, count=40):
    rng = np.random.default_rng(seed)
    # Skewed and repetitive, so that every count of counts occurs.
    return [np.minimum(rng.geometric(0.25, rng.integers(1, 30)) - 1, V - 2) for _ in range(count)]


class NaiveKneserNey:
    """Chen and Goodman 1999, section 3.2, with dictionaries and loops."""

    def __init__(self, texts):
        third = Counter()
        for text in texts:
            line = [V, V, *text.tolist()]
            third.update(zip(line, line[1:], line[2:], strict=False))
        second = Counter((v, w) for _, v, w in third)
        first = Counter(w for _, w in second)
        self.orders = [self.prepare(third), self.prepare(second)]
        self.first, self.total = first, sum(first.values())
        self.discount = self.d(first)

    @staticmethod
    def d(counts):
        once = sum(c == 1 for c in counts.values())
        twice = sum(c == 2 for c in counts.values())
        return once / (once + 2 * twice) if once and twice else 0.5

    def prepare(self, counts):
        totals, types = defaultdict(int), defaultdict(int)
        for gram, count in counts.items():
            totals[gram[:-1]] += count
            types[gram[:-1]] += 1
        return counts, totals, types, self.d(counts)

    def probability(self, u, v, w):
        lowest = max(self.first[w] - self.discount, 0) / self.total
        lowest += self.discount * len([c for c in self.first.values() if c]) / self.total / V
        result = lowest
        for (counts, totals, types, d), gram in zip(
            reversed(self.orders), [(v, w), (u, v, w)], strict=True
        ):
            total = totals.get(gram[:-1], 0)
            if total:
                result = (
                    max(counts.get(gram, 0) - d, 0) / total + d * types[gram[:-1]] / total * result
                )
        return result


@pytest.mark.parametrize("seed", range(3))
def test_the_trigram_agrees_with_a_naive_kneser_ney(seed):
    texts = documents(seed)
    model, naive = Trigram(texts, V), NaiveKneserNey(texts)
    contexts = [(u, v) for u in range(V + 1) for v in range(V + 1)]
    for u, v in contexts:
        expected = [naive.probability(u, v, w) for w in range(V)]
        assert model.distribution(u, v) == pytest.approx(expected, rel=1e-12)


def test_probabilities_sum_to_one_in_every_context_seen_or_not():
    model = Trigram(documents(), V)
    for u in range(V + 1):
        for v in range(V + 1):
            assert model.distribution(u, v).sum() == pytest.approx(1, abs=1e-12)


def test_greedy_takes_the_most_probable_token_each_time():
    model = Trigram(documents(), V)
    out = model.greedy(model.begin, model.begin, 4)
    line = [model.begin, model.begin, *out.tolist()]
    for i in range(4):
        assert model.distribution(line[i], line[i + 1]).argmax() == out[i]


def test_a_vocabulary_of_150_000_does_not_overflow_the_keys():
    big = 150_000
    texts = [np.array([big - 1, big - 2, big - 1, big - 3])] * 3
    model = Trigram(texts, big)
    n = np.array([big - 1])
    assert model.log_prob(np.array([model.begin]), np.array([model.begin]), n)[0] > math.log(0.5)
    assert model.distribution(big - 1, big - 2).sum() == pytest.approx(1, abs=1e-9)


def test_the_unigram_counts_with_one_added():
    model = Unigram.fit([np.array([1, 1, 2])], 4)
    assert np.exp(model.log_probs) == pytest.approx([1 / 7, 3 / 7, 2 / 7, 1 / 7])
    assert model.best == 1
