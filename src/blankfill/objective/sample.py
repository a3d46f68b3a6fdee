"""One document's example: its kind, blanks and order, drawn from (seed, epoch, index).

The plain statement of what is drawn; `many` and `build` do the same for the rows of a batch.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import numpy as np

from blankfill.config.objective import ObjectiveConfig
from blankfill.objective.batch import End, Example, Float32, Int32, Int64, Kind
from blankfill.objective.blank import build_example
from blankfill.objective.draws import sort_keys, uniform_draws
from blankfill.objective.frame import frame_blanks
from blankfill.objective.positions import PairRule
from blankfill.objective.spans import (
    draw_lengths,
    drawn_ratio,
    kind_edges,
    max_spans,
    pin_probability,
    place_spans,
    span_budget,
)
from blankfill.objective.special import SpecialIds

__all__ = ["draw_example", "drawn_kind"]


class _Draws:
    """The draws of one document."""

    def __init__(self, seed: int, epoch: int, index: int) -> None:
        self.seed, self.epoch, self.index = seed, epoch, np.array(index, np.int64)

    def one(self, number: int, purpose: str = "kind") -> float:
        return float(self.many(purpose, number + 1)[number])

    def many(self, purpose: str, size: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return uniform_draws(self.index, np.arange(size), self.seed, purpose, self.epoch)

    def bounds(self, n: int, cfg: ObjectiveConfig) -> tuple[int, int]:
        """Give the most spans of the document, and the tokens at which drawing stops."""
        ratio = drawn_ratio(np.array([self.one(6)]), cfg)
        tokens = np.array([n])
        return int(max_spans(tokens, cfg, ratio)[0]), int(span_budget(tokens, ratio)[0])

    def permutation(self, purpose: str, size: int) -> Int64:
        keys = sort_keys(self.index, np.arange(size), self.seed, purpose, self.epoch)
        return np.argsort(keys, kind="stable")


def drawn_kind(cfg: ObjectiveConfig, *, seed: int, epoch: int, index: int) -> Kind:
    """Draw the kind of a document's blanks, before asking whether it can take it."""
    draw = _Draws(seed, epoch, index).one(0)
    return Kind(int(np.searchsorted(kind_edges(cfg), draw, side="right")))


def draw_example(
    tokens: Int32,
    cfg: ObjectiveConfig,
    ids: SpecialIds,
    *,
    seed: int,
    epoch: int,
    index: int,
    is_last: bool = True,
    sentence_ends: Int64 | None = None,
    row_length: int | None = None,
    prompt: int | None = None,
) -> Example:
    """Draw the example of one document: the same one on any rank, any day.

    A document that cannot take the drawn kind takes the next that fits: sentences need two of them,
    short spans two tokens, a document blank one.

    Args:
        tokens: `[n]` document tokens, at least one.
        cfg: the objective.
        ids: the special tokens.
        seed: the run's seed.
        epoch: 0-based pass over the data.
        index: number of the document (or piece) in the data.
        is_last: whether the text really ends with these tokens.
        sentence_ends: token ends of its sentences, the last of them n.
        row_length: bound of the positions under `random_offset`; text position of Part B with
            sentinels.
        prompt: of a pair, the tokens before its answer, which is then the blank.

    Returns:
        The example, of the text in its frame; its weights are those of `loss_weights="token"` or
        `"kind"`, since a row's depend on its other examples.
    """
    draws = _Draws(seed, epoch, index)
    n = len(tokens)
    kind = Kind.PAIR
    if prompt is None:
        kind = drawn_kind(cfg, seed=seed, epoch=epoch, index=index)
    if kind == Kind.SENTENCE and (sentence_ends is None or len(sentence_ends) < 2):
        kind = Kind.SHORT
    if kind == Kind.SHORT and n < 2:
        kind = Kind.DOCUMENT
    end = End.EOP
    pair_rule: PairRule = "straight"
    if prompt is not None:
        spans = np.array([[prompt, n]], np.int32)
        pair_rule = _pair_rule(n - prompt, cfg, draws)
    elif kind == Kind.SHORT:
        limit, budget = draws.bounds(n, cfg)
        if draws.one(2) < cfg.single_span_rate:
            budget = 1
        lengths = draw_lengths(draws.many("lengths", limit), n, cfg, budget=budget)
        lengths = lengths[draws.permutation("arrangement", len(lengths))]
        places = (draws.one(i, "places") for i in count())
        spans = place_spans(lengths, n, places, cfg.placement)
    elif kind == Kind.SENTENCE:
        assert sentence_ends is not None
        spans = _whole_sentences(sentence_ends, n, cfg, draws)
    else:
        start, stop = _long(n, kind, cfg, draws)
        spans = np.array([[start, stop]], np.int32)
        if stop == n:
            rule = {"eop": End.EOP, "eos": End.EOS, "none": End.NONE}[cfg.document_end]
            end = rule if is_last else End.NONE
    order = np.arange(len(spans), dtype=np.int32)
    if cfg.shuffle_spans:
        order = draws.permutation("order", len(spans)).astype(np.int32)
    tokens, spans = frame_blanks(tokens, spans, kind, ids)
    example = build_example(
        tokens, spans, kind=kind, order=order, ids=ids, scheme=cfg.positions, end=end,
        pair_rule=pair_rule, sentinel_position=row_length if cfg.sentinels else None,
    )  # fmt: skip
    return _finished(example, cfg, ids, draws, row_length)


def _whole_sentences(ends: Int64, n: int, cfg: ObjectiveConfig, draws: _Draws) -> Int32:
    limit, budget = draws.bounds(n, cfg)
    most = min(limit, len(ends) - 1)
    starts = np.concatenate([[0], ends[:-1]])
    taken: list[tuple[int, int]] = []
    for s in draws.permutation("sentences", len(ends)).tolist():
        if len(taken) == most or sum(stop - start for start, stop in taken) >= budget:
            break
        taken.append((int(starts[s]), int(ends[s])))
    return np.array(sorted(taken), np.int32)


def _long(n: int, kind: Kind, cfg: ObjectiveConfig, draws: _Draws) -> tuple[int, int]:
    """Draw a document blank; the prefix may be empty (GLM-130B). A causal one is the whole text."""
    least = max(1, int(cfg.min_document_share * n))
    most = max(least, int(cfg.max_document_share * n))
    length = least + int(draws.one(1) * (most - least + 1))
    if kind == Kind.CAUSAL:
        length = n
    start = n - length
    if cfg.infill_rate and draws.one(3) < cfg.infill_rate:
        start = int(draws.one(4) * (start + 1))
    return start, start + length


def _pair_rule(answer_tokens: int, cfg: ObjectiveConfig, draws: _Draws) -> PairRule:
    if cfg.pair_positions != "adaptive":
        return cfg.pair_positions
    pinned = draws.one(7) < float(pin_probability(np.array([answer_tokens]))[0])
    return "pinned" if pinned else "unified"


def _finished(
    example: Example, cfg: ObjectiveConfig, ids: SpecialIds, draws: _Draws, row_length: int | None
) -> Example:
    """Apply what is drawn for the whole example: shift, dropout, weights."""
    tokens, positions, weights = example.tokens, example.positions, example.weights
    part_b = example.part_b_start
    if cfg.random_offset:
        room = (row_length or len(tokens)) - len(tokens)
        positions = positions + np.array([[int(draws.one(5) * (room + 1))], [0]], np.int32)
    if cfg.block_dropout and example.kind == Kind.SHORT:
        dropped = draws.many("dropout", len(tokens) - part_b) < cfg.block_dropout
        lengths = example.spans[example.order]
        inputs = lengths[:, 1] - lengths[:, 0] + (example.end != End.NONE)
        dropped[np.cumsum(inputs) - inputs] = False
        tokens = tokens.copy()
        tokens[part_b:][dropped] = ids.dblock
    if cfg.loss_weights == "kind":
        weight: Float32 = np.array(cfg.kind_weights, np.float32)[example.kind]
        weights = weights * weight
    return replace(example, tokens=tokens, positions=positions, weights=weights)
