"""The endless stream of packed rows: a pure function of stores, objective, seed and row index.

An epoch puts all documents into a pseudo-random order (`order.py`) and takes them window by
window. Documents longer than a row are cut into pieces (`pieces.py`), so that Part B is never
truncated. Kinds and span lengths are drawn and the examples packed from lengths alone. A batch then
reads the few documents that its rows name. So any rank makes any row alone, and resuming at a step
is asking for its rows.

Memory beside the stores: the plans of a few windows, however many documents there are.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from blankfill.config.objective import ObjectiveConfig
from blankfill.data.order import VisitOrder
from blankfill.data.parts import joined_parts, split_by
from blankfill.data.pieces import Cutter, DocumentStore, Objectives, Pieces
from blankfill.errors import ConfigError, DataError
from blankfill.objective.batch import Batch, Int32, Int64, UInt8
from blankfill.objective.build import build_rows
from blankfill.objective.drawn import Drawn, Placed, join, join_drawn, offsets, ranks
from blankfill.objective.fit import longest_piece
from blankfill.objective.frame import frame_room
from blankfill.objective.many import draw_many, place_many
from blankfill.objective.pack import pack
from blankfill.objective.special import SpecialIds

__all__ = ["DocumentStore", "RowSource"]

SHORTEST_ROW = 16
"""Rows below this hold no example worth learning from."""
WINDOW_TOKENS = 1 << 24
"""About as many tokens are planned together; a window has a fixed number of documents."""
MIN_WINDOW, MAX_WINDOW = 256, 1 << 16
"""Fewest and most documents of a window."""
KEPT_WINDOWS = 4
"""Windows whose plans are kept: a batch, and a loader that runs ahead, reach into the next one."""


@dataclass(frozen=True, slots=True)
class _Window:
    """A stretch of one epoch: which pieces stand in which row, and what was drawn for them."""

    epoch: int
    pieces: Pieces
    drawn: Drawn
    members: Int64
    """Pieces of all rows, row by row."""
    first: Int64
    """`[rows + 1]` offsets of the rows' members."""


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
        self._objectives = Objectives(objective, len(stores))
        sentinels = 1 + min(len(ids.mask_sentinels), len(ids.sop_sentinels))
        if objective.sentinels > sentinels:
            raise ConfigError(
                f"objective.sentinels={objective.sentinels} spans of their own names need a "
                f"tokenizer with {objective.sentinels - 1} sentinels, this one has {sentinels - 1};"
                " train one with --num-sentinels, or ask for fewer"
            )
        room = row_length - frame_room(ids)
        if min(longest_piece(room, cfg) for cfg in self._objectives.distinct) < 1:
            raise ConfigError(
                f"row_length={row_length} cannot hold an example of one token under this "
                "objective; take longer rows"
            )
        self._store_first = np.cumsum([0, *map(len, stores)])
        self._order = VisitOrder(stores, seed)
        tokens = sum(store.num_tokens for store in stores)
        if not tokens:
            raise DataError("the token stores hold no token; build them from text that has some")
        self._cutter = Cutter(stores, self._objectives, room, seed)
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
        """A window, and the row at which it and each one after it begins, as far as known."""

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
        texts: list[Pieces] = []
        done = 0
        for window, within in parts:
            span = [window.members[window.first[r] : window.first[r + 1]] for r in within]
            chosen = np.concatenate(span)
            placed.append(self._place(window, chosen))
            rows.append(np.repeat(np.arange(done, done + len(within)), [len(s) for s in span]))
            texts.append(window.pieces.take(chosen))
            done += len(within)
        pieces = texts[0] if len(texts) == 1 else Pieces.join(texts)
        return build_rows(
            self._read(pieces), join(placed), np.concatenate(rows), self._objective, self._ids,
            row_length=self._row_length, documents=pieces.documents,
            sources=pieces.sources.astype(np.int32),
            languages=self._languages(pieces.sources, pieces.documents),
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

    def num_rows(self, epoch: int, *, at_most: int | None = None) -> int:
        """Count the rows of one epoch; it depends a little on what was drawn.

        Args:
            epoch: 0-based pass over the data.
            at_most: stop planning where as many were found.
        """
        found = 0
        for number in range(epoch * self._windows_in_epoch, (epoch + 1) * self._windows_in_epoch):
            found += self._size(number)
            if at_most is not None and found >= at_most:
                return at_most
        return found

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

    def anchors(self, row: int) -> tuple[tuple[int, int], ...]:
        """Tell where the plan of a row begins: its window, and that window's first row.

        `start_at` takes it, so that a late row is found without planning all that come before it.
        """
        with self._lock:
            number, within = self._locate(row)
            return ((number, row - within),)

    def start_at(self, anchors: Sequence[tuple[int, int]]) -> None:
        """Take over the anchor of the same stream; rows before it can still be asked for."""
        ((window, first_row),) = anchors
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
        self._expect(max(0, first - self._window_documents), epoch)
        documents = self._order.documents(inside, epoch)
        source = np.searchsorted(self._store_first, documents, side="right") - 1
        index = documents - self._store_first[source]
        pieces = self._cutter.pieces(documents, source, index, epoch)
        drawn = self._draw(pieces, epoch)
        rows = pack(drawn.example_lengths, self._row_length)
        return _Window(
            epoch, pieces, drawn, np.array([k for row in rows for k in row], np.int64),
            np.cumsum([0, *map(len, rows)]),
        )  # fmt: skip

    def _expect(self, place: int, epoch: int) -> None:
        """Let stores that lie elsewhere fetch what comes after the shards that are read.

        Args:
            place: of the epoch, at which the window before the one at hand begins: its rows may
                still be asked for.
            epoch: 0-based pass over the data.
        """
        groups = self._order.groups(place, epoch)
        for store, (now, later) in zip(self._stores, groups, strict=True):
            if len(later):
                store.expect(later, now)

    def _draw(self, pieces: Pieces, epoch: int) -> Drawn:
        """Draw what is cut out of pieces, each under its store's objective."""
        parts: list[Drawn] = []
        places: list[Int64] = []
        for cfg, members in self._objectives.split(pieces.sources):
            some = pieces.take(members)
            parts.append(
                draw_many(
                    some.ends - some.starts, some.are_last, some.numbers, cfg, seed=self._seed,
                    epoch=epoch, prompts=some.prompts if (some.prompts >= 0).any() else None,
                    sentences=lambda chosen, some=some: self._cutter.sentences(some.take(chosen)),
                    framed=self._ids.opening is not None,
                )
            )  # fmt: skip
            places.append(members)
        drawn = join_drawn(parts)
        return drawn if len(parts) == 1 else drawn.take(np.argsort(np.concatenate(places)))

    def _place(self, window: _Window, chosen: Int64) -> Placed:
        """Place the spans of some pieces of a window."""
        parts: list[Placed] = []
        places: list[Int64] = []
        for cfg, members in self._objectives.split(window.pieces.sources[chosen]):
            drawn = window.drawn.take(chosen[members])
            parts.append(
                place_many(
                    drawn, cfg, seed=self._seed, epoch=window.epoch, row_length=self._row_length
                )
            )
            places.append(members)
        placed = join(parts)
        return placed if len(parts) == 1 else placed.take(np.argsort(np.concatenate(places)))

    def _read(self, pieces: Pieces) -> Int32:
        """Read the tokens of pieces, one after another; a shortened pair in two parts."""
        source, document = pieces.sources, pieces.documents
        start, end = pieces.starts, pieces.ends
        if pieces.gaps.any():
            parts = 1 + (pieces.gaps > 0)
            is_answer = ranks(offsets(parts)) > 0
            answer = np.repeat(start + pieces.prompts, parts)
            gap = np.repeat(pieces.gaps, parts)
            source, document = np.repeat(source, parts), np.repeat(document, parts)
            start = np.where(is_answer, answer + gap, np.repeat(start, parts))
            end = np.repeat(end, parts)
            end = np.where(is_answer, end + gap, np.where(gap > 0, answer, end))
        parts = [
            (members, self._stores[s].read(document[members], start[members], end[members]))
            for s, members in split_by(source)
        ]
        return joined_parts(parts, end - start)

    def _languages(self, source: Int64, document: Int64) -> UInt8:
        languages = np.empty(len(source), np.uint8)
        for s, members in split_by(source):
            languages[members] = self._stores[s].languages_of(document[members])
        return languages
