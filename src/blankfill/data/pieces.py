"""From documents to the texts of examples: long ones are cut so that nothing is ever truncated.

A document longer than a row is cut into pieces, each as long as what is drawn for it allows, at the
ends of sentences where the store knows them: every token is in exactly one piece. A pair (a text
and its answer) is one example and cannot be cut; where it is longer than a row it is shortened by
GLM-130B's rule, the only tokens that an epoch passes over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import count
from typing import Protocol

import numpy as np

from blankfill.config.objective import ObjectiveConfig
from blankfill.data.parts import split_by
from blankfill.errors import ConfigError
from blankfill.objective.batch import Bool, Int32, Int64, UInt8
from blankfill.objective.drawn import ranks
from blankfill.objective.draws import sort_keys, uniform_draws
from blankfill.objective.fit import fit_pairs, longest_fit

__all__ = ["Cutter", "DocumentStore", "Objectives", "Pieces"]

SLACK = 8
"""A cut may move back by one part in this many of a row, to where a sentence ends."""
PART_SHIFT, SHORT_SHIFT = 32, 52
"""A piece's address holds its document in the low bits; its part and shorter part start here. Past
2^32 documents a few pieces share an address, and with it what is drawn: kinds, not texts."""
SHORTEST_SEQUENCE = 32
"""Shortest target length of `short_sequence_rate` (released `blocklm_utils.py: split_samples`)."""


class DocumentStore(Protocol):
    """What the stream needs of a token store; documents are asked for by their numbers."""

    def __len__(self) -> int: ...

    @property
    def num_tokens(self) -> int:
        """Tokens of all documents."""
        ...

    @property
    def shard_documents(self) -> Int64:
        """`[shards]` documents of each shard, in their order."""
        ...

    @property
    def shuffle_shards(self) -> int:
        """Shards whose documents are put into one order together."""
        ...

    @property
    def has_pairs(self) -> bool:
        """Whether some documents are a text and its answer."""
        ...

    @property
    def has_sentences(self) -> bool:
        """Whether it knows where sentences end."""
        ...

    def expect(self, shards: Int64, beside: Int64) -> None:
        """Begin to fetch shards that are going to be read, where they lie elsewhere.

        Args:
            shards: their numbers.
            beside: of those that are read meanwhile.
        """
        ...

    def lengths_of(self, documents: Int64) -> Int64:
        """Give `[n]` tokens of some documents."""
        ...

    def languages_of(self, documents: Int64) -> UInt8:
        """Give `[n]` language codes of some documents."""
        ...

    def prompts_of(self, documents: Int64) -> Int32:
        """Give `[n]` tokens of some documents before their answers, -1 where they are plain."""
        ...

    def read(self, documents: Int64, starts: Int64, ends: Int64) -> Int32:
        """Return the tokens `starts:ends` of documents, one after another."""
        ...

    def sentence_ends(self, index: int, start: int, end: int) -> Int64:
        """Return the token ends of sentences in (start, end] of one document."""
        ...


@dataclass(frozen=True, slots=True)
class Pieces:
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
    prompts: Int64
    """Of a pair, its tokens before the answer; -1 elsewhere."""
    gaps: Int64
    """Of a shortened pair, the document's tokens that are left out before the answer; else 0."""

    def take(self, selection: Int64) -> Pieces:
        """Return some of them, in the given order."""
        return Pieces(
            self.numbers[selection], self.sources[selection], self.documents[selection],
            self.starts[selection], self.ends[selection], self.are_last[selection],
            self.prompts[selection], self.gaps[selection],
        )  # fmt: skip

    @classmethod
    def join(cls, parts: Sequence[Pieces]) -> Pieces:
        """Put several one after another."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))


class Objectives:
    """What is cut out of each store's documents: one objective for all, or one by source.

    Args:
        objective: the run's.
        num_stores: token stores, in the order of `objective.by_source`.

    Raises:
        ConfigError: `by_source` names another number of stores.
    """

    def __init__(self, objective: ObjectiveConfig, num_stores: int) -> None:
        if objective.by_source and len(objective.by_source) != num_stores:
            raise ConfigError(
                f"objective.by_source names {len(objective.by_source)} mixtures for {num_stores} "
                'token stores; give one for each, "" for that of the run'
            )
        self.of_store = [objective.of_source(source) for source in range(num_stores)]
        """The objective of each store."""
        self.distinct = list(dict.fromkeys(self.of_store))
        """Every objective that some store has."""
        self._number = np.array([self.distinct.index(cfg) for cfg in self.of_store])

    def split(self, sources: Int64) -> Iterator[tuple[ObjectiveConfig, Int64]]:
        """Go over the objectives of some documents.

        Args:
            sources: `[n]` store of each document.

        Yields:
            An objective, and the places in `sources` that it is for.
        """
        if len(self.distinct) == 1:
            yield self.distinct[0], np.arange(len(sources))
            return
        number = self._number[sources]
        for k, cfg in enumerate(self.distinct):
            if len(members := np.flatnonzero(number == k)):
                yield cfg, members


class Cutter:
    """Cuts documents into pieces whose examples fit a row.

    Args:
        stores: token stores.
        objectives: what is cut out.
        row_length: positions of a row.
        seed: the run's seed.
    """

    def __init__(
        self,
        stores: Sequence[DocumentStore],
        objectives: Objectives,
        row_length: int,
        seed: int,
    ) -> None:
        self._stores, self._objectives = stores, objectives
        self._row_length, self._seed = row_length, seed
        self._has_pairs = any(store.has_pairs for store in stores)

    def pieces(self, documents: Int64, source: Int64, index: Int64, epoch: int) -> Pieces:
        """Cut some documents.

        Each piece is as long as the example that is drawn for it allows, less what it takes to end
        where a sentence does; so the cuts of a document differ from epoch to epoch.

        Args:
            documents: `[n]` number of each among all documents.
            source: `[n]` its store.
            index: `[n]` its number in its store.
            epoch: 0-based pass over the data.
        """
        length, prompts = self._lengths(source, index)
        found: list[Pieces] = []
        alive = np.flatnonzero(length)
        if self._has_pairs:
            pairs = np.flatnonzero((prompts >= 0) & (length > 0))
            kept, answers = fit_pairs(prompts[pairs], (length - prompts)[pairs], self._row_length)
            found.append(
                Pieces(
                    documents[pairs], source[pairs], index[pairs], np.zeros_like(pairs),
                    kept + answers, np.ones(len(pairs), bool), kept, prompts[pairs] - kept,
                )
            )  # fmt: skip
            alive = np.flatnonzero((prompts < 0) & (length > 0))
        start = np.zeros(len(documents), np.int64)
        for part in count():
            if not len(alive):
                break
            numbers = documents[alive] + (part << PART_SHIFT)
            left = length[alive] - start[alive]
            size = np.empty(len(alive), np.int64)
            for cfg, members in self._objectives.split(source[alive]):
                size[members] = longest_fit(
                    numbers[members], left[members], cfg, seed=self._seed, epoch=epoch,
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
                Pieces(
                    numbers, source[alive], index[alive], start[alive], end, end == length[alive],
                    np.full(len(alive), -1), np.zeros(len(alive), np.int64),
                )
            )  # fmt: skip
            start[alive] = end
            alive = alive[end < length[alive]]
        pieces = Pieces.join(found)
        if any(cfg.short_sequence_rate for cfg in self._objectives.distinct):
            pieces = self._shortened(pieces, epoch)
        # Pieces of one document stand apart, so that a row holds different texts.
        keys = sort_keys(pieces.numbers, np.int64(0), self._seed, "order", epoch)
        return pieces.take(np.argsort(keys, kind="stable"))

    def _lengths(self, source: Int64, index: Int64) -> tuple[Int64, Int64]:
        """Give the tokens of some documents, and how many of them stand before an answer."""
        length, prompts = np.empty(len(index), np.int64), np.full(len(index), -1)
        for s, members in split_by(source):
            length[members] = self._stores[s].lengths_of(index[members])
            if self._stores[s].has_pairs:
                prompts[members] = self._stores[s].prompts_of(index[members])
        return length, prompts

    def _shortened(self, pieces: Pieces, epoch: int) -> Pieces:
        """Cut some pieces into shorter ones of random length, at sentence ends where possible."""
        size = pieces.ends - pieces.starts
        draws = [
            uniform_draws(pieces.numbers, np.int64(i), self._seed, "short sequence", epoch)
            for i in (0, 1)
        ]
        rate = np.zeros(len(size))
        for cfg, members in self._objectives.split(pieces.sources):
            rate[members] = cfg.short_sequence_rate
        chosen = (draws[0] < rate) & (size > SHORTEST_SEQUENCE) & (pieces.prompts < 0)
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
        return Pieces(
            whole.numbers + (number << SHORT_SHIFT), whole.sources, whole.documents, low, high,
            whole.are_last & (number == of - 1), whole.prompts, whole.gaps,
        )  # fmt: skip

    def _cut(self, source: int, document: int, place: int, slack: int) -> int:
        """Move a cut back by less than `slack` to the end of a sentence, where one ends there."""
        store = self._stores[source]
        if not store.has_sentences or slack < 2:
            return place
        ends = store.sentence_ends(document, place - slack + 1, place)
        return int(ends[-1]) if len(ends) else place

    def sentences(self, pieces: Pieces) -> tuple[Int64, Int64]:
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
