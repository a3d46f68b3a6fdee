"""The endless stream of packed rows: a pure function of stores, objective, seed and row index.

An epoch puts all documents into a pseudo-random order and takes them window by window. Documents
longer than a row are cut into pieces, each as long as what is drawn for it allows, at the ends of
sentences where the store knows them: Part B is never truncated, and every token is in exactly one
piece. Kinds and span lengths are drawn and the examples packed from lengths alone. A batch then
reads the few documents that its rows name. So any rank makes any row alone, and resuming at a step
is asking for its rows.

Memory beside the stores: four bytes for each document, and the plans of a few windows.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import count, groupby
from typing import Protocol

import numpy as np

from blankfill.config.objective import ObjectiveConfig
from blankfill.errors import ConfigError, DataError
from blankfill.objective.batch import Batch, Bool, Int32, Int64, UInt8
from blankfill.objective.build import build_rows
from blankfill.objective.draws import sort_keys, uniform_draws
from blankfill.objective.fit import longest_fit, longest_piece
from blankfill.objective.many import Drawn, Placed, draw_many, join, place_many, ranks
from blankfill.objective.pack import pack
from blankfill.objective.special import SpecialIds
from blankfill.rng import permute

__all__ = ["DocumentStore", "RowSource"]

SHORTEST_ROW = 16
"""Rows below this hold no example worth learning from."""
SLACK = 8
"""A cut may move back by one part in this many of a row, to where a sentence ends."""
WINDOW_TOKENS = 1 << 24
"""About as many tokens are planned together; a window has a fixed number of documents."""
MIN_WINDOW, MAX_WINDOW = 256, 1 << 16
"""Fewest and most documents of a window."""
PART_SHIFT, SHORT_SHIFT = 32, 52
"""A piece's address is its document, and from these bits on its part and its shorter part."""
SHORTEST_SEQUENCE = 32
"""Shortest target length of `short_sequence_rate` (released `blocklm_utils.py: split_samples`)."""
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

    def read(self, documents: Int64, starts: Int64, ends: Int64) -> Int32:
        """Return the tokens `starts:ends` of documents, one behind another."""
        ...

    def sentence_ends(self, index: int, start: int, end: int) -> Int64:
        """Return the token ends of sentences in (start, end] of one document."""
        ...


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Stretches of documents, each the text of one example. All `[n]`."""

    numbers: Int64
    """Address of the piece's draws."""
    sources: Int64
    """Its store."""
    documents: Int64
    """Its document in the store."""
    starts: Int64
    """Its first token."""
    ends: Int64
    """Its end."""
    are_last: Bool
    """Whether the document ends with it."""

    def take(self, selection: Int64) -> _Pieces:
        """Return some of them, in the given order."""
        return _Pieces(
            self.numbers[selection], self.sources[selection], self.documents[selection],
            self.starts[selection], self.ends[selection], self.are_last[selection],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Window:
    """A stretch of one epoch: which pieces stand in which row, and what was drawn for them."""

    epoch: int
    pieces: _Pieces
    drawn: Drawn
    members: Int64
    """Pieces of all rows, row by row."""
    first: Int64
    """`[rows + 1]` offsets of the rows' members."""


class _Cutter:
    """Cuts documents into pieces whose examples fit a row.

    Args:
        stores: token stores.
        objective: what is cut out.
        row_length: positions of a row.
        seed: the run's seed.
    """

    def __init__(
        self,
        stores: Sequence[DocumentStore],
        objective: ObjectiveConfig,
        row_length: int,
        seed: int,
    ) -> None:
        self._stores, self._objective = stores, objective
        self._row_length, self._seed = row_length, seed
        lengths = [np.asarray(store.lengths, np.int32) for store in stores]
        self._lengths = np.concatenate([np.zeros(0, np.int32), *lengths])

    def pieces(self, documents: Int64, source: Int64, index: Int64, epoch: int) -> _Pieces:
        """Cut some documents.

        Each piece is as long as the example that is drawn for it allows, less what it takes to end
        where a sentence does; so the cuts of a document differ from epoch to epoch.

        Args:
            documents: `[n]` number of each among all documents.
            source: `[n]` its store.
            index: `[n]` its number in its store.
            epoch: 0-based pass over the data.
        """
        length = self._lengths[documents].astype(np.int64)
        found: list[_Pieces] = []
        alive = np.flatnonzero(length)
        start = np.zeros(len(documents), np.int64)
        for part in count():
            if not len(alive):
                break
            numbers = documents[alive] + (part << PART_SHIFT)
            left = length[alive] - start[alive]
            size = longest_fit(
                numbers, left, self._objective, seed=self._seed, epoch=epoch,
                row_length=self._row_length,
            )  # fmt: skip
            end = start[alive] + size
            slack = self._row_length // SLACK
            for i in np.flatnonzero(size < left).tolist():
                end[i] = self._cut(
                    int(source[alive[i]]), int(index[alive[i]]), int(end[i]),
                    min(slack, int(size[i])),
                )  # fmt: skip
            found.append(
                _Pieces(
                    numbers, source[alive], index[alive], start[alive], end, end == length[alive]
                )
            )
            start[alive] = end
            alive = alive[end < length[alive]]
        pieces = _Pieces(
            *(np.concatenate([getattr(part, f.name) for part in found]) for f in fields(_Pieces))
        )
        if self._objective.short_sequence_rate:
            pieces = self._shortened(pieces, epoch)
        # Pieces of one document stand apart, so that a row holds different texts.
        keys = sort_keys(pieces.numbers, np.int64(0), self._seed, "order", epoch)
        return pieces.take(np.argsort(keys, kind="stable"))

    def _shortened(self, pieces: _Pieces, epoch: int) -> _Pieces:
        """Cut some pieces into shorter ones of random length, at sentence ends where possible."""
        size = pieces.ends - pieces.starts
        draws = [
            uniform_draws(pieces.numbers, np.int64(i), self._seed, "short sequence", epoch)
            for i in (0, 1)
        ]
        chosen = (draws[0] < self._objective.short_sequence_rate) & (size > SHORTEST_SEQUENCE)
        target = SHORTEST_SEQUENCE + (draws[1] * (size - SHORTEST_SEQUENCE)).astype(np.int64)
        parts = np.where(chosen, -(-size // np.maximum(1, target)), 1)
        owner = np.repeat(np.arange(len(size)), parts)
        number = ranks(np.cumsum(np.concatenate([[0], parts])))
        of, whole = parts[owner], pieces.take(owner)
        low = whole.starts + size[owner] * number // of
        high = whole.starts + size[owner] * (number + 1) // of
        for bounds, inner in ((low, number > 0), (high, number < of - 1)):
            for i in np.flatnonzero(inner).tolist():
                slack = int(size[owner[i]] // of[i]) // 2
                bounds[i] = self._cut(
                    int(whole.sources[i]), int(whole.documents[i]), int(bounds[i]), slack
                )
        return _Pieces(
            whole.numbers + (number << SHORT_SHIFT), whole.sources, whole.documents, low, high,
            whole.are_last & (number == of - 1),
        )  # fmt: skip

    def _cut(self, source: int, document: int, place: int, slack: int) -> int:
        """Move a cut back by less than `slack` to the end of a sentence, where one ends there."""
        store = self._stores[source]
        if not store.has_sentences or slack < 2:
            return place
        ends = store.sentence_ends(document, place - slack + 1, place)
        return int(ends[-1]) if len(ends) else place

    def sentences(self, pieces: _Pieces) -> tuple[Int64, Int64]:
        """Say where the sentences of pieces end; see `many.Sentences`."""
        found: list[Int64] = []
        for s, d, a, b in zip(
            pieces.sources.tolist(), pieces.documents.tolist(), pieces.starts.tolist(),
            pieces.ends.tolist(), strict=True,
        ):  # fmt: skip
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
        if longest_piece(row_length, objective) < 1:
            raise ConfigError(
                f"row_length={row_length} cannot hold an example of one token under this "
                "objective; take longer rows"
            )
        lengths = [np.asarray(store.lengths) for store in stores]
        self._store_first = np.cumsum([0, *map(len, lengths)])
        tokens = sum(int(length.sum()) for length in lengths)
        if not tokens:
            raise DataError("the token stores hold no token; build them from text that has some")
        self._cutter = _Cutter(stores, objective, row_length, seed)
        self._num_documents = int(self._store_first[-1])
        per_window = WINDOW_TOKENS * self._num_documents // tokens
        self._window_documents = max(MIN_WINDOW, min(MAX_WINDOW, per_window))
        self._windows_in_epoch = -(-self._num_documents // self._window_documents)
        self._lock = threading.RLock()
        """Held while planning: a loader's thread and the trainer's both ask."""
        self._windows: dict[int, _Window] = {}
        self._sizes: dict[int, int] = {}
        """Rows of each window that was planned."""
        self._base, self._first_rows = 0, [0]
        """A window, and the row at which it and each one behind it begins, as far as known."""

    def batch(self, index: int, num_rows: int) -> Batch:
        """Make the rows `[index * num_rows, (index + 1) * num_rows)` of the stream."""
        return self.rows(index * num_rows, num_rows)

    def rows(self, first: int, num_rows: int) -> Batch:
        """Make the rows `[first, first + num_rows)` of the stream."""
        with self._lock:
            places = [self._locate(row) for row in range(first, first + num_rows)]
            parts = [
                (self._window(number), [row for _, row in group])
                for number, group in groupby(places, key=lambda place: place[0])
            ]
        placed: list[Placed] = []
        rows: list[Int64] = []
        texts: list[Int64] = []
        done = 0
        for window, within in parts:
            span = [window.members[window.first[r] : window.first[r + 1]] for r in within]
            chosen = np.concatenate(span)
            placed.append(
                place_many(
                    window.drawn.take(chosen), self._objective, seed=self._seed,
                    epoch=window.epoch, row_length=self._row_length,
                )
            )  # fmt: skip
            rows.append(np.repeat(np.arange(done, done + len(within)), [len(s) for s in span]))
            found = window.pieces.take(chosen)
            texts.append(np.stack([found.sources, found.documents, found.starts, found.ends]))
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
        first = epoch * self._windows_in_epoch
        return sum(self._size(first + part) for part in range(self._windows_in_epoch))

    def epoch_at(self, row: int) -> float:
        """Tell how many passes over the data stand before a row."""
        with self._lock:
            number, within = self._locate(row)
            rows = self._size(number)
        epoch, window = divmod(number, self._windows_in_epoch)
        size = self._window_documents
        here = min(size, self._num_documents - window * size)
        return epoch + (window * size + here * within / rows) / self._num_documents

    def epochs(self, row: int) -> dict[str, float]:
        """Name the passes over the data as metrics do."""
        return {"epoch": self.epoch_at(row)}

    def anchor(self, row: int) -> tuple[int, int]:
        """Tell where the plan of a row begins: its window, and that window's first row.

        `start_at` takes it, so that a late row is found without planning all that come before it.
        """
        with self._lock:
            number, within = self._locate(row)
            return number, row - within

    def start_at(self, window: int, first_row: int) -> None:
        """Take over an anchor of the same stream; rows before it can still be asked for."""
        with self._lock:
            self._base, self._first_rows = window, [first_row]

    def _locate(self, row: int) -> tuple[int, int]:
        if row < self._first_rows[0]:
            self._base, self._first_rows = 0, [0]
        while row >= self._first_rows[-1]:
            number = self._base + len(self._first_rows) - 1
            self._first_rows.append(self._first_rows[-1] + self._size(number))
        place = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        return self._base + place, row - self._first_rows[place]

    def _size(self, number: int) -> int:
        if number not in self._sizes:
            self._sizes[number] = len(self._window(number).first) - 1
        return self._sizes[number]

    def _window(self, number: int) -> _Window:
        with self._lock:
            if number not in self._windows:
                while len(self._windows) >= KEPT_WINDOWS:
                    del self._windows[min(self._windows, key=lambda n: (n > number, n))]
                self._windows[number] = self._plan(number)
            return self._windows[number]

    def _plan(self, number: int) -> _Window:
        epoch, part = divmod(number, self._windows_in_epoch)
        first = part * self._window_documents
        inside = np.arange(first, min(first + self._window_documents, self._num_documents))
        documents = permute(inside, self._num_documents, self._seed, "order", epoch)
        source = np.searchsorted(self._store_first, documents, side="right") - 1
        index = documents - self._store_first[source]
        pieces = self._cutter.pieces(documents, source, index, epoch)
        drawn = draw_many(
            pieces.ends - pieces.starts, pieces.are_last, pieces.numbers, self._objective,
            seed=self._seed, epoch=epoch,
            sentences=lambda chosen: self._cutter.sentences(pieces.take(chosen)),
        )  # fmt: skip
        rows = pack(drawn.example_lengths, self._row_length)
        return _Window(
            epoch, pieces, drawn, np.array([k for row in rows for k in row], np.int64),
            np.cumsum([0, *map(len, rows)]),
        )  # fmt: skip

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
