"""How much of a document fits a row: planned from what is drawn, so that nothing is truncated."""

from __future__ import annotations

import numpy as np

from blankfill.config.objective import ObjectiveConfig
from blankfill.objective.batch import Int64, Kind
from blankfill.objective.draws import uniform_draws
from blankfill.objective.many import ShortSpans
from blankfill.objective.spans import drawn_ratio, kind_edges, max_spans

__all__ = ["fit_pairs", "longest_fit", "longest_piece"]

SHORTEST_PROMPT = 128
"""A long answer shortens its text to this, before it is cut itself (LargeScale `collator.py`)."""


def longest_piece(row_length: int, cfg: ObjectiveConfig) -> int:
    """Find the longest piece whose example fits a row, whatever is drawn."""
    n = np.arange(1, row_length + 1)
    ratio = np.full(row_length, cfg.max_ratio)
    most = max_spans(n, cfg, ratio) if cfg.short_rate or cfg.sentence_rate else np.ones_like(n)
    fits = n + 2 * most <= row_length
    return int(n[fits].max(initial=0))


def longest_fit(
    numbers: Int64, room: Int64, cfg: ObjectiveConfig, *, seed: int, epoch: int, row_length: int
) -> Int64:
    """Say how long a piece may be so that the example drawn for it fits a row, and fills it.

    Args:
        numbers: `[n]` address of each piece's draws.
        room: `[n]` tokens that are left of its document.
        cfg: the objective.
        seed: the run's seed.
        epoch: 0-based pass over the data.
        row_length: positions of a row.

    Returns:
        `[n]` lengths, each in [1, room].
    """
    always = longest_piece(row_length, cfg)
    lengths = np.minimum(room, always)
    # Spans longer than half a piece are cut down to it; below that size the bound serves.
    long = np.flatnonzero(room > always) if always >= 2 * cfg.max_span_length else room[:0]
    if not len(long):
        return lengths
    number = numbers[long]
    draw = uniform_draws(number, np.int64(0), seed, "kind", epoch)
    kinds = np.searchsorted(kind_edges(cfg), draw, side="right")
    fitting = np.full(len(long), row_length - 2)
    sentence = kinds == Kind.SENTENCE
    if sentence.any():
        ratio = drawn_ratio(uniform_draws(number[sentence], np.int64(6), seed, "kind", epoch), cfg)
        whole = np.full(len(ratio), row_length)
        fitting[sentence] = np.maximum(always, row_length - 2 * max_spans(whole, cfg, ratio))
    short = np.flatnonzero(kinds == Kind.SHORT)
    if len(short):
        # Longer pieces never have fewer spans, so what fits with a row's spans fits; then once more
        # with its own, which are a few less.
        best = np.full(len(short), row_length)
        spans = ShortSpans(best, number[short], cfg, seed=seed, epoch=epoch)
        for _ in range(2):
            counts, _ = spans.take(best)
            tried = row_length - 2 * counts
            again, _ = spans.take(tried)
            best = np.where(tried + 2 * again <= row_length, tried, best)
        fitting[short] = np.maximum(always, best)
    lengths[long] = np.minimum(room[long], fitting)
    return lengths


def fit_pairs(prompts: Int64, answers: Int64, row_length: int) -> tuple[Int64, Int64]:
    """Shorten pairs that are longer than a row, by GLM-130B's rule.

    The text keeps its first tokens, as many as the answer leaves room for but no fewer than 128;
    then the answer is cut. Two positions go to the mask and `[S]`.

    Args:
        prompts: `[n]` tokens of each text.
        answers: `[n]` tokens of each answer, at least 1.
        row_length: positions of a row.

    Returns:
        `[n]` tokens that are kept of each text and of each answer.
    """
    room = row_length - 2
    least = min(SHORTEST_PROMPT, room - 1)
    kept = np.minimum(prompts, np.maximum(least, room - answers))
    return kept, np.minimum(answers, room - kept)
