"""The endless stream of packed rows: a pure function of stores, objective, seed and row index.

Documents longer than a row are cut into pieces, so that Part B is never truncated and every token
is in exactly one piece; at sentence ends where the store knows them. An epoch puts all pieces into
a pseudo-random order and takes them window by window: of each window it draws kinds and span
lengths and packs the examples, which needs lengths only. A batch then reads the few documents that
its rows name. So any rank makes any row alone, and resuming at a step is asking for its rows.

Memory beside the stores: eight bytes for each document, and a few windows of 65,536 pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import numpy as np

from blankfill.config.objective import ObjectiveConfig
from blankfill.errors import ConfigError, DataError
from blankfill.objective.batch import Batch, Bool, Int32, Int64, UInt8
from blankfill.objective.build import build_rows
from blankfill.objective.draws import uniform_draws
from blankfill.objective.many import Drawn, Placed, draw_many, join, place_many, ranks
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
SHORTEST_SEQUENCE = 32
"""Shortest target length of `short_sequence_rate` (released `blocklm_utils.py: split_samples`)."""
KEPT_WINDOWS = 4
"""Windows whose plans are kept: a batch, and a loader that runs ahead, reach into the next one."""


Where = tuple[Int64, Int64, Int64, Int64, Bool]
"""Of each piece: its store, document, first token, end, and whether the document ends there."""


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

    def read(self, documents: Int64, starts: Int64, ends: Int64) -> Int32:
        """Return the tokens `starts:ends` of documents, one behind another."""
        ...

    def sentence_ends(self, index: int, start: int, end: int) -> Int64:
        """Return the token ends of sentences in (start, end] of one document."""
        ...


@dataclass(frozen=True, slots=True)
class _Window:
    """A stretch of one epoch: which pieces stand in which row, and what was drawn for them."""

    epoch: int
    source: Int64
    document: Int64
    start: Int64
    end: Int64
    """`[n]` where the text of each example is: store, document, first token and end."""
    members: Int64
    """Examples of all rows, row by row, as numbers into the window's n."""
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

    def look_up(self, pieces: Int64) -> Where:
        """Say where the pieces of these numbers are: `[n]` each."""
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
                    bounds[piece] = self.cut(
                        int(source[piece]), int(document[piece]), int(bounds[piece]), self._slack
                    )
        return source, document, start, end, is_last

    def cut(self, source: int, document: int, place: int, slack: int) -> int:
        """Move a cut back by less than `slack` to the end of a sentence, where one ends there."""
        store = self._stores[source]
        if not store.has_sentences or slack < 2:
            return place
        ends = store.sentence_ends(document, place - slack + 1, place)
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
        placed: list[Placed] = []
        rows: list[Int64] = []
        texts: list[Int64] = []
        done = 0
        for number, group in groupby(places, key=lambda place: place[0]):
            window, within = self._window(number), [row for _, row in group]
            span = [window.members[window.first[r] : window.first[r + 1]] for r in within]
            chosen = np.concatenate(span)
            drawn = window.drawn.take(chosen)
            placed.append(
                place_many(
                    drawn, self._objective, seed=self._seed, epoch=window.epoch,
                    row_length=self._row_length,
                )
            )  # fmt: skip
            rows.append(np.repeat(np.arange(done, done + len(within)), [len(s) for s in span]))
            texts.append(
                np.stack([window.source, window.document, window.start, window.end])[:, chosen]
            )
            done += len(within)
        source, document, start, end = np.concatenate(texts, axis=1)
        return build_rows(
            self._read(source, document, start, end), join(placed), np.concatenate(rows),
            self._objective, self._ids, row_length=self._row_length, documents=document,
            sources=source.astype(np.int32), languages=self._languages(source, document),
        )  # fmt: skip

    def windows(self, epoch: int) -> Iterator[tuple[Drawn, Int64]]:
        """Go over the windows of one epoch.

        Yields:
            What was drawn for its n examples, and the `[rows]` positions that each row fills.
        """
        for number in range(epoch * self._windows_in_epoch, (epoch + 1) * self._windows_in_epoch):
            window = self._window(number)
            sizes = window.drawn.example_lengths[window.members]
            yield window.drawn, np.add.reduceat(sizes, window.first[:-1])

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
            numbers, where = pieces, self._pieces.look_up(pieces)
            if self._objective.short_sequence_rate:
                numbers, where = self._shortened(numbers, where, epoch)
            source, document, start, end, last = where
            drawn = draw_many(
                end - start, last, numbers, self._objective, seed=self._seed, epoch=epoch,
                sentences=lambda chosen: self._pieces.sentences(
                    source[chosen], document[chosen], start[chosen], end[chosen]
                ),
            )  # fmt: skip
            rows = pack(drawn.example_lengths, self._row_length)
            window = _Window(
                epoch,
                source,
                document,
                start,
                end,
                np.array([k for row in rows for k in row], np.int64),
                np.cumsum([0, *map(len, rows)]),
                drawn,
            )
            while len(self._windows) >= KEPT_WINDOWS:
                del self._windows[min(self._windows, key=lambda n: (n > number, n))]
            self._windows[number] = window
        return self._windows[number]

    def _shortened(self, pieces: Int64, where: Where, epoch: int) -> tuple[Int64, Where]:
        """Cut some pieces into shorter ones of random length, at sentence ends where possible."""
        rate, seed = self._objective.short_sequence_rate, self._seed
        source, document, start, end, last = where
        chosen = uniform_draws(pieces, np.int64(0), seed, "short sequence", epoch) < rate
        chosen &= end - start > SHORTEST_SEQUENCE
        room = end - start - SHORTEST_SEQUENCE
        draw = uniform_draws(pieces, np.int64(1), seed, "short sequence", epoch)
        target = SHORTEST_SEQUENCE + (draw * room).astype(np.int64)
        parts = np.where(chosen, -(-(end - start) // np.maximum(1, target)), 1)
        owner = np.repeat(np.arange(len(pieces)), parts)
        number = ranks(np.cumsum(np.concatenate([[0], parts])))
        length, of, begin = (end - start)[owner], parts[owner], start[owner]
        low, high = begin + length * number // of, begin + length * (number + 1) // of
        for bounds, inner in ((low, number > 0), (high, number < of - 1)):
            for i in np.flatnonzero(inner).tolist():
                slack = int(length[i] // of[i]) // 2
                bounds[i] = self._pieces.cut(
                    int(source[owner[i]]), int(document[owner[i]]), int(bounds[i]), slack
                )
        # The draws of a part have an address of their own, apart from those of all pieces.
        address = pieces[owner] + (number << 40)
        ends_here = last[owner] & (number == of - 1)
        return address, (source[owner], document[owner], low, high, ends_here)

    def _read(self, source: Int64, document: Int64, start: Int64, end: Int64) -> Int32:
        if len(self._stores) == 1:
            return self._stores[0].read(document, start, end)
        sizes = end - start
        tokens = np.empty(int(sizes.sum()), np.int32)
        of_token = np.repeat(source, sizes)
        for number, store in enumerate(self._stores):
            mine = source == number
            tokens[of_token == number] = store.read(document[mine], start[mine], end[mine])
        return tokens

    def _languages(self, source: Int64, document: Int64) -> UInt8:
        languages = np.empty(len(source), np.uint8)
        for number, store in enumerate(self._stores):
            mine = source == number
            languages[mine] = np.asarray(store.languages)[document[mine]]
        return languages
