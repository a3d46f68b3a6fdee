"""Drawing the blanks of many documents at once: the rules of `sample`, in vector operations.

Shapes: n documents (or pieces), S spans of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from blankfill.config.objective import ObjectiveConfig
from blankfill.objective.batch import Bool, End, Int64, Kind, UInt8
from blankfill.objective.drawn import Drawn, Placed, offsets, ranks, sums
from blankfill.objective.draws import permuted_ranks, sort_keys, uniform_draws
from blankfill.objective.frame import BARE, CLOSED, OPEN
from blankfill.objective.spans import (
    drawn_ratio,
    kind_edges,
    length_steps,
    max_spans,
    pin_probability,
    span_budget,
)

__all__ = ["Sentences", "ShortSpans", "draw_many", "place_many"]

SLOT_BITS = 32
"""Bits of a slot of a document, below its number in one integer."""


class Sentences(Protocol):
    """Where sentences end."""

    def __call__(self, selection: Int64, /) -> tuple[Int64, Int64]:
        """Look the sentences of some documents up.

        Args:
            selection: `[m]` which of the documents, by their place in the call's arguments.

        Returns:
            `[m + 1]` offsets and the flat token ends of each document's sentences; the last of
            each document is its length.
        """
        ...


def draw_many(
    num_tokens: Int64,
    is_last: Bool,
    numbers: Int64,
    cfg: ObjectiveConfig,
    *,
    seed: int,
    epoch: int,
    sentences: Sentences | None = None,
    prompts: Int64 | None = None,
    framed: bool = False,
) -> Drawn:
    """Draw kind and span lengths of many documents.

    Args:
        num_tokens: `[n]` tokens of each document or piece, each at least 1.
        is_last: `[n]` true where the text really ends with this piece.
        numbers: `[n]` number of each piece in the epoch's data.
        cfg: the objective.
        seed: the run's seed.
        epoch: 0-based pass over the data.
        sentences: where sentences end; without, no document has two of them.
        prompts: `[n]` tokens before the answer of a pair, whose blank is the answer, whatever the
            mixture; -1 where a document is plain text. None where all are.
        framed: whether the vocabulary has a token that opens every text; see `objective.frame`.
    """
    n = len(numbers)
    kind_draw = uniform_draws(numbers, np.int64(0), seed, "kind", epoch)
    drawn_kinds = np.searchsorted(kind_edges(cfg), kind_draw, side="right").astype(np.uint8)
    if prompts is not None:
        drawn_kinds[prompts >= 0] = Kind.PAIR
    kinds = drawn_kinds.copy()
    groups: list[tuple[Int64, Int64, Int64, Int64]] = []
    chosen = np.flatnonzero(kinds == Kind.SENTENCE)
    if len(chosen):
        kinds[chosen] = Kind.SHORT
        if sentences is not None:
            group = _whole_sentences(
                num_tokens, numbers, cfg, seed, epoch, chosen, sentences(chosen)
            )
            kinds[group[0]] = Kind.SENTENCE
            groups.append(group)
    # One token alone cannot have a blank and something to read.
    kinds[(kinds == Kind.SHORT) & (num_tokens < 2)] = Kind.DOCUMENT
    short = np.flatnonzero(kinds == Kind.SHORT)
    sizes = num_tokens[short]
    spans = ShortSpans(sizes, numbers[short], cfg, seed=seed, epoch=epoch)
    counts, drawn_lengths = spans.take(sizes)
    groups.append((short, counts, drawn_lengths, np.full(len(drawn_lengths), -1, np.int64)))
    long = np.flatnonzero((kinds == Kind.DOCUMENT) | (kinds == Kind.CAUSAL))
    lengths, starts = _long(num_tokens[long], numbers[long], kinds[long], cfg, seed, epoch)
    groups.append((long, np.ones(len(long), np.int64), lengths, starts))
    if prompts is not None and len(pairs := np.flatnonzero(kinds == Kind.PAIR)):
        answers = prompts[pairs]
        groups.append((pairs, np.ones(len(pairs), np.int64), num_tokens[pairs] - answers, answers))

    first, all_lengths, all_starts = _merged(n, groups)
    ends = np.full(n, End.EOP, np.uint8)
    to_the_end = long[starts + lengths == num_tokens[long]]
    rule = {"eop": End.EOP, "eos": End.EOS, "none": End.NONE}[cfg.document_end]
    ends[to_the_end] = np.where(is_last[to_the_end], rule, End.NONE)
    frames = np.full(n, CLOSED if framed else BARE, np.uint8)
    frames[to_the_end] = OPEN if framed else BARE
    return Drawn(
        numbers=numbers, num_tokens=num_tokens, kinds=kinds, drawn_kinds=drawn_kinds,
        frames=frames, first=first, lengths=all_lengths, starts=all_starts, ends=ends,
    )  # fmt: skip


def _merged(
    n: int, groups: Sequence[tuple[Int64, Int64, Int64, Int64]]
) -> tuple[Int64, Int64, Int64]:
    """Put the spans of groups of documents into one order of documents.

    Args:
        n: documents.
        groups: of each the documents, how many spans each has, and all lengths and starts.

    Returns:
        `[n + 1]` offsets, and `[S]` lengths and starts.
    """
    counts = np.zeros(n, np.int64)
    for members, group_counts, _, _ in groups:
        counts[members] = group_counts
    first = offsets(counts)
    lengths, starts = np.empty(first[-1], np.int64), np.empty(first[-1], np.int64)
    for members, group_counts, group_lengths, group_starts in groups:
        into = np.repeat(first[members], group_counts) + ranks(offsets(group_counts))
        lengths[into], starts[into] = group_lengths, group_starts
    return first, lengths, starts


class ShortSpans:
    """Lengths of short spans, drawn once for documents whose sizes are yet to be settled.

    Args:
        most: `[n]` the largest size that each document may come to.
        numbers: `[n]` address of each document's draws.
        cfg: gives the law and the ratios.
        seed: the run's seed.
        epoch: 0-based pass over the data.
    """

    def __init__(
        self, most: Int64, numbers: Int64, cfg: ObjectiveConfig, *, seed: int, epoch: int
    ) -> None:
        self._cfg = cfg
        self._ratio = drawn_ratio(uniform_draws(numbers, np.int64(6), seed, "kind", epoch), cfg)
        limit = max_spans(most, cfg, self._ratio)
        self._first = offsets(limit)
        self._owner = np.repeat(np.arange(len(numbers)), limit)
        self._rank = ranks(self._first)
        draws = uniform_draws(numbers[self._owner], self._rank, seed, "lengths", epoch)
        self._lengths = 1 + np.searchsorted(length_steps(cfg), draws, side="right")
        self._single = np.zeros(len(numbers), bool)
        if cfg.single_span_rate:
            draw = uniform_draws(numbers, np.int64(2), seed, "kind", epoch)
            self._single = draw < cfg.single_span_rate

    def take(self, num_tokens: Int64) -> tuple[Int64, Int64]:
        """Give the spans of documents of these sizes: `spans.draw_lengths` of many documents.

        Args:
            num_tokens: `[n]` tokens of each document, at most those that it was drawn for.

        Returns:
            `[n]` how many spans each document has, and the lengths of all of them.
        """
        owner, first = self._owner, self._first
        lengths = np.minimum(self._lengths, np.maximum(1, num_tokens // 2)[owner])
        total = np.cumsum(lengths)
        total -= (total - lengths)[first[:-1]][owner]
        budget = np.where(self._single, 1, span_budget(num_tokens, self._ratio))
        kept = self._rank < max_spans(num_tokens, self._cfg, self._ratio)[owner]
        kept &= total - lengths < budget[owner]
        kept &= total + self._rank <= num_tokens[owner]
        return sums(kept, first), lengths[kept]


def _whole_sentences(
    num_tokens: Int64, numbers: Int64, cfg: ObjectiveConfig, seed: int, epoch: int, members: Int64,
    found: tuple[Int64, Int64],
) -> tuple[Int64, Int64, Int64, Int64]:  # fmt: skip
    """Take sentences in random order until the budget is reached, but never the last one left."""
    first, ends = found
    counts = np.diff(first)
    starts = np.concatenate([[0], ends[:-1]])
    starts[first[:-1]] = 0
    owner = np.repeat(np.arange(len(members)), counts)
    rank = ranks(first)
    keys = sort_keys(np.repeat(numbers[members], counts), rank, seed, "sentences", epoch)
    by_key = np.repeat(first[:-1], counts) + permuted_ranks(owner, rank, keys)
    lengths = (ends - starts)[by_key]
    total = np.cumsum(lengths)
    before = total - lengths
    before -= np.repeat(before[first[:-1]], counts)
    ratio = drawn_ratio(uniform_draws(numbers[members], np.int64(6), seed, "kind", epoch), cfg)
    budget = span_budget(num_tokens[members], ratio)
    most = np.minimum(max_spans(num_tokens[members], cfg, ratio), counts - 1)
    taken = (before < np.repeat(budget, counts)) & (rank < np.repeat(most, counts))
    chosen = np.sort(by_key[taken])
    num_taken = sums(taken, first)
    able = num_taken > 0
    return members[able], num_taken[able], (ends - starts)[chosen], starts[chosen]


def _long(
    n: Int64, numbers: Int64, kinds: UInt8, cfg: ObjectiveConfig, seed: int, epoch: int
) -> tuple[Int64, Int64]:
    """Draw length and start of document blanks; a causal one is the whole text."""
    least = np.maximum(1, (cfg.min_document_share * n).astype(np.int64))
    most = np.maximum(least, (cfg.max_document_share * n).astype(np.int64))
    share = uniform_draws(numbers, np.int64(1), seed, "kind", epoch)
    lengths = least + (share * (most - least + 1)).astype(np.int64)
    lengths = np.where(kinds == Kind.CAUSAL, n, lengths)
    starts = n - lengths
    if cfg.infill_rate:
        inside = uniform_draws(numbers, np.int64(3), seed, "kind", epoch) < cfg.infill_rate
        place = uniform_draws(numbers, np.int64(4), seed, "kind", epoch)
        starts = np.where(inside, (place * (starts + 1)).astype(np.int64), starts)
    return lengths, starts


def place_many(
    drawn: Drawn, cfg: ObjectiveConfig, *, seed: int, epoch: int, row_length: int
) -> Placed:
    """Place short spans, put all spans into the order of Part B, and draw what else is drawn.

    Args:
        drawn: what `draw_many` drew with the same objective, seed and epoch.
        cfg: the objective.
        seed: the run's seed.
        epoch: 0-based pass over the data.
        row_length: bound of the positions of a shifted example.
    """
    counts = np.diff(drawn.first)
    owner = np.repeat(np.arange(len(counts)), counts)
    number, rank = np.repeat(drawn.numbers, counts), ranks(drawn.first)
    lengths, starts = drawn.lengths.copy(), drawn.starts.copy()
    loose = np.flatnonzero(starts < 0)
    if len(loose):
        keys = sort_keys(number[loose], rank[loose], seed, "arrangement", epoch)
        by_key = permuted_ranks(owner[loose], rank[loose], keys)
        lengths[loose] = lengths[drawn.first[owner[loose]] + by_key]
        starts[loose] = _places(
            lengths[loose], drawn.num_tokens, drawn.numbers, owner[loose], cfg, seed, epoch
        )
    order = rank
    if cfg.shuffle_spans:
        keys = sort_keys(number, rank, seed, "order", epoch)
        order = permuted_ranks(owner, rank, keys)
    shifts = np.zeros(len(counts), np.int64)
    if cfg.random_offset:
        draw = uniform_draws(drawn.numbers, np.int64(5), seed, "kind", epoch)
        shifts = (draw * (row_length - drawn.example_lengths + 1)).astype(np.int64)
    pinned = np.zeros(len(counts), bool)
    if cfg.pair_positions == "adaptive" and len(pairs := np.flatnonzero(drawn.kinds == Kind.PAIR)):
        draw = uniform_draws(drawn.numbers[pairs], np.int64(7), seed, "kind", epoch)
        pinned[pairs] = draw < pin_probability(drawn.lengths[drawn.first[pairs]])
    placed = Placed(
        drawn=drawn, spans=np.stack([starts, starts + lengths], axis=1), order=order,
        shifts=shifts, pinned=pinned, dropped=None,
    )  # fmt: skip
    if not cfg.block_dropout:
        return placed
    return _with_dropout(placed, cfg, seed, epoch)


def _places(
    lengths: Int64, num_tokens: Int64, numbers: Int64, owner: Int64, cfg: ObjectiveConfig,
    seed: int, epoch: int,
) -> Int64:  # fmt: skip
    """Draw the starts of short spans: `spans.place_spans` of all documents that have some."""
    counts = np.bincount(owner, minlength=len(numbers))
    first = offsets(counts)
    rank = ranks(first)
    total = np.cumsum(lengths + 1)
    before = total - lengths - 1
    heads = first[:-1][counts > 0]
    before -= np.repeat(before[heads], counts[counts > 0])
    free = num_tokens + 1 - counts - np.bincount(owner, lengths, len(numbers)).astype(np.int64)
    size = free + (1 if cfg.placement == "released" else counts)

    def slots(documents: Int64, draws: Int64) -> Int64:
        draw = uniform_draws(numbers[documents], draws, seed, "places", epoch)
        return (documents << SLOT_BITS) | (draw * size[documents]).astype(np.int64)

    chosen = np.sort(slots(owner, rank))
    if cfg.placement == "uniform":
        twice = chosen[1:][chosen[1:] == chosen[:-1]] >> SLOT_BITS
        if len(twice):
            crowded = np.zeros(len(numbers), bool)
            crowded[twice] = True
            some = crowded[owner]
            chosen[some] = _distinct(chosen[some], counts, slots)
        chosen -= rank
    return (chosen & ((1 << SLOT_BITS) - 1)) + before


def _distinct(chosen: Int64, counts: Int64, slots: Callable[[Int64, Int64], Int64]) -> Int64:
    """Draw again for every slot that was drawn twice, until each document's slots all differ."""
    used = counts.copy()
    while True:
        fresh = np.ones(len(chosen), bool)
        fresh[1:] = chosen[1:] != chosen[:-1]
        if fresh.all():
            return chosen
        missing = np.bincount(chosen[~fresh] >> SLOT_BITS, minlength=len(counts))
        again = np.repeat(np.arange(len(counts)), missing)
        draws = np.repeat(used, missing) + ranks(offsets(missing))
        used += missing
        chosen = np.sort(np.concatenate([chosen[fresh], slots(again, draws)]))


def _with_dropout(placed: Placed, cfg: ObjectiveConfig, seed: int, epoch: int) -> Placed:
    """Draw which inputs of short spans `dblock` replaces; never a `sop`."""
    drawn = placed.drawn
    counts = np.diff(drawn.first)
    inputs = placed.num_inputs
    draws = uniform_draws(
        np.repeat(drawn.numbers, inputs), ranks(offsets(inputs)), seed, "dropout", epoch
    )
    dropped = (draws < cfg.block_dropout) & np.repeat(drawn.kinds == Kind.SHORT, inputs)
    spans = placed.spans[np.repeat(drawn.first[:-1], counts) + placed.order]
    span_inputs = spans[:, 1] - spans[:, 0] + np.repeat(drawn.ends != End.NONE, counts)
    dropped[np.cumsum(span_inputs) - span_inputs] = False
    return replace(placed, dropped=dropped)
