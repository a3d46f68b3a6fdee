"""Short spans of one document: their lengths, number and places, from given random draws.

Lengths follow a law (Poisson of mean 3 without 0 for 1..39 as released in `blocklm_utils.py`),
drawn until they reach 15 % of the document. At least one token stays visible between two spans.
Places are uniform over all placements; the released law sorts draws with replacement, which favours
spans one token apart, and is an option.

These functions are the plain statement of the rules; `objective.many` does the same for a batch in
vector operations and is held to them draw by draw.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from blankfill.config.objective import ObjectiveConfig, Placement
from blankfill.objective.batch import Int32, Int64
from blankfill.objective.draws import Float64

__all__ = [
    "draw_lengths",
    "drawn_ratio",
    "kind_edges",
    "length_law",
    "length_steps",
    "max_spans",
    "pin_probability",
    "place_spans",
    "span_budget",
]

PINNED_MEAN, PINNED_TOKENS = 5.0, 64
"""Mean of the Poisson law of pinned answers; and the answer length from which its probability of
being pinned is 0 in double precision."""


@lru_cache(maxsize=64)
def _law(name: str, mean: float, longest: int) -> Float64:
    k = np.arange(1, longest + 1)
    if name == "poisson":
        logs = k * math.log(mean) - np.array([math.lgamma(i + 1) for i in k])
        weights = np.exp(logs - logs.max())
    elif name == "geometric":
        weights = (1 - 1 / mean) ** (k - 1.0)
    elif name == "uniform":
        weights = (k <= max(1, round(2 * mean - 1))).astype(np.float64)
    else:
        weights = (k == round(mean)).astype(np.float64)
    law = weights / weights.sum()
    law.flags.writeable = False
    return law


def length_law(cfg: ObjectiveConfig) -> Float64:
    """Give the probabilities of span lengths 1..max_span_length, normalised."""
    return _law(cfg.length_law, cfg.mean_span_length, cfg.max_span_length)


def length_steps(cfg: ObjectiveConfig) -> Float64:
    """Give the inner edges of the law's distribution: `searchsorted` of a draw is k - 1."""
    return np.cumsum(length_law(cfg))[:-1]


def kind_edges(cfg: ObjectiveConfig) -> Float64:
    """Give the inner edges of the mixture: `searchsorted` of a draw is the kind."""
    edges = np.cumsum(cfg.rates)[:-1]
    # Rounding must not leave a sliver of the last draws to kinds of rate 0.
    edges[edges > 1 - 1e-9] = 1
    return edges


def drawn_ratio(draw: Float64, cfg: ObjectiveConfig) -> Float64:
    """Turn a uniform draw into a document's share of masked tokens."""
    return np.full_like(draw, cfg.mask_ratio) if cfg.ratio_law == "fixed" else draw * cfg.max_ratio


def span_budget(num_tokens: Int64, ratio: Float64) -> Int64:
    """Give how many tokens are to be cut out at least: a share of them, and never 0."""
    return np.maximum(1, (ratio * num_tokens).astype(np.int64))


def max_spans(num_tokens: Int64, cfg: ObjectiveConfig, ratio: Float64) -> Int64:
    """Bound the spans of documents at their ratios: 4.5 standard deviations above the mean.

    A bound is what lets a row be planned before anything is drawn; it is reached about three times
    in a million documents, which then have a little less masked.
    """
    law = length_law(cfg)
    k = np.arange(1, len(law) + 1)
    first = (law * k).sum()
    variance = (law * k * k).sum() - first**2
    expected = ratio * num_tokens / first + 1
    bound = expected + 4.5 * np.sqrt(np.maximum(0, expected * variance)) / first
    # No more than one span for every two tokens fit, with a visible token between them.
    most = np.minimum(np.ceil(bound).astype(np.int64), (num_tokens + 1) // 2)
    return np.minimum(most, cfg.sentinels) if cfg.sentinels else most


def pin_probability(answer_tokens: Int64) -> Float64:
    """Say how often `pair_positions="adaptive"` keeps an answer at its mask's position.

    1 - CDF(tokens) of a Poisson law of mean 5: nearly always for one token, never for many
    (LargeScale `collator.py`).
    """
    k = np.arange(PINNED_TOKENS + 1)
    logs = k * math.log(PINNED_MEAN) - PINNED_MEAN - np.array([math.lgamma(i + 1) for i in k])
    tail = 1 - np.cumsum(np.exp(logs))
    return np.maximum(0, tail)[np.minimum(answer_tokens, PINNED_TOKENS)]


def draw_lengths(draws: Float64, num_tokens: int, cfg: ObjectiveConfig, *, budget: int) -> Int32:
    """Turn uniform draws into the span lengths of one document.

    Args:
        draws: `[m]` in [0, 1), m = `max_spans`.
        num_tokens: tokens in the document, at least 1.
        cfg: gives the law.
        budget: stop when this many tokens are reached.

    Returns:
        `[S]` lengths, S >= 1, that leave a visible token between spans.
    """
    steps = length_steps(cfg)
    lengths: list[int] = []
    for draw in draws:
        # A document of a few tokens keeps half of them visible: there must be something to read.
        length = min(
            1 + int(np.searchsorted(steps, draw, side="right")), max(1, num_tokens // 2)
        )  # fmt: skip
        if lengths and sum(lengths) + length + len(lengths) > num_tokens:
            break
        lengths.append(length)
        if sum(lengths) >= budget:
            break
    return np.array(lengths, np.int32)


def place_spans(
    lengths: Int32, num_tokens: int, draws: Iterable[float], placement: Placement = "uniform"
) -> Int32:
    """Place spans in a document with a visible token between neighbours.

    Args:
        lengths: `[S]` in the order in which they stand in the document.
        num_tokens: tokens in the document.
        draws: numbers in [0, 1), as many as it takes: the uniform law draws slots until S of them
            differ, which makes every set of S slots equally likely.
        placement: the law.

    Returns:
        `[S, 2]` half-open spans, sorted.
    """
    num_spans = len(lengths)
    free = num_tokens - int(lengths.sum()) - (num_spans - 1)
    assert free >= 0
    slots: list[int] = []
    for draw in draws:
        if placement == "released":
            slots.append(int(draw * (free + 1)))
        elif (slot := int(draw * (free + num_spans))) not in slots:
            slots.append(slot)
        if len(slots) == num_spans:
            break
    chosen = np.sort(np.array(slots, np.int64))
    if placement == "uniform":
        chosen -= np.arange(num_spans)
    before = np.concatenate([[0], np.cumsum(lengths[:-1] + 1)])
    starts = chosen + before
    return np.stack([starts, starts + lengths], axis=1).astype(np.int32)
