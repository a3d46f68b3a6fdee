"""The laws of the draws, each against its exact distribution."""

import itertools
import json

import numpy as np
import pytest

from blankfill.config.objective import ObjectiveConfig
from blankfill.objective import End
from blankfill.objective.draws import sort_keys, uniform_draws
from blankfill.objective.fit import longest_piece
from blankfill.objective.many import draw_many, place_many
from blankfill.objective.sample import draw_example
from blankfill.objective.spans import draw_lengths, length_law, max_spans, place_spans, span_budget
from blankfill.objective.special import SpecialIds
from shared import shared_path

IDS = SpecialIds(pad=0, mask=1, smask=2, gmask=3, sop=4, eop=5, eos=6, dblock=7)
SHORT = ObjectiveConfig(short_rate=1.0, document_rate=0.0, ratio_law="fixed")
LONG = ObjectiveConfig(short_rate=0.0, document_rate=1.0)


def chi_square(counts, expected):
    expected = np.asarray(expected, float)
    return float(((counts - expected) ** 2 / expected).sum())


def drawn_many(sizes, cfg, seed=0, last=True):
    n = np.asarray(sizes)
    return draw_many(n, np.full(len(n), last), np.arange(len(n)), cfg, seed=seed, epoch=0)


def placed_many(sizes, cfg, seed=0):
    drawn = drawn_many(sizes, cfg, seed)
    return place_many(drawn, cfg, seed=seed, epoch=0, row_length=10**6)


def test_the_length_law_is_the_released_one():
    weights = json.loads(shared_path("reference/golden/span_statistics.json").read_text())
    found = np.array(next(v for k, v in weights.items() if k.startswith("block_length_weights")))
    assert length_law(SHORT) == pytest.approx(found / found.sum(), rel=1e-12)


@pytest.mark.parametrize(
    ("law", "mean", "exact"),
    [
        ("fixed", 4.0, [0, 0, 0, 1, 0, 0]),
        ("uniform", 2.0, [1 / 3, 1 / 3, 1 / 3, 0, 0, 0]),
        ("geometric", 2.0, [32 / 63, 16 / 63, 8 / 63, 4 / 63, 2 / 63, 1 / 63]),
    ],
)
def test_the_other_laws(law, mean, exact):
    cfg = ObjectiveConfig(length_law=law, mean_span_length=mean, max_span_length=6)
    assert length_law(cfg) == pytest.approx(exact, rel=1e-12)


def test_drawn_lengths_follow_the_law():
    # First spans of 40,000 documents: the stopping rule biases only the last one of a document.
    # Lengths 1..8 and more: 8 degrees of freedom, 99.99 % quantile 31.8.
    drawn = drawn_many(np.full(40_000, 400), SHORT, seed=5)
    lengths = drawn.lengths[drawn.first[:-1]]
    assert chi_square(*_binned(lengths)) < 31.8
    uniform = uniform_draws(np.arange(40_000), np.array(0), 5, "test")
    assert chi_square(*_binned(1 + (uniform * 8).astype(int))) > 31.8  # a wrong law is caught


def _binned(lengths):
    law = length_law(SHORT)
    counts = np.bincount(np.minimum(lengths, 9), minlength=10)[1:]
    return counts, np.append(law[:8], law[8:].sum()) * len(lengths)


def test_the_number_of_spans_follows_its_law():
    # Budget 6 of 40 tokens: the count is that of a renewal process; exact by enumeration.
    law = length_law(SHORT)
    exact, alive = [], np.array([1.0])  # alive[t]: probability of t tokens so far, t < 6
    for _ in range(6):
        grown = np.convolve(alive, np.append(0, law))
        exact.append(grown[6:].sum())
        alive = grown[:6]
    counts = np.bincount(np.diff(drawn_many(np.full(30_000, 40), SHORT, 7).first), minlength=7)[1:]
    # 6 cells, 5 degrees of freedom, 99.99 % quantile 25.7.
    assert chi_square(counts, np.array(exact) * 30_000) < 25.7


@pytest.mark.parametrize("placement", ["uniform", "released"])
def test_placements_follow_their_law(placement):
    # Fixed spans of 2 in 9 tokens at ratio 0.4: two spans, free = 4.
    cfg = ObjectiveConfig(
        short_rate=1.0, document_rate=0.0, ratio_law="fixed", mask_ratio=0.4,
        length_law="fixed", mean_span_length=2.0, placement=placement,
    )  # fmt: skip
    spans = placed_many(np.full(30_000, 9), cfg, seed=2).spans.reshape(-1, 2, 2)
    seen = {}
    for first, second in spans[:, :, 0].tolist():
        seen[first, second] = seen.get((first, second), 0) + 1
    if placement == "uniform":
        exact = dict.fromkeys(itertools.combinations_with_replacement(range(5), 2), 1 / 15)
    else:
        exact = {}
        for a, b in itertools.product(range(5), repeat=2):  # draws with replacement, sorted
            key = (min(a, b), max(a, b))
            exact[key] = exact.get(key, 0) + 1 / 25
    exact = {(a, b + 3): p for (a, b), p in exact.items()}
    assert set(seen) == set(exact)
    # 15 cells, 14 degrees of freedom, 99.99 % quantile 42.6.
    assert chi_square([seen[k] for k in exact], [30_000 * p for p in exact.values()]) < 42.6
    other = [1 / 15 if placement == "released" else exact[k] * 0 + 1 / 25 for k in exact]
    assert chi_square([seen[k] for k in exact], np.array(other) * 30_000) > 42.6


def test_every_order_of_part_b_is_equally_likely():
    cfg = ObjectiveConfig(
        short_rate=1.0,
        document_rate=0.0,
        ratio_law="fixed",
        mask_ratio=0.3,
        length_law="fixed",
        mean_span_length=1.0,
    )
    order = placed_many(np.full(24_000, 10), cfg, seed=3).order.reshape(-1, 3)
    counts = np.unique(order @ [9, 3, 1], return_counts=True)[1]
    # 6 orders, 5 degrees of freedom, 99.99 % quantile 25.7.
    assert len(counts) == 6
    assert chi_square(counts, [4000] * 6) < 25.7


def test_a_permutation_from_keys_is_uniform():
    keys = sort_keys(np.repeat(np.arange(24_000), 3), np.tile(np.arange(3), 24_000), 0, "t")
    counts = np.unique(np.argsort(keys.reshape(-1, 3), axis=1) @ [9, 3, 1], return_counts=True)[1]
    assert chi_square(counts, [4000] * 6) < 25.7


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 20, 300])
@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.15, 0.5, 1.0])
def test_spans_fit_and_leave_a_token_between_them(n, ratio):
    cfg, shares = ObjectiveConfig(mask_ratio=ratio), np.array([ratio])
    for index in range(50):
        most = int(max_spans(np.array([n]), cfg, shares)[0])
        draws = uniform_draws(np.array(index), np.arange(most), 0, "t")
        lengths = draw_lengths(draws, n, cfg, budget=int(span_budget(np.array([n]), shares)[0]))
        places = np.random.default_rng(index).random(10_000).tolist()
        spans = place_spans(lengths, n, places)
        assert len(lengths) >= 1
        assert spans[0, 0] >= 0
        assert spans[-1, 1] <= n
        assert (spans[1:, 0] > spans[:-1, 1]).all()


def test_spans_reach_the_first_and_the_last_token():
    spans = placed_many(np.full(2000, 20), SHORT).spans
    assert spans.min() == 0
    assert spans.max() == 20


def test_the_masked_share_overshoots_the_ratio_by_less_than_a_span():
    drawn = drawn_many(np.full(2000, 400), SHORT)
    masked = np.add.reduceat(drawn.lengths, drawn.first[:-1])
    assert masked.min() >= 60
    assert masked.max() < 60 + 39
    assert masked.mean() == pytest.approx(60 + 1.5, abs=0.5)  # half a size-biased span, less one


def test_the_ratio_of_documents_is_uniform_up_to_twice_its_mean():
    cfg = ObjectiveConfig(short_rate=1.0, document_rate=0.0, length_law="fixed", mean_span_length=1)
    masked = np.diff(drawn_many(np.full(12_000, 400), cfg).first)  # one token each, of 0 to 119
    # Budgets 0 and 1 are one; in 6 bins of 20 counts: 5 degrees of freedom, 99.99 % quantile 25.7.
    assert masked.max() == 119
    assert chi_square(np.bincount(masked // 20, minlength=6), [2000] * 6) < 25.7


def test_a_single_span_comes_at_its_rate():
    cfg = ObjectiveConfig(
        short_rate=1.0, document_rate=0.0, single_span_rate=0.25, ratio_law="fixed"
    )
    counts = np.diff(drawn_many(np.full(8000, 400), cfg).first)
    # Four standard errors of a share of 1/4 in 8,000 are 0.019.
    assert (counts == 1).mean() == pytest.approx(0.25, abs=0.019)


def test_document_blanks_are_uniform_over_their_share():
    # Lengths 2..10 of 10 tokens, 9 values; 8 degrees of freedom, 99.99 % quantile 31.8.
    counts = np.bincount(drawn_many(np.full(9000, 10), LONG, 1).lengths, minlength=11)[2:]
    assert chi_square(counts, [1000] * 9) < 31.8


def test_a_blank_in_the_middle_is_uniform_over_its_places_and_ends():
    cfg = ObjectiveConfig(
        short_rate=0.0, document_rate=1.0, infill_rate=1.0, min_document_share=0.5,
        max_document_share=0.5, document_end="none",
    )  # fmt: skip
    drawn = drawn_many(np.full(6000, 10), cfg, 1)
    assert chi_square(np.bincount(drawn.starts, minlength=6), [1000] * 6) < 25.7
    assert np.array_equal(drawn.ends == End.NONE, drawn.starts == 5)


@pytest.mark.parametrize(("rule", "end"), [("eop", End.EOP), ("eos", End.EOS), ("none", End.NONE)])
def test_a_document_blank_ends_only_where_its_text_ends(rule, end):
    cfg = ObjectiveConfig(short_rate=0.0, document_rate=1.0, document_end=rule)
    assert drawn_many([10], cfg, last=True).ends.tolist() == [end]
    assert drawn_many([10], cfg, last=False).ends.tolist() == [End.NONE]


def test_an_example_is_a_function_of_its_address_and_epochs_differ():
    tokens = np.arange(100, 200, dtype=np.int32)

    def draw(epoch, index):
        example = draw_example(tokens, ObjectiveConfig(), IDS, seed=1, epoch=epoch, index=index)
        return example.tokens.tolist()

    assert draw(0, 5) == draw(0, 5)
    assert draw(0, 5) != draw(1, 5)
    assert draw(0, 5) != draw(0, 6)


@pytest.mark.parametrize("row_length", [16, 64, 256, 512, 2048])
def test_the_longest_piece_fits_a_row_whatever_is_drawn(row_length):
    longest = longest_piece(row_length, SHORT)
    assert drawn_many(np.full(3000, longest), SHORT).example_lengths.max() <= row_length
    assert longest >= 0.7 * row_length - 8
