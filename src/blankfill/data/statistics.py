"""Statistics of one epoch of a store under an objective: kinds, lengths, fill, lost tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from blankfill import progress
from blankfill.config.objective import ObjectiveConfig
from blankfill.data.rows import DocumentStore, RowSource
from blankfill.objective.batch import IGNORE_INDEX, End, Kind
from blankfill.objective.spans import length_law
from blankfill.objective.special import SpecialIds
from blankfill.results import short_repr

__all__ = ["EpochStatistics", "epoch_statistics"]

SHOWN_LENGTHS = 10
"""Span lengths that are counted apart; the last takes all longer ones."""
ROWS_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochStatistics:
    """One epoch, counted from the rows that training would see."""

    rows: int
    """Rows of the epoch."""
    row_length: int
    """Positions of a row."""
    examples: int
    """Examples in them."""
    tokens: int
    """Tokens of the documents."""
    tokens_in_stores: int
    """Tokens of the stores; equal to `tokens`."""
    fill: float
    """Share of positions that are not padding."""
    kinds: dict[str, float]
    """Share of each kind of example."""
    fallbacks: int
    """Examples whose document could not take the drawn kind."""
    masked_tokens: int
    """Tokens that were cut out."""
    masked_share: dict[str, float]
    """The same as a share of the tokens of each kind's documents."""
    ends: int
    """Targets that end a span."""
    targets: int
    """Targets of all rows."""
    lost: int
    """Masked tokens and ends that are not targets."""
    targets_per_row: dict[str, float]
    """Mean, smallest and largest number of targets of a row."""
    span_lengths: dict[str, float]
    """Share of each length among short spans."""
    length_law: dict[str, float]
    """What the law of lengths says; the last span of a document is longer, as it is drawn only
    where something is missing, and short documents have shorter spans."""

    __repr__ = short_repr


def epoch_statistics(
    stores: Sequence[DocumentStore], cfg: ObjectiveConfig, ids: SpecialIds, *, row_length: int,
    seed: int = 1, epoch: int = 0,
) -> EpochStatistics:  # fmt: skip
    """Count one epoch.

    Args:
        stores: token stores.
        cfg: the objective.
        ids: the special tokens.
        row_length: positions of a row.
        seed: the run's seed.
        epoch: 0-based pass over the data.
    """
    source = RowSource(stores, cfg, ids, row_length=row_length, seed=seed)
    kinds, masked, tokens = (np.zeros(len(Kind), np.int64) for _ in range(3))
    lengths = np.zeros(SHOWN_LENGTHS + 1, np.int64)
    fallbacks = ends = used = 0
    for drawn, fills in source.windows(epoch):
        spans = np.diff(drawn.first)
        kind_of_span = np.repeat(drawn.kinds, spans)
        kinds += np.bincount(drawn.kinds, minlength=len(Kind))
        tokens += np.bincount(drawn.kinds, drawn.num_tokens, len(Kind)).astype(np.int64)
        masked += np.bincount(kind_of_span, drawn.lengths, len(Kind)).astype(np.int64)
        short = np.minimum(drawn.lengths[kind_of_span == Kind.SHORT], SHOWN_LENGTHS)
        lengths += np.bincount(short, minlength=SHOWN_LENGTHS + 1)
        fallbacks += int((drawn.kinds != drawn.drawn_kinds).sum())
        ends += int(spans[drawn.ends != End.NONE].sum())
        used += int(fills.sum())
    rows = source.num_rows(epoch)
    first = sum(source.num_rows(e) for e in range(epoch))
    per_row = _targets(source, first, rows)
    law = length_law(cfg)
    names = [str(k) for k in range(1, SHOWN_LENGTHS)] + [f"{SHOWN_LENGTHS}+"]
    expected = np.append(law, np.zeros(SHOWN_LENGTHS))
    shares = [*expected[: SHOWN_LENGTHS - 1].tolist(), float(expected[SHOWN_LENGTHS - 1 :].sum())]
    found = (lengths[1:] / max(1, lengths.sum())).tolist()
    return EpochStatistics(
        rows=rows, row_length=row_length, examples=int(kinds.sum()), tokens=int(tokens.sum()),
        tokens_in_stores=sum(store.num_tokens for store in stores),
        fill=used / (rows * row_length),
        kinds={k.name.lower(): float(kinds[k] / kinds.sum()) for k in Kind if kinds[k]},
        fallbacks=fallbacks, masked_tokens=int(masked.sum()),
        masked_share={k.name.lower(): float(masked[k] / tokens[k]) for k in Kind if kinds[k]},
        ends=ends, targets=int(per_row.sum()), lost=int(masked.sum()) + ends - int(per_row.sum()),
        targets_per_row={
            "mean": float(per_row.mean()), "min": float(per_row.min()), "max": float(per_row.max())
        },
        span_lengths=dict(zip(names, found, strict=True)),
        length_law=dict(zip(names, shares, strict=True)),
    )  # fmt: skip


def _targets(
    source: RowSource, first: int, rows: int
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Build every row and count its targets."""
    counts: list[int] = []
    with progress.bar("rows", rows, "rows") as meter:
        for row in range(first, first + rows, ROWS_AT_ONCE):
            batch = source.rows(row, min(ROWS_AT_ONCE, first + rows - row))
            counts += (batch.targets != IGNORE_INDEX).sum(1).tolist()
            meter.advance(len(batch.tokens))
    return np.array(counts, np.int64)
