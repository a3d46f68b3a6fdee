"""The order in which an epoch visits documents: computed from a place in it, never stored.

Documents of a store of few shards are permuted as a whole (`rng.permute`, a keyed permutation). A
store of many shards is read in groups: each epoch puts the shards into a pseudo-random order, takes
`shuffle_shards` of them at a time, and permutes the documents of those. So a machine that reads the
store from elsewhere needs the shards of one group at a time, of two where one follows another.

Several stores, one of which is read in groups, alternate at even distances, each in its own order.

Memory: a few numbers for each shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np

from blankfill.data.parts import split_by
from blankfill.objective.batch import Bool, Int64
from blankfill.rng import permute

__all__ = ["VisitOrder"]

KEPT_EPOCHS = 2
"""Epochs whose order of shards is kept: a batch may reach into the next one."""


class Sharded(Protocol):
    """What the order is made of."""

    def __len__(self) -> int: ...

    @property
    def shard_documents(self) -> Int64:
        """`[shards]` documents of each shard."""
        ...

    @property
    def shuffle_shards(self) -> int:
        """Shards whose documents are permuted together."""
        ...


class VisitOrder:
    """Which document stands at which place of an epoch.

    Args:
        stores: token stores; their documents are numbered one store after another.
        seed: the run's seed.
    """

    def __init__(self, stores: Sequence[Sharded], seed: int) -> None:
        self._seed = seed
        self._sizes = [len(store) for store in stores]
        self._groups = [
            _Groups(store.shard_documents, store.shuffle_shards, seed, s)
            for s, store in enumerate(stores)
        ]
        self.is_whole = all(groups.count <= 1 for groups in self._groups)
        """Whether all documents are permuted as one."""

    def documents(self, places: Int64, epoch: int) -> Int64:
        """Give the documents at some places of an epoch.

        Args:
            places: `[n]` in `[0, documents of all stores)`.
            epoch: 0-based pass over the data.

        Returns:
            `[n]` numbers among the documents of all stores; a bijection over the whole epoch.
        """
        if self.is_whole:
            return permute(places, sum(self._sizes), self._seed, "order", epoch)
        found = np.empty(len(places), np.int64)
        left, rest, first = np.arange(len(places)), places, 0
        total = sum(self._sizes)
        for size, groups in zip(self._sizes, self._groups, strict=True):
            is_mine, mine, others = _share(rest, size, total)
            found[left[is_mine]] = first + groups.documents(mine, epoch)
            left, rest = left[~is_mine], others
            first, total = first + size, total - size
        return found

    def groups(self, place: int, epoch: int) -> list[tuple[Int64, Int64]]:
        """Tell which shards of each store are read at a place of an epoch, and which come next.

        Args:
            place: in `[0, documents of all stores)`.
            epoch: 0-based pass over the data.

        Returns:
            The numbers of both in each store; none of a store that is read as a whole.
        """
        found: list[tuple[Int64, Int64]] = []
        total = sum(self._sizes)
        for size, groups in zip(self._sizes, self._groups, strict=True):
            before = place * size // total if total else 0
            found.append(groups.around(before, epoch))
            place, total = place - before, total - size
        return found


class _Groups:
    """The order of one store.

    Args:
        documents: `[shards]` documents of each shard.
        together: shards of a group.
        seed: the run's seed.
        number: of the store among those that are read together.
    """

    def __init__(self, documents: Int64, together: int, seed: int, number: int) -> None:
        self._documents, self._address = documents, (seed, number)
        self.count = -(-len(documents) // together)
        self._first = np.cumsum([0, *documents.tolist()])
        self._shards = lru_cache(KEPT_EPOCHS)(self._arrange)

    def documents(self, places: Int64, epoch: int) -> Int64:
        """Give the documents of this store at some of its places."""
        shards, starts, groups = self._shards(epoch)
        seed, number = self._address
        found = np.empty(len(places), np.int64)
        for g, members in split_by(np.searchsorted(starts[groups], places, side="right") - 1):
            first, end = starts[groups[g]], starts[groups[g + 1]]
            inside = permute(
                places[members] - first, int(end - first), seed, "order", number, epoch, g
            )
            # Where the place would be if the shards of the group stood one after another.
            place = first + inside
            slot = np.searchsorted(starts, place, side="right") - 1
            found[members] = self._first[shards[slot]] + place - starts[slot]
        return found

    def around(self, place: int, epoch: int) -> tuple[Int64, Int64]:
        """Give the shards of the group that a place of this store is in, and of the one after it:
        after the last one that of the next epoch begins."""
        if self.count <= 1:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        shards, starts, groups = self._shards(epoch)
        g = int(np.searchsorted(starts[groups[1:-1]], place, side="right"))
        now = shards[groups[g] : groups[g + 1]]
        if g + 1 < self.count:
            return now, shards[groups[g + 1] : groups[g + 2]]
        later = self._shards(epoch + 1)
        return now, later.shards[: later.groups[1]]

    def _arrange(self, epoch: int) -> _Arranged:
        seed, number = self._address
        count = len(self._documents)
        shards = permute(np.arange(count), count, seed, "shards", number, epoch)
        starts = np.cumsum([0, *self._documents[shards].tolist()])
        groups = np.arange(self.count + 1) * count // self.count
        return _Arranged(shards, starts, groups)


class _Arranged(NamedTuple):
    """The shards of an epoch, in their order."""

    shards: Int64
    """`[shards]` which shard stands in each slot."""
    starts: Int64
    """`[shards + 1]` place of each slot's first document."""
    groups: Int64
    """`[groups + 1]` first slot of each group."""


def _share(places: Int64, size: int, total: int) -> tuple[Bool, Int64, Int64]:
    """Deal places to one store and the rest so that the store's lie at even distances.

    Args:
        places: `[n]` in `[0, total)`.
        size: places of the store.
        total: of the store and the rest.

    Returns:
        `[n]` which are the store's, their places in the store, and the others' in the rest.
    """
    # Python's integers: 10^10 documents times as many are beyond 64 bits.
    counts = [(p * size // total, (p + 1) * size // total) for p in places.tolist()]
    before, after = np.array(counts, np.int64).reshape(-1, 2).T
    is_mine = after > before
    return is_mine, before[is_mine], (places - before)[~is_mine]
