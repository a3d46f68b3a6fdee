"""A store of 10^12 tokens: opening and reading take time and memory of its shards, not its tokens.

The files are holes on the disk, and all shards are one folder by as many names.
"""

import json
import tracemalloc

import numpy as np
import pytest

from blankfill.config.objective import ObjectiveConfig
from blankfill.data.rows import RowSource
from blankfill.data.store import TokenStore

SHARDS, DOCUMENTS, LENGTH = 4000, 250_000, 1000
TOKENS = SHARDS * DOCUMENTS * LENGTH
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def trillion(tmp_path_factory):
    """The folder of a store of 10^12 tokens in 10^9 documents."""
    folder = tmp_path_factory.mktemp("trillion")
    shard = folder / "shard-00000"
    shard.mkdir()
    tokens = DOCUMENTS * LENGTH
    offsets = np.arange(DOCUMENTS + 1, dtype="<i8") * LENGTH
    offsets.tofile(shard / "offsets.bin")
    for name, size in (
        ("tokens.bin", 2 * tokens), ("sentences.bin", tokens // 8), ("languages.bin", DOCUMENTS),
    ):  # fmt: skip
        with (shard / name).open("wb") as file:
            file.truncate(size)
    counts = {"documents": DOCUMENTS, "tokens": tokens, "pairs": 0}
    shards = [{"name": f"shard-{k:05d}", **counts, "sha256": {}} for k in range(SHARDS)]
    for one in shards[1:]:
        (folder / one["name"]).symlink_to(shard)
    manifest = {
        "format": "blankfill token store", "version": 4, "fingerprint": "0" * 64, "dtype": "<u2",
        "documents": SHARDS * DOCUMENTS, "tokens": TOKENS, "pairs": 0, "vocab_size": 500,
        "tokenizer": {"fingerprint": "f" * 64}, "languages": ["other"], "by_language": {},
        "shuffle_shards": 17, "shards": shards,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def peak(work):
    """Give what work gives, and the most bytes that it held, numpy's arrays included."""
    tracemalloc.start()
    try:
        return work(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_trillion_tokens_open_in_memory_of_the_manifest(trillion):
    store, held = peak(lambda: TokenStore.open(trillion))
    assert (store.num_tokens, len(store)) == (10**12, 10**9)
    assert not store._open
    # The manifest is 0.5 MB of JSON; a list of all documents would be 8 GB.
    assert held < 16 * MEGABYTE


def test_rows_of_a_trillion_tokens_are_made_from_one_window_at_any_place(
    trillion, ids, monkeypatch
):
    monkeypatch.setattr("blankfill.data.rows.WINDOW_TOKENS", 1 << 18)
    monkeypatch.setattr("blankfill.data.rows.MIN_WINDOW", 64)
    store = TokenStore.open(trillion)

    def work():
        rows = RowSource([store], ObjectiveConfig(), ids, row_length=2048, seed=1)
        first = rows.rows(0, 4)
        rows.start_at([(3_000_000, 123_456_789_012)])  # far into the epoch
        return rows, first, rows.rows(123_456_789_012, 4)

    (rows, first, late), held = peak(work)
    assert held < 32 * MEGABYTE
    assert first.tokens.shape == late.tokens.shape == (4, 2048)
    assert set(first.documents.tolist()).isdisjoint(late.documents.tolist())
    assert late.documents.max() > 2**29
    assert 0.7 < rows.epoch_at(123_456_789_012) < 0.9
    # Both windows are of a group of 17 shards each.
    assert len(store._open) <= 2 * 17


def test_a_store_without_shards_is_not_listed_either(trillion, ids, monkeypatch):
    monkeypatch.setattr("blankfill.data.rows.WINDOW_TOKENS", 1 << 18)
    manifest = json.loads((trillion / "manifest.json").read_text())
    (one, *_) = manifest.pop("shards")
    (trillion / "shard-00000" / "manifest.json").write_text(
        json.dumps({**manifest, **one, "version": 3, "sha256": {}})
    )
    store = TokenStore.open(trillion / "shard-00000")
    _, held = peak(
        lambda: RowSource([store], ObjectiveConfig(), ids, row_length=2048, seed=1).rows(0, 2)
    )
    assert held < 16 * MEGABYTE
