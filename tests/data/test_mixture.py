"""A mixture reads every store in its share, and any row of it is the same whoever asks."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from blankfill.config.objective import ObjectiveConfig
from blankfill.data.mixture import RowMixture, parse_stores, settle_shares
from blankfill.data.rows import RowSource
from blankfill.errors import ConfigError
from blankfill.objective.batch import Batch
from conftest import MemoryStore


def source(ids, token, num_documents=40, language=1):
    store = MemoryStore([np.full(9 + i % 23, token) for i in range(num_documents)],
                        languages=[language] * num_documents)  # fmt: skip
    return RowSource([store], ObjectiveConfig(), ids, row_length=64, seed=token)


def mixture(ids, shares, tokens=None):
    sources = [source(ids, 10 + s, 40 + 10 * s, s % 2) for s in range(len(shares))]
    return RowMixture(sources, shares, tokens or [1] * len(shares)), sources


@pytest.mark.parametrize("shares", [[0.7, 0.3], [0.5, 0.25, 0.25], [0.9, 0.05, 0.03, 0.02], [1.0]])
def test_every_source_has_its_share_after_any_number_of_rows(ids, shares):
    mixed, _ = mixture(ids, shares)
    before = [0] * len(shares)
    for row in [*range(1, 400), 10_000_000_019]:
        counts = mixed.counts(row)
        assert sum(counts) == row
        assert all(a >= b for a, b in zip(counts, before, strict=True))
        for count, share in zip(counts, shares, strict=True):
            assert abs(count - share * row) < len(shares)
        before = counts


def test_rows_are_those_of_the_sources_in_order(ids):
    mixed, sources = mixture(ids, [0.6, 0.3, 0.1])
    batch = mixed.rows(0, 30)
    taken = [0, 0, 0]
    for row in range(30):
        inside = batch.blocks[:, 0] == row
        (s,) = set(batch.sources[inside].tolist())
        alone = sources[s].rows(taken[s], 1)
        taken[s] += 1
        for name in ("tokens", "targets", "positions", "segment_ids", "is_part_b", "weights"):
            assert np.array_equal(getattr(batch, name)[row], getattr(alone, name)[0]), name
        assert np.array_equal(batch.blocks[inside][:, 1:], alone.blocks[:, 1:])
        for name in ("kinds", "languages", "documents"):
            assert np.array_equal(getattr(batch, name)[inside], getattr(alone, name)), name
    assert taken == mixed.counts(30)


def test_changed_shares_begin_behind_what_was_read(ids):
    sources = mixture(ids, [0.7, 0.3])[1]
    plain = RowMixture(sources, [0.7, 0.3], [1, 1])
    changed = RowMixture(sources, [0.7, 0.3], [1, 1])
    changed.change(50, [0.2, 0.8])
    changed.change(61, [0.5, 0.5])
    assert [changed.counts(row) for row in range(51)] == [plain.counts(row) for row in range(51)]
    at_50, at_61 = changed.counts(50), changed.counts(61)
    for row in range(51, 200):
        counts = changed.counts(row)
        assert sum(counts) == row
        before, first, share = (at_50, 50, 0.2) if row <= 61 else (at_61, 61, 0.5)
        assert abs(counts[0] - before[0] - share * (row - first)) < len(counts)
    # Rows across a change are still those of the sources, each once and in order.
    taken = changed.counts(45)
    batch = changed.rows(45, 20)
    for row in range(20):
        (s,) = set(batch.sources[batch.blocks[:, 0] == row].tolist())
        assert np.array_equal(batch.tokens[row], sources[s].rows(taken[s], 1).tokens[0])
        taken[s] += 1
    assert taken == changed.counts(65)


def test_a_late_row_from_its_anchor_is_the_row_that_was_counted_to(ids):
    shares = [0.7, 0.3]
    counted = mixture(ids, shares)[0]
    whole = counted.rows(200, 6)
    late = mixture(ids, shares)[0]
    late.start_at(counted.anchors(200))
    parts = [late.rows(200, 2), late.rows(202, 4)]
    for field in dataclasses.fields(Batch):
        value = getattr(whole, field.name)
        rows = [getattr(part, field.name).copy() for part in parts]
        if field.name == "blocks":
            rows[1][:, 0] += 2
        assert np.array_equal(value, np.concatenate(rows)), field.name


def test_each_store_has_epochs_of_its_own(ids):
    mixed, sources = mixture(ids, [0.8, 0.2], tokens=[300, 100])
    row = 50
    epochs = mixed.epochs(row)
    each = [s.epoch_at(n) for s, n in zip(sources, mixed.counts(row), strict=True)]
    assert [epochs["epoch_source_0"], epochs["epoch_source_1"]] == each
    assert each[0] > 2 * each[1] > 0
    assert epochs["epoch"] == pytest.approx((300 * each[0] + 100 * each[1]) / 400)


def test_shares_are_read_from_names(tmp_path):
    paths, shares = parse_stores([Path("en:0.7"), Path("zh:.3")])
    assert paths == [Path("en"), Path("zh")]
    assert shares == pytest.approx([0.7, 0.3])
    assert parse_stores([Path("en"), Path("zh")]) == ([Path("en"), Path("zh")], [None, None])
    (tmp_path / "v:2").mkdir()
    assert parse_stores([tmp_path / "v:2"]) == ([tmp_path / "v:2"], [None])
    assert parse_stores([Path("en:7"), Path("zh:3")])[1] == pytest.approx([0.7, 0.3])


def test_replay_takes_its_share_of_all_rows():
    paths, shares = parse_stores([Path("law")], [Path("general:0.3")])
    assert paths == [Path("law"), Path("general")]
    assert settle_shares(shares, [5, 1000]) == pytest.approx([0.7, 0.3])
    _, shares = parse_stores([Path("a:1"), Path("b:3")], [Path("general:0.2")])
    assert settle_shares(shares, [1, 1, 1]) == pytest.approx([0.2, 0.6, 0.2])


def test_stores_without_a_share_divide_the_rest_by_tokens():
    assert settle_shares([None, None, 0.4], [100, 200, 7]) == pytest.approx([0.2, 0.4, 0.4])
    assert settle_shares([None, None], [1, 2]) is None


@pytest.mark.parametrize(
    "share", ["nan", "inf", "-inf", "-1", "0", "-0.0", "1e308", "1e-300", "30%", "0,5", "half", ""]
)
def test_what_is_no_share_behind_a_store_is_said(tmp_path, share):
    store = tmp_path / "store"
    store.mkdir()
    with pytest.raises(ConfigError, match=r"store:.*share '.*' must be a number from"):
        parse_stores([Path(f"{store}:{share}")])
    (tmp_path / f"store:{share}").mkdir()  # and a path that exists is a path
    assert parse_stores([Path(f"{store}:{share}")])[1] == [None]


def test_a_share_may_be_written_as_any_number_and_a_path_may_hold_colons():
    paths, shares = parse_stores([Path("a:b:1e-2"), Path("c:+3.0")])
    assert paths == [Path("a:b"), Path("c")]
    assert shares == pytest.approx([0.01 / 3.01, 3 / 3.01])
    assert parse_stores([Path("no:thing")]) == ([Path("no:thing")], [None])


@pytest.mark.parametrize("shares", [[1 - 1e-12, None], [1e-6 / 1e6, 1.0]])
def test_a_share_too_small_to_be_read_is_refused(shares):
    with pytest.raises(ConfigError, match="too little to be read"):
        settle_shares(shares, [5, 5])


def test_shares_at_both_ends_of_what_may_be_named_are_read(ids):
    _, given = parse_stores([Path("a:1e6"), Path("b:1")])
    shares = settle_shares(given, [5, 5])
    mixed, _ = mixture(ids, shares)
    assert abs(mixed.counts(3_000_003)[1] - 3) < 2


@pytest.mark.parametrize(
    ("data", "replay", "message"),
    [(["en:0", "zh:1"], [], "must be a number"), (["en"], ["old"], "needs a share"),
     (["en"], ["old:1.0"], "leave some"), (["en:0.9", "zh"], ["old:0.2"], "leave nothing")],
)  # fmt: skip
def test_shares_that_cannot_be_are_one_sentence(data, replay, message):
    with pytest.raises(ConfigError, match=message):
        parse_stores(list(map(Path, data)), list(map(Path, replay)))
