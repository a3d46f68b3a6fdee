"""One document's example: its kind, blanks and order, drawn from (seed, epoch, index)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from blankfill import rng
from blankfill.config.objective import ObjectiveConfig
from blankfill.objective.batch import Bool, Example, Int32, Int64, Kind
from blankfill.objective.blank import build_example
from blankfill.objective.spans import draw_lengths, max_spans, place_spans, uniform_draws
from blankfill.objective.special import SpecialIds

__all__ = ["Draw", "draw_example", "draw_many", "example_from", "longest_piece", "placed"]


class Draw(NamedTuple):
    """What was drawn for one document, before its places."""

    kind: Kind
    """What is cut out."""
    lengths: Int32
    """`[S]` tokens of each span."""
    ends: bool
    """Whether the targets end in `eop`."""

    def example_length(self, num_tokens: int) -> int:
        """Positions of the example: every token, and two for each span."""
        return num_tokens + 2 * len(self.lengths) - (not self.ends)


def draw_many(
    num_tokens: Int64, is_last: Bool, indices: Int64, cfg: ObjectiveConfig, *, seed: int,
    epoch: int,
) -> list[Draw]:  # fmt: skip
    """Draw kind and span lengths of many documents at once.

    Args:
        num_tokens: `[n]` tokens of each document or piece, each at least 1.
        is_last: `[n]` true where the text really ends with this piece.
        indices: `[n]` number of each piece in the epoch's data.
        cfg: the objective.
        seed: the run's seed.
        epoch: 0-based pass over the data.
    """
    first = uniform_draws(indices, 2, seed, "kind", epoch)
    short = first[:, 0] < cfg.short_rate
    draws: list[Draw] = []
    chunk = 4096
    for start in range(0, len(indices), chunk):
        part = slice(start, start + chunk)
        most = int(max_spans(num_tokens[part], cfg.mask_ratio, cfg.mean_span_length).max())
        uniform = uniform_draws(indices[part], most, seed, "lengths", epoch)
        for i, n in enumerate(num_tokens[part].tolist()):
            if short[start + i]:
                limit = int(max_spans(np.array([n]), cfg.mask_ratio, cfg.mean_span_length)[0])
                lengths = draw_lengths(uniform[i, :limit], n, cfg.mask_ratio, cfg.mean_span_length)
                draws.append(Draw(Kind.SHORT, lengths, True))
            else:
                # UniformInt over the configured share; the prefix may be empty (GLM-130B).
                least = max(1, int(cfg.min_document_share * n))
                length = least + int(first[start + i, 1] * (n - least + 1))
                draws.append(
                    Draw(
                        Kind.DOCUMENT,
                        np.array([length], np.int32),
                        cfg.end_documents and bool(is_last[start + i]),
                    )
                )
    return draws


def example_from(
    draw: Draw, tokens: Int32, index: int, cfg: ObjectiveConfig, ids: SpecialIds, *, seed: int,
    epoch: int,
) -> Example:  # fmt: skip
    """Place a draw's spans in its document and build the example."""
    spans, order = placed(draw, len(tokens), index, seed=seed, epoch=epoch)
    return build_example(
        tokens, spans, kind=draw.kind, order=order, ids=ids, scheme=cfg.positions, ends=draw.ends
    )


def placed(
    draw: Draw, num_tokens: int, index: int, *, seed: int, epoch: int
) -> tuple[Int32, Int32]:
    """Place a draw's spans, and order them for Part B.

    Returns:
        `[S, 2]` spans in the document, and the `[S]` order in which they are generated.
    """
    if draw.kind == Kind.DOCUMENT:
        spans = np.array([[num_tokens - draw.lengths[0], num_tokens]], np.int32)
        return spans, np.zeros(1, np.int32)
    places = rng.generator(seed, "places", epoch, index)
    lengths = draw.lengths[places.permutation(len(draw.lengths))]
    spans = place_spans(lengths, num_tokens, places)
    return spans, places.permutation(len(spans)).astype(np.int32)


def draw_example(
    tokens: Int32, cfg: ObjectiveConfig, ids: SpecialIds, *, seed: int, epoch: int, index: int,
    is_last: bool = True,
) -> Example:  # fmt: skip
    """Draw the example of one document: the same one on any rank, any day.

    Args:
        tokens: `[n]` document tokens, at least one.
        cfg: the objective.
        ids: the special tokens.
        seed: the run's seed.
        epoch: 0-based pass over the data.
        index: number of the document (or piece) in the data.
        is_last: whether the text really ends with these tokens.
    """
    draw = draw_many(
        np.array([len(tokens)]), np.array([is_last]), np.array([index]), cfg, seed=seed,
        epoch=epoch,
    )[0]  # fmt: skip
    return example_from(draw, tokens, index, cfg, ids, seed=seed, epoch=epoch)


def longest_piece(row_length: int, cfg: ObjectiveConfig) -> int:
    """Find the longest piece whose example fits a row, whatever is drawn."""
    n = np.arange(1, row_length + 1)
    fits = n + 2 * max_spans(n, cfg.mask_ratio, cfg.mean_span_length) <= row_length
    return int(n[fits].max(initial=0))
