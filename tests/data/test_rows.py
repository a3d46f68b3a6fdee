import dataclasses
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from blankfill.config.objective import MIXTURES, ObjectiveConfig
from blankfill.data.pieces import Cutter, Objectives
from blankfill.data.rows import RowSource
from blankfill.errors import ConfigError, DataError
from blankfill.objective.batch import IGNORE_INDEX, Kind
from conftest import MemoryStore


@pytest.fixture
def source(random_store, ids):
    def make(lengths, row_length=64, **options):
        cfg = ObjectiveConfig(**options.pop("objective", {}))
        return RowSource(
            [random_store(lengths)], cfg, ids, row_length=row_length, seed=1, **options
        )

    return make


def test_an_epoch_passes_over_every_token_once_and_loses_no_target(random_store, ids):
    lengths = [1, 2, 3, 50, 64, 65, 200, 1000, 7]
    documents = [
        np.arange(s, s + n) for s, n in zip(np.cumsum([8, *lengths])[:-1], lengths, strict=True)
    ]

    store = MemoryStore(documents)
    cfg = ObjectiveConfig(short_rate=0.6, document_rate=0.4)
    rows = RowSource([store], cfg, ids, row_length=64, seed=2)
    seen, ends = [], 0
    for index in range(rows.num_rows(0)):
        batch = rows.rows(index, 1)
        part_a = batch.tokens[(batch.segment_ids >= 0) & ~batch.is_part_b]
        seen += [t for t in part_a.tolist() if t >= 8]
        targets = batch.targets[batch.targets != IGNORE_INDEX].tolist()
        seen += [t for t in targets if t >= 8]
        ends += targets.count(ids.eop)
    assert sorted(seen) == list(range(8, 8 + sum(lengths)))
    assert ends > 0


@pytest.mark.parametrize(("row_length", "fill"), [(512, 0.97), (2048, 0.99)])
def test_rows_are_full(source, row_length, fill):
    lengths = np.random.default_rng(0).gamma(2, 90, 4000).astype(int) + 1
    rows = source(lengths, row_length)
    batch = rows.rows(0, rows.num_rows(0))
    assert (batch.segment_ids >= 0).mean() >= fill


def test_any_rank_makes_any_row_alone(source):
    lengths = [5, 40, 90, 12, 33] * 30
    first, second = source(lengths), source(lengths)
    for index in (37, 0, 5, 80):
        a, b = first.rows(index * 2, 2), second.rows((index // 1) * 2, 2)
        assert np.array_equal(a.tokens, b.tokens)
        assert np.array_equal(a.positions, b.positions)
    whole = first.rows(0, 8)
    parts = [second.rows(i * 2, 2) for i in range(4)]
    assert np.array_equal(whole.tokens, np.concatenate([p.tokens for p in parts]))


def test_another_process_makes_the_same_rows(source):
    code = """
import sys, hashlib
sys.path.insert(0, "tests")
import numpy as np
from conftest import MemoryStore
from blankfill.config.objective import MIXTURES, ObjectiveConfig
from blankfill.data.rows import RowSource
from blankfill.objective.special import SpecialIds
ids = SpecialIds(pad=0, mask=1, smask=2, gmask=3, sop=4, eop=5, eos=6, dblock=7)
rng = np.random.default_rng(0)
store = MemoryStore([rng.integers(8, 200, n) for n in [5, 40, 90, 12, 33] * 30])
batch = RowSource([store], ObjectiveConfig(), ids, row_length=64, seed=1).rows(36, 4)
print(hashlib.sha256(batch.tokens.tobytes()).hexdigest())
"""
    import hashlib

    own = hashlib.sha256(source([5, 40, 90, 12, 33] * 30).rows(36, 4).tokens.tobytes()).hexdigest()
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == own


def test_epochs_differ_in_order_and_blanks(source):
    rows = source([20] * 50)
    count = rows.num_rows(0)
    assert not np.array_equal(rows.rows(0, 4).tokens, rows.rows((count // 4 + 1) * 4, 4).tokens)
    assert rows.epoch_at(0) == 0
    assert rows.epoch_at(count) == pytest.approx(1)


def test_blocks_say_where_every_example_lies(source):
    batch = source([5, 40, 90, 12, 33] * 8).rows(0, 6)
    for row, start, part_b, end in batch.blocks:
        assert len(set(batch.segment_ids[row, start:end].tolist())) == 1
        assert not batch.is_part_b[row, start:part_b].any()
        assert batch.is_part_b[row, part_b:end].all()
    covered = sum(int(end - start) for _, start, _, end in batch.blocks)
    assert covered == (batch.segment_ids >= 0).sum()
    assert len(batch.kinds) == len(batch.languages) == len(batch.documents) == len(batch.blocks)


def test_kinds_come_at_their_rates(source):
    rows = source([30] * 3000, objective={"short_rate": 0.25, "document_rate": 0.75})
    kinds = rows.rows(0, rows.num_rows(0)).kinds
    # 3,000 draws: four standard errors of a share of 1/4 are 0.032.
    assert (kinds == Kind.SHORT).mean() == pytest.approx(0.25, abs=0.032)


def test_32_documents_share_a_row_and_a_document_of_one_token_is_an_example(source):
    batch = source([1] * 200, row_length=96).rows(0, 1)
    assert len(batch.blocks) >= 31
    assert batch.num_targets >= 31


@pytest.mark.parametrize("row_length", [20, 64])
def test_texts_of_released_vocabularies_stand_in_their_frame(random_store, ids, row_length):
    framed = dataclasses.replace(ids, opening=250)
    cfg = ObjectiveConfig(short_rate=0.5, document_rate=0.5, infill_rate=0.3, document_end="eos")
    store = random_store([1, 2, 3, 50, 64, 65, 200, 1000, 7])
    rows = RowSource([store], cfg, framed, row_length=row_length, seed=2)
    batch = rows.rows(0, rows.num_rows(0))
    seen = 0
    for row, start, part_b, end in batch.blocks.tolist():
        part_a = batch.tokens[row, start:part_b].tolist()
        targets = batch.targets[row, part_b:end].tolist()
        assert part_a[0] == framed.opening
        assert part_a[-1] == framed.gmask or part_a[-1] == framed.eos
        assert not {framed.opening, framed.eos} & set(part_a[1:-1])
        assert framed.opening not in targets
        assert framed.eos not in targets or part_a[-1] == framed.gmask
        seen += sum(8 <= t < 200 for t in part_a + targets)
    assert seen == sum(store.lengths)  # no piece lost a token to its frame
    drawn, fill = zip(*rows.windows(0), strict=True)
    assert np.concatenate(fill).tolist() == (batch.segment_ids >= 0).sum(1).tolist()
    assert sum(len(d.numbers) for d in drawn) == len(batch.blocks)


def test_a_row_too_short_is_refused(source):
    with pytest.raises(ConfigError, match="row_length=8"):
        source([5], row_length=8)


def test_an_empty_store_is_refused(source):
    with pytest.raises(DataError, match="no token"):
        source([])


def test_tokens_beyond_65_535_pass_through(ids):
    wide = MemoryStore([np.arange(140_000, 140_030)], [2])
    batch = RowSource([wide], ObjectiveConfig(), ids, row_length=64, seed=0).rows(0, 1)
    assert batch.tokens.max() >= 140_000
    assert batch.languages.tolist() == [2]


class MarkedStore(MemoryStore):
    """Documents whose sentences end after every seventh token."""

    has_sentences = True

    def sentence_ends(self, index, start, end):
        n = len(self.documents[index])
        ends = np.unique(np.append(np.arange(7, n, 7), n))
        return ends[(ends > start) & (ends <= end)]


def test_long_documents_are_cut_at_sentence_ends_and_stay_whole():
    lengths = [3, 50, 300, 1000, 57, 64]
    store = MarkedStore([np.arange(n) for n in lengths])
    cutter = Cutter([store], Objectives(ObjectiveConfig(), 1), 128, 3)
    index = np.arange(len(lengths))
    pieces = cutter.pieces(index, index * 0, index, 0)
    assert (pieces.ends - pieces.starts).max() <= 126
    for d, n in enumerate(lengths):
        mine = pieces.take(np.flatnonzero(pieces.documents == d))
        mine = mine.take(np.argsort(mine.starts))
        assert mine.starts.tolist() == [0, *mine.ends[:-1].tolist()]
        assert mine.ends[-1] == n
        assert mine.are_last.tolist() == [False] * (len(mine.ends) - 1) + [True]
        assert (mine.ends[:-1] % 7 == 0).all()  # slack 16 always finds an end
        assert len(set(mine.numbers.tolist())) == len(mine.numbers)
    again = cutter.pieces(index, index * 0, index, 1)
    assert sorted(again.ends.tolist()) != sorted(pieces.ends.tolist())


@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("row_length", [16, 64, 256, 1024])
def test_pieces_of_long_documents_fit_and_fill_their_rows(memory_store, ids, mixture, row_length):
    store = memory_store([np.full(n, 9) for n in (1, 40_000, 9000, 3, 20_000)])
    rows = RowSource([store], MIXTURES[mixture], ids, row_length=row_length, seed=3)
    fills = np.concatenate([f for _, f in rows.windows(0)])
    assert fills.max() <= row_length
    # The plan of long rows comes from what is drawn; that of short ones from a bound.
    assert fills.mean() / row_length >= {16: 0.5, 64: 0.7, 256: 0.93, 1024: 0.95}[row_length]


def test_sentences_are_blanks_of_whole_sentences(ids):
    store = MarkedStore([np.arange(100, 163)] * 40)
    cfg = ObjectiveConfig(short_rate=0, sentence_rate=1, document_rate=0)
    batch = RowSource([store], cfg, ids, row_length=96, seed=0).rows(0, 20)
    assert set(batch.kinds.tolist()) == {Kind.SENTENCE}
    for row, _, part_b, end in batch.blocks:
        inside = batch.tokens[row, part_b:end]
        starts = np.flatnonzero(inside == ids.sop)
        for a, b in zip(starts, [*starts[1:], len(inside)], strict=True):
            span = inside[a + 1 : b] - 100
            assert span[0] % 7 == 0
            assert len(span) == 7


def test_short_sequences_cut_pieces_and_lose_nothing(ids):
    lengths = [200, 90, 40, 31, 120] * 20
    documents = [np.arange(s, s + n) for s, n in zip(np.cumsum([8, *lengths])[:-1], lengths,
                                                     strict=True)]  # fmt: skip
    store = MarkedStore(documents)
    examples = {}
    for rate in (0.0, 1.0):
        cfg = ObjectiveConfig(short_sequence_rate=rate)
        rows = RowSource([store], cfg, ids, row_length=256, seed=2)
        drawn = [d for d, _ in rows.windows(0)]
        assert sum(int(d.num_tokens.sum()) for d in drawn) == sum(lengths)
        batch = rows.rows(0, rows.num_rows(0))
        part_a = batch.tokens[(batch.segment_ids >= 0) & ~batch.is_part_b]
        seen = [t for t in part_a.tolist() if t >= 8]
        seen += [t for t in batch.targets.ravel().tolist() if t >= 8]
        assert sorted(seen) == list(range(8, 8 + sum(lengths)))
        examples[rate] = sum(len(d.num_tokens) for d in drawn)
    assert examples[1.0] > 1.3 * examples[0.0]


def test_windows_do_not_change_what_an_example_is(source, monkeypatch):
    lengths = [5, 40, 90, 12, 33] * 30

    def examples(rows):
        batch = rows.rows(0, rows.num_rows(0))
        return sorted(
            (int(d), batch.tokens[r, a:b].tolist(), batch.positions[r, :, a:b].tolist())
            for (r, a, _, b), d in zip(batch.blocks, batch.documents, strict=True)
        )

    whole = examples(source(lengths, 128))
    monkeypatch.setattr("blankfill.data.rows.MAX_WINDOW", 16)
    monkeypatch.setattr("blankfill.data.rows.MIN_WINDOW", 16)
    parts = source(lengths, 128)
    assert examples(parts) == whole
    assert parts.epoch_at(parts.num_rows(0)) == pytest.approx(1)
    assert [parts.epoch_at(r) for r in range(20)] == sorted(parts.epoch_at(r) for r in range(20))


def test_a_late_row_is_found_from_an_anchor_without_planning_what_comes_before(source):
    lengths = [5, 40, 90, 12, 33] * 30
    whole, late = source(lengths), source(lengths)
    row = whole.num_rows(0) + whole.num_rows(1) + 3
    expected, anchor = whole.rows(row, 4), whole.anchors(row)
    late.start_at(anchor)
    assert np.array_equal(late.rows(row, 4).tokens, expected.tokens)
    assert late.epoch_at(row) == whole.epoch_at(row)
    assert min(late._sizes) >= anchor[0][0] == 2
    assert np.array_equal(late.rows(0, 4).tokens, whole.rows(0, 4).tokens)  # and back again


def test_threads_that_plan_at_once_agree(source):
    lengths = [5, 40, 90, 12, 33] * 30
    alone, shared = source(lengths), source(lengths)
    with ThreadPoolExecutor(8) as pool:
        epochs = list(pool.map(shared.epoch_at, range(0, 400, 10)))
        batches = list(pool.map(lambda first: shared.rows(first, 5), range(0, 400, 40)))
    assert epochs == [alone.epoch_at(row) for row in range(0, 400, 10)]
    for first, batch in zip(range(0, 400, 40), batches, strict=True):
        assert np.array_equal(batch.tokens, alone.rows(first, 5).tokens)
