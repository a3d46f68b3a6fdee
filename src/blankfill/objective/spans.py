"""Drawing blanks: how many, how long, where. Every draw is a function of its address.

Lengths follow a Poisson law of mean 3 without 0 (weights for 1..39; released `blocklm_utils.py`),
drawn until they reach 15 % of the document. At least one token stays visible between two spans.
Places are uniform over all placements; the released code sorts draws with replacement, which
favours spans that crowd together.

Draws that decide an example's length (kind, span lengths, split point) come from a hash of
(seed, epoch, document, draw), so that those of a whole epoch are one vector operation.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt

from blankfill.objective.batch import Int32, Int64

__all__ = [
    "draw_lengths",
    "length_law",
    "max_spans",
    "place_spans",
    "uniform_draws",
]

MAX_SPAN_LENGTH = 39
"""Longest span of the released law (`blocklm_utils.py`: range(1, 40))."""

Float64 = npt.NDArray[np.float64]


def uniform_draws(documents: Int64, num_draws: int, seed: int, *address: str | int) -> Float64:
    """Draw numbers in [0, 1) that belong to documents.

    Args:
        documents: `[n]` document (or piece) numbers.
        num_draws: draws for each.
        seed: the run's seed.
        address: what is drawn, such as `"lengths", epoch`.

    Returns:
        `[n, num_draws]`; row i depends on `documents[i]` alone.
    """
    text = "\x1f".join(map(str, (seed, *address)))
    key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    counter = documents.astype(np.uint64)[:, None] * np.uint64(1 << 20) + np.arange(
        num_draws, dtype=np.uint64
    )
    mixed = _mix(_mix(counter + np.uint64(key)) ^ np.uint64(key >> 1))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Scramble 64 bits (splitmix64: Steele et al. 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def length_law(mean: float = 3.0, longest: int = MAX_SPAN_LENGTH) -> Float64:
    """Give the probabilities of span lengths 1..longest: Poisson without 0, cut and normalised."""
    k = np.arange(1, longest + 1)
    log_weights = k * math.log(mean) - np.array([math.lgamma(i + 1) for i in k])
    weights = np.exp(log_weights - log_weights.max())
    return weights / weights.sum()


def max_spans(num_tokens: Int64, ratio: float, mean: float = 3.0) -> Int64:
    """Bound the spans of a document: 4.5 standard deviations above the expected number.

    A bound is what lets a row be planned before anything is drawn; it is reached about three times
    in a million documents, which then have a little less masked.
    """
    law = length_law(mean)
    k = np.arange(1, len(law) + 1)
    first = (law * k).sum()
    variance = (law * k * k).sum() - first**2
    expected = ratio * num_tokens / first + 1
    return np.ceil(expected + 4.5 * np.sqrt(expected * variance) / first).astype(np.int64)


def draw_lengths(draws: Float64, num_tokens: int, ratio: float, mean: float = 3.0) -> Int32:
    """Turn uniform draws into the span lengths of one document.

    Args:
        draws: `[m]` in [0, 1), m at least `max_spans`.
        num_tokens: tokens in the document, at least 1.
        ratio: share of tokens to mask; drawing stops when it is reached.
        mean: mean of the untruncated Poisson law.

    Returns:
        `[S]` lengths, S >= 1, that leave a visible token between spans.
    """
    budget = max(1, int(ratio * num_tokens))
    lengths = 1 + np.searchsorted(np.cumsum(length_law(mean))[:-1], draws, side="right")
    # A document of a few tokens keeps half of them visible, so that there is something to read.
    lengths = np.minimum(lengths, max(1, num_tokens // 2)).astype(np.int32)
    total = np.cumsum(lengths)
    count = int(np.searchsorted(total, budget)) + 1
    lengths = lengths[:count]
    while len(lengths) > 1 and lengths.sum() + len(lengths) - 1 > num_tokens:
        lengths = lengths[:-1]
    return lengths


def place_spans(lengths: Int32, num_tokens: int, rng: np.random.Generator) -> Int32:
    """Place spans uniformly over all placements with a visible token between neighbours.

    Args:
        lengths: `[S]` in the order in which they stand in the document.
        num_tokens: tokens in the document.
        rng: generator of this document.

    Returns:
        `[S, 2]` half-open spans, sorted.
    """
    num_spans = len(lengths)
    free = num_tokens - int(lengths.sum()) - (num_spans - 1)
    assert free >= 0
    chosen = np.sort(rng.choice(free + num_spans, num_spans, replace=False))
    before = np.concatenate([[0], np.cumsum(lengths[:-1] + 1)])
    starts = chosen - np.arange(num_spans) + before
    return np.stack([starts, starts + lengths], axis=1).astype(np.int32)
