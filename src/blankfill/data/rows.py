"""The endless stream of packed rows: a pure function of stores, objective, seed and row index.

Documents longer than a row are cut into pieces of equal length, so that Part B is never truncated
and every token is in exactly one piece. An epoch puts all pieces into a pseudo-random order, draws
each one's kind and span lengths, and packs them; that plan needs lengths only, no token. A batch
then reads the few documents that its rows name. So any rank makes any row alone, and resuming at a
step is asking for its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from blankfill.config.objective import ObjectiveConfig
from blankfill.errors import ConfigError, DataError
from blankfill.objective.batch import Batch, Example, Int64, UInt8
from blankfill.objective.pack import pack, stack
from blankfill.objective.sample import Draw, draw_many, example_from, longest_piece
from blankfill.objective.special import SpecialIds
from blankfill.rng import permute

__all__ = ["DocumentStore", "RowSource"]

SHORTEST_ROW = 16
"""Rows below this hold no example worth learning from."""


class DocumentStore(Protocol):
    """What the stream needs of a token store."""

    @property
    def lengths(self) -> Int64:
        """`[N]` tokens of each document."""
        ...

    @property
    def languages(self) -> UInt8:
        """`[N]` language code of each document."""
        ...

    def document(self, index: int) -> npt.NDArray[np.generic]:
        """Return the tokens of one document."""
        ...


@dataclass(frozen=True, slots=True)
class _Plan:
    """One epoch: which pieces stand in which row, and what was drawn for them."""

    rows: list[list[int]]
    """Piece numbers of each row."""
    draws: dict[int, Draw]
    """Draw of each piece."""


class RowSource:
    """Rows of one or several stores.

    Args:
        stores: token stores; an epoch passes over all of their documents once.
        objective: what is cut out.
        ids: the special tokens.
        row_length: positions of a row.
        seed: the run's seed.

    Raises:
        ConfigError: the row is too short.
        DataError: no store holds a token.
    """

    def __init__(
        self,
        stores: Sequence[DocumentStore],
        objective: ObjectiveConfig,
        ids: SpecialIds,
        *,
        row_length: int,
        seed: int,
    ) -> None:
        if row_length < SHORTEST_ROW:
            raise ConfigError(f"row_length={row_length} must be at least {SHORTEST_ROW}")
        self._stores, self._objective, self._ids = stores, objective, ids
        self._row_length, self._seed = row_length, seed
        self._source, self._document, self._start, self._end, self._last = _cut(
            stores, longest_piece(row_length, objective)
        )
        if not len(self._start):
            raise DataError("the token stores hold no token; build them from text that has some")
        self._plans: dict[int, _Plan] = {}
        self._first_rows = [0]
        """Row index at which each epoch begins, as far as they are known."""

    def batch(self, index: int, num_rows: int) -> Batch:
        """Make the rows `[index * num_rows, (index + 1) * num_rows)` of the stream."""
        rows: list[list[Example]] = []
        pieces: list[int] = []
        for row in range(index * num_rows, (index + 1) * num_rows):
            epoch, within = self._locate(row)
            plan = self._plan(epoch)
            numbers = plan.rows[within]
            rows.append([self._example(piece, plan.draws[piece], epoch) for piece in numbers])
            pieces += numbers
        documents, sources = self._document[pieces], self._source[pieces]
        return stack(
            rows, self._row_length, pad=self._ids.pad, documents=documents.tolist(),
            sources=sources.tolist(),
            languages=[
                int(self._stores[s].languages[d]) for s, d in zip(sources, documents, strict=True)
            ],
        )  # fmt: skip

    def rows_in_epoch(self, epoch: int) -> int:
        """Count the rows of one epoch; it depends a little on what was drawn."""
        return len(self._plan(epoch).rows)

    def epoch_at(self, row: int) -> float:
        """Tell how many passes over the data stand before a row."""
        epoch, within = self._locate(row)
        return epoch + within / self.rows_in_epoch(epoch)

    def _locate(self, row: int) -> tuple[int, int]:
        while row >= self._first_rows[-1]:
            epoch = len(self._first_rows) - 1
            self._first_rows.append(self._first_rows[-1] + self.rows_in_epoch(epoch))
        epoch = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        return epoch, row - self._first_rows[epoch]

    def _plan(self, epoch: int) -> _Plan:
        if epoch not in self._plans:
            pieces = permute(
                np.arange(len(self._start)), len(self._start), self._seed, "order", epoch
            )
            lengths = (self._end - self._start)[pieces]
            draws = draw_many(
                lengths, self._last[pieces], pieces, self._objective, seed=self._seed, epoch=epoch
            )
            sizes = np.array(
                [d.example_length(n) for d, n in zip(draws, lengths.tolist(), strict=True)]
            )
            rows = pack(sizes, self._row_length)
            plan = _Plan(
                [[int(pieces[k]) for k in row] for row in rows],
                dict(zip(pieces.tolist(), draws, strict=True)),
            )
            # A batch reaches into one epoch or two, so older plans are let go.
            self._plans = {e: p for e, p in self._plans.items() if e == epoch - 1} | {epoch: plan}
        return self._plans[epoch]

    def _example(self, piece: int, draw: Draw, epoch: int) -> Example:
        store = self._stores[int(self._source[piece])]
        tokens = store.document(int(self._document[piece]))
        tokens = tokens[int(self._start[piece]) : int(self._end[piece])].astype(np.int32)
        return example_from(
            draw, tokens, piece, self._objective, self._ids, seed=self._seed, epoch=epoch
        )


def _cut(
    stores: Sequence[DocumentStore], longest: int
) -> tuple[Int64, Int64, Int64, Int64, npt.NDArray[np.bool_]]:
    """Cut documents into pieces of equal length, none longer than `longest`.

    Returns:
        Of each piece: its store, document, first token, end, and whether the document ends there.
    """
    parts: list[npt.NDArray[np.int64]] = []
    for number, store in enumerate(stores):
        lengths = np.asarray(store.lengths, dtype=np.int64)
        counts = -(-lengths // longest)
        document = np.repeat(np.arange(len(lengths)), counts)
        total = int(counts.sum())
        piece = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
        length, count = lengths[document], counts[document]
        start, end = length * piece // count, length * (piece + 1) // count
        source = np.full(total, number)
        parts.append(np.stack([source, document, start, end, piece == count - 1]))
    table = np.concatenate(parts, axis=1) if parts else np.zeros((5, 0), np.int64)
    return table[0], table[1], table[2], table[3], table[4].astype(bool)
