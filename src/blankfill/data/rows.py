"""The endless stream of packed rows: a pure function of stores, objective, seed and row index.

Documents longer than a row are cut into pieces, so that Part B is never truncated and every token
is in exactly one piece; at sentence ends where the store knows them. An epoch puts all pieces into
a pseudo-random order and takes them window by window: of each window it draws kinds and span
lengths and packs the examples, which needs lengths only. A batch then reads the few documents that
its rows name. So any rank makes any row alone, and resuming at a step is asking for its rows.

Memory beside the stores: eight bytes for each document, and a few windows of 65,536 pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import numpy as np
import numpy.typing as npt

from blankfill.config.objective import ObjectiveConfig
from blankfill.errors import ConfigError, DataError
from blankfill.objective.batch import Batch, Bool, Int32, Int64, UInt8
from blankfill.objective.build import build_rows
from blankfill.objective.many import Drawn, draw_many, join, place_many
from blankfill.objective.pack import pack
from blankfill.objective.sample import longest_piece
from blankfill.objective.special import SpecialIds
from blankfill.rng import permute

__all__ = ["DocumentStore", "Pieces", "RowSource"]

SHORTEST_ROW = 16
"""Rows below this hold no example worth learning from."""
SLACK = 8
"""A cut may move back by one part in this many of the longest piece, to where a sentence ends."""
WINDOW = 1 << 16
"""Pieces that are planned together."""
KEPT_WINDOWS = 4
"""Windows whose plans are kept: a batch, and a loader that runs ahead, reach into the next one."""


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

    @property
    def has_sentences(self) -> bool:
        """Whether it knows where sentences end."""
        ...

    def document(self, index: int) -> npt.NDArray[np.generic]:
        """Return the tokens of one document."""
        ...

    def sentence_ends(self, index: int, start: int, end: int) -> Int64:
        """Return the token ends of sentences in (start, end] of one document."""
        ...


@dataclass(frozen=True, slots=True)
class _Window:
    """A stretch of one epoch: which pieces stand in which row, and what was drawn for them."""

    epoch: int
    members: Int64
    """Pieces of all rows, row by row, as numbers into `drawn`."""
    first: Int64
    """`[rows + 1]` offsets of the rows' members."""
    drawn: Drawn


class Pieces:
    """The documents of several stores, the long ones cut, at sentence ends where there are some.

    Args:
        stores: token stores.
        longest: tokens of the longest piece.
    """

    def __init__(self, stores: Sequence[DocumentStore], longest: int) -> None:
        self._stores = stores
        lengths = [np.asarray(store.lengths, dtype=np.int64) for store in stores]
        self._store_first = np.cumsum([0, *map(len, lengths)])
        self._first = np.zeros(int(self._store_first[-1]) + 1, np.int64)
        self._slack = longest // SLACK
        counts = [
            np.where(length > longest, -(-length // (longest - self._slack)), length > 0)
            for length in lengths
        ]
        np.cumsum(np.concatenate([[0], *counts]), out=self._first)

    def __len__(self) -> int:
        return int(self._first[-1])

    def look_up(self, pieces: Int64) -> tuple[Int64, Int64, Int64, Int64, Bool]:
        """Say where pieces are.

        Args:
            pieces: `[n]`.

        Returns:
            Of each: its store, document, first token, end, and whether the document ends there.
        """
        every = np.searchsorted(self._first, pieces, side="right") - 1
        source = np.searchsorted(self._store_first, every, side="right") - 1
        document = every - self._store_first[source]
        length = np.empty(len(pieces), np.int64)
        for number, store in enumerate(self._stores):
            mine = source == number
            if mine.any():
                length[mine] = np.asarray(store.lengths)[document[mine]]
        count = self._first[every + 1] - self._first[every]
        part = pieces - self._first[every]
        start, end = length * part // count, length * (part + 1) // count
        is_last = part == count - 1
        if self._slack:
            for bounds, inner in ((start, part > 0), (end, ~is_last)):
                for piece in np.flatnonzero(inner).tolist():
                    bounds[piece] = self._cut(
                        int(source[piece]), int(document[piece]), int(bounds[piece])
                    )
        return source, document, start, end, is_last

    def _cut(self, source: int, document: int, place: int) -> int:
        """Move a cut back to the end of a sentence, if one ends shortly before it."""
        store = self._stores[source]
        if not store.has_sentences:
            return place
        ends = store.sentence_ends(document, place - self._slack, place)
        return int(ends[-1]) if len(ends) else place

    def sentences(
        self, source: Int64, document: Int64, start: Int64, end: Int64
    ) -> tuple[Int64, Int64]:
        """Say where the sentences of pieces end.

        Args:
            source: `[n]` store of each piece.
            document: `[n]` its document.
            start: `[n]` its first token.
            end: `[n]` its end.

        Returns:
            `[n + 1]` offsets, and the flat ends in tokens of each piece, its length the last.
        """
        found: list[Int64] = []
        for s, d, a, b in zip(
            source.tolist(), document.tolist(), start.tolist(), end.tolist(), strict=True
        ):
            store = self._stores[s]
            ends = store.sentence_ends(d, a, b) - a if store.has_sentences else np.zeros(0, int)
            found.append(ends if len(ends) and ends[-1] == b - a else np.append(ends, b - a))
        return np.cumsum([0, *map(len, found)]), np.concatenate(found)


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
        longest = longest_piece(row_length, objective)
        if longest < 1:
            raise ConfigError(
                f"row_length={row_length} cannot hold an example of one token under this "
                "objective; take longer rows"
            )
        self._pieces = Pieces(stores, longest)
        if not len(self._pieces):
            raise DataError("the token stores hold no token; build them from text that has some")
        self._windows_in_epoch = -(-len(self._pieces) // WINDOW)
        self._windows: dict[int, _Window] = {}
        self._first_rows = [0]
        """Row index at which each window begins, as far as they are known."""

    def batch(self, index: int, num_rows: int) -> Batch:
        """Make the rows `[index * num_rows, (index + 1) * num_rows)` of the stream."""
        places = [self._locate(row) for row in range(index * num_rows, (index + 1) * num_rows)]
        placed, rows, pieces = [], [], []
        done = 0
        for number, group in groupby(places, key=lambda place: place[0]):
            window, within = self._window(number), [row for _, row in group]
            span = [window.members[window.first[r] : window.first[r + 1]] for r in within]
            drawn = window.drawn.take(np.concatenate(span))
            placed.append(
                place_many(
                    drawn, self._objective, seed=self._seed, epoch=window.epoch,
                    row_length=self._row_length,
                )
            )  # fmt: skip
            rows.append(np.repeat(np.arange(done, done + len(within)), [len(s) for s in span]))
            pieces.append(drawn.numbers)
            done += len(within)
        source, document, start, end, _ = self._pieces.look_up(np.concatenate(pieces))
        return build_rows(
            self._read(source, document, start, end), join(placed), np.concatenate(rows),
            self._objective, self._ids, row_length=self._row_length, documents=document,
            sources=source.astype(np.int32), languages=self._languages(source, document),
        )  # fmt: skip

    def rows_in_epoch(self, epoch: int) -> int:
        """Count the rows of one epoch; it depends a little on what was drawn."""
        last = (epoch + 1) * self._windows_in_epoch
        self._plan_until(last)
        return self._first_rows[last] - self._first_rows[epoch * self._windows_in_epoch]

    def epoch_at(self, row: int) -> float:
        """Tell how many passes over the data stand before a row."""
        number, within = self._locate(row)
        rows = self._first_rows[number + 1] - self._first_rows[number]
        epoch, window = divmod(number, self._windows_in_epoch)
        pieces = min(WINDOW, len(self._pieces) - window * WINDOW)
        return epoch + (window * WINDOW + pieces * within / rows) / len(self._pieces)

    def _locate(self, row: int) -> tuple[int, int]:
        while row >= self._first_rows[-1]:
            self._plan_until(len(self._first_rows))
        number = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        return number, row - self._first_rows[number]

    def _plan_until(self, windows: int) -> None:
        while len(self._first_rows) <= windows:
            number = len(self._first_rows) - 1
            self._first_rows.append(self._first_rows[-1] + len(self._window(number).first) - 1)

    def _window(self, number: int) -> _Window:
        if number not in self._windows:
            epoch, part = divmod(number, self._windows_in_epoch)
            inside = np.arange(part * WINDOW, min((part + 1) * WINDOW, len(self._pieces)))
            pieces = permute(inside, len(self._pieces), self._seed, "order", epoch)
            source, document, start, end, last = self._pieces.look_up(pieces)
            drawn = draw_many(
                end - start, last, pieces, self._objective, seed=self._seed, epoch=epoch,
                sentences=lambda chosen: self._pieces.sentences(
                    source[chosen], document[chosen], start[chosen], end[chosen]
                ),
            )  # fmt: skip
            rows = pack(drawn.example_lengths, self._row_length)
            window = _Window(
                epoch,
                np.array([k for row in rows for k in row], np.int64),
                np.cumsum([0, *map(len, rows)]),
                drawn,
            )
            while len(self._windows) >= KEPT_WINDOWS:
                del self._windows[min(self._windows, key=lambda n: (n > number, n))]
            self._windows[number] = window
        return self._windows[number]

    def _read(self, source: Int64, document: Int64, start: Int64, end: Int64) -> Int32:
        stores = self._stores
        return np.concatenate(
            [
                stores[s].document(d)[a:b]
                for s, d, a, b in zip(
                    source.tolist(), document.tolist(), start.tolist(), end.tolist(), strict=True
                )
            ]
        ).astype(np.int32)

    def _languages(self, source: Int64, document: Int64) -> UInt8:
        languages = np.empty(len(source), np.uint8)
        for number, store in enumerate(self._stores):
            mine = source == number
            languages[mine] = np.asarray(store.languages)[document[mine]]
        return languages
