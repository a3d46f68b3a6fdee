"""The order of visiting is computed: a bijection, the same as ever, and group by group at scale."""

import hashlib

import numpy as np
import pytest

from blankfill.config.objective import ObjectiveConfig
from blankfill.data.order import VisitOrder
from blankfill.data.rows import RowSource
from blankfill.data.store import TokenStore
from blankfill.rng import permute
from data.stores import write_store


class Shards:
    """Nothing but the sizes of shards."""

    def __init__(self, documents, together=1):
        self.shard_documents, self.shuffle_shards = np.array(documents), together

    def __len__(self):
        return int(self.shard_documents.sum())


STORES = [
    [Shards([7])],
    [Shards([4, 0, 9], together=3)],
    [Shards([4, 0, 9, 1, 30, 2, 2])],
    [Shards([50] * 20, together=6)],
    [Shards([9, 9, 9], together=2), Shards([40]), Shards([0]), Shards([5] * 7, together=7)],
]


@pytest.mark.parametrize("stores", STORES)
@pytest.mark.parametrize("epoch", [0, 3])
def test_an_epoch_visits_every_document_once_whatever_is_asked_at_a_time(stores, epoch):
    total = sum(map(len, stores))
    order = VisitOrder(stores, 5)
    whole = order.documents(np.arange(total), epoch)
    assert sorted(whole.tolist()) == list(range(total))
    again = VisitOrder(stores, 5)
    parts = [again.documents(np.arange(a, min(a + 13, total)), epoch) for a in range(0, total, 13)]
    assert np.concatenate(parts).tolist() == whole.tolist()


@pytest.mark.parametrize("documents", [[60], [20, 20, 20], [1] * 60])
def test_shards_that_are_shuffled_together_are_visited_as_one_store_always_was(documents):
    order = VisitOrder([Shards(documents, together=len(documents)), Shards([5])], 9)
    expected = permute(np.arange(65), 65, 9, "order", 2)
    assert order.documents(np.arange(65), 2).tolist() == expected.tolist()


def test_a_group_is_finished_before_the_next_begins_and_epochs_group_anew():
    order = VisitOrder([Shards([100] * 12, together=4)], 1)
    groups = {}
    for epoch in (0, 1):
        shards = order.documents(np.arange(1200), epoch).reshape(3, 400) // 100
        groups[epoch] = [frozenset(part.tolist()) for part in shards]
        assert [len(part) for part in groups[epoch]] == [4, 4, 4]
        # Within a group the documents of its shards are mixed: each of four is seen early.
        assert all(len(set(part[:40].tolist())) == 4 for part in shards)
    assert set(groups[0]) != set(groups[1])


def test_stores_beside_a_large_one_alternate_with_it_at_even_distances():
    order = VisitOrder([Shards([30] * 30), Shards([100])], 1)
    is_small = order.documents(np.arange(1000), 0) >= 900
    for first in range(0, 1000, 100):
        assert is_small[first : first + 100].sum() == 10


def test_ten_billion_documents_take_no_memory_of_their_number():
    store = Shards([10**6] * 10_000, together=40)
    order = VisitOrder([store, Shards([10**10])], 3)
    places = np.array([0, 10**10, 2 * 10**10 - 1])
    found = order.documents(places, 0)
    assert len(set(found.tolist())) == 3
    assert found.max() < 2 * 10**10


GOLDEN = {
    "one": (254, ((4, 254),), "db339de9f17145d830e75956b640ac3b446b369015478f3938d3890b432b19a2"),
    "two": (429, ((6, 429),), "22d709abd0c1f5f1e10f9ea7a8db3939db017e561b3882f8f3b7994a01c82b2e"),
}  # recorded before stores had shards
MIXED = ObjectiveConfig(
    short_rate=0.5, sentence_rate=0.2, document_rate=0.3, short_sequence_rate=0.1
)


@pytest.mark.parametrize("shard_tokens", [0, 3000])
@pytest.mark.parametrize("name", GOLDEN)
def test_rows_are_bit_for_bit_what_they_were_with_shards_and_without(
    tmp_path, monkeypatch, ids, name, shard_tokens
):
    monkeypatch.setattr("blankfill.data.rows.MAX_WINDOW", 64)
    monkeypatch.setattr("blankfill.data.rows.MIN_WINDOW", 64)
    stores = [write_store(tmp_path / "a", 0, 200, shard_tokens=shard_tokens)]
    if name == "two":
        stores.append(write_store(tmp_path / "b", 1, 150, has_pairs=True))
    rows = RowSource(
        stores, MIXED if name == "two" else ObjectiveConfig(), ids, row_length=128, seed=3
    )
    count = rows.num_rows(0)
    batch = rows.rows(count - 40, 80)
    digest = hashlib.sha256()
    for part in (batch.tokens, batch.targets, batch.positions, batch.blocks, batch.kinds,
                 batch.languages, batch.documents, batch.sources):  # fmt: skip
        digest.update(np.ascontiguousarray(part).astype("<i8").tobytes())
    assert (count, rows.anchors(count + 5), digest.hexdigest()) == GOLDEN[name]


def test_rows_of_groups_pass_over_every_token_once_and_are_found_again_from_an_anchor(
    tmp_path, monkeypatch, ids
):
    monkeypatch.setattr("blankfill.data.rows.MAX_WINDOW", 16)
    monkeypatch.setattr("blankfill.data.rows.MIN_WINDOW", 16)
    monkeypatch.setattr("blankfill.data.manifest.SHUFFLED_TOKENS", 5000)
    write_store(tmp_path / "s", 0, 120, shard_tokens=1500)
    store = TokenStore.open(tmp_path / "s")
    assert 1 < store.shuffle_shards < len(store.entries)
    rows, again = (RowSource([store], MIXED, ids, row_length=128, seed=3) for _ in range(2))
    drawn = [one for one, _ in rows.windows(0)]
    assert sum(int(one.num_tokens.sum()) for one in drawn) == store.num_tokens
    late = rows.num_rows(0) + 7
    expected, anchors = rows.rows(late, 5), rows.anchors(late)
    again.start_at(anchors)
    assert np.array_equal(again.rows(late, 5).tokens, expected.tokens)
    assert min(again._sizes) >= anchors[0][0] > 0


@pytest.mark.parametrize("stores", [[Shards([4, 2, 9, 1, 30, 2, 2])], *STORES[3:]])
def test_the_group_of_a_place_and_the_next_one_are_those_whose_documents_stand_there(stores):
    order = VisitOrder(stores, seed=5)
    first = np.cumsum([0, *map(len, stores)])
    total = int(first[-1])
    for epoch in (0, 1):
        before = None
        for place in range(total):
            groups = order.groups(place, epoch)
            document = int(order.documents(np.array([place]), epoch)[0])
            s = int(np.searchsorted(first, document, side="right")) - 1
            now, _ = groups[s]
            shards = np.cumsum(stores[s].shard_documents)
            shard = int(np.searchsorted(shards, document - first[s], side="right"))
            grouped = len(stores[s].shard_documents) > stores[s].shuffle_shards
            assert (shard in now) == grouped
            for (now, later), (was, expected) in zip(groups, before or groups, strict=True):
                assert now.tolist() in (was.tolist(), expected.tolist())
                assert bool(len(now)) == bool(len(later))
            before = groups
        after = [now.tolist() for now, _ in order.groups(0, epoch + 1)]
        assert [later.tolist() for _, later in before] == after
