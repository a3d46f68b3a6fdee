import json

import numpy as np
import pytest

from blankfill.config.objective import ObjectiveConfig
from blankfill.objective.sample import draw_example, draw_many, longest_piece
from blankfill.objective.spans import (
    draw_lengths,
    length_law,
    max_spans,
    place_spans,
    uniform_draws,
)
from blankfill.objective.special import SpecialIds
from blankfill.rng import generator
from shared import shared_path

IDS = SpecialIds(pad=0, mask=1, smask=2, gmask=3, sop=4, eop=5, eos=6, dblock=7)


def chi_square(counts, expected):
    expected = np.asarray(expected, float)
    return float(((counts - expected) ** 2 / expected).sum())


def test_the_length_law_is_the_released_one():
    weights = json.loads(shared_path("reference/golden/span_statistics.json").read_text())
    found = np.array(next(v for k, v in weights.items() if k.startswith("block_length_weights")))
    assert length_law() == pytest.approx(found / found.sum(), rel=1e-12)


def test_drawn_lengths_follow_the_law():
    # 200,000 draws over lengths 1..8 and more: 8 degrees of freedom, 99.99 % quantile 31.8.
    draws = uniform_draws(np.arange(2000), 100, 5, "test").reshape(-1)
    lengths = np.concatenate([draw_lengths(draws[i : i + 100], 10**6, 0.9) for i in
                              range(0, len(draws), 100)])  # fmt: skip
    law = length_law()
    counts = np.bincount(np.minimum(lengths, 9), minlength=10)[1:]
    expected = np.append(law[:8], law[8:].sum()) * len(lengths)
    assert chi_square(counts, expected) < 31.8


def test_a_sampler_that_is_off_by_one_is_caught():
    draws = uniform_draws(np.arange(2000), 100, 5, "test").reshape(-1)
    wrong = 1 + np.minimum(7, (draws * 8).astype(int))
    law = length_law()
    expected = np.append(law[:8], law[8:].sum()) * len(wrong)
    assert chi_square(np.bincount(wrong, minlength=10)[1:10], expected) > 31.8


def test_placements_are_uniform_over_all_that_leave_a_gap():
    # Spans of 2 and 1 in 7 tokens: C(5, 2) = 10 placements; 20,000 draws; 9 degrees of freedom.
    seen = {}
    for i in range(20_000):
        spans = place_spans(np.array([2, 1]), 7, generator(0, "test", i))
        key = tuple(spans[:, 0].tolist())
        seen[key] = seen.get(key, 0) + 1
    assert len(seen) == 10
    assert all(b >= a + 3 for a, b in seen)
    assert chi_square(np.array(list(seen.values())), [2000] * 10) < 33.7


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 20, 300])
@pytest.mark.parametrize("ratio", [0.01, 0.15, 0.5, 1.0])
def test_spans_fit_and_leave_a_token_between_them(n, ratio):
    for index in range(50):
        most = int(max_spans(np.array([n]), ratio)[0])
        lengths = draw_lengths(uniform_draws(np.array([index]), most, 0, "t")[0], n, ratio)
        spans = place_spans(lengths, n, generator(0, "t", index))
        assert len(lengths) >= 1
        assert spans[0, 0] >= 0
        assert spans[-1, 1] <= n
        assert (spans[1:, 0] > spans[:-1, 1]).all()


def test_the_masked_share_overshoots_the_ratio_by_less_than_a_span():
    cfg = ObjectiveConfig(short_rate=1.0, document_rate=0.0)
    n = np.full(2000, 400)
    draws = draw_many(n, np.ones(2000, bool), np.arange(2000), cfg, seed=0, epoch=0)
    masked = np.array([d.lengths.sum() for d in draws])
    assert masked.min() >= 60
    assert masked.max() < 60 + 39
    assert masked.mean() == pytest.approx(60 + 1.5, abs=0.5)  # half a size-biased span, less one


def test_document_blanks_are_uniform_over_their_share():
    # Lengths 2..10 of 10 tokens, 9 values; 8 degrees of freedom, 99.99 % quantile 31.8.
    cfg = ObjectiveConfig(short_rate=0.0, document_rate=1.0)
    n = np.full(9000, 10)
    draws = draw_many(n, np.ones(9000, bool), np.arange(9000), cfg, seed=1, epoch=0)
    counts = np.bincount([int(d.lengths[0]) for d in draws], minlength=11)[2:]
    assert chi_square(counts, [1000] * 9) < 31.8


def test_a_document_blank_ends_only_where_its_text_ends():
    cfg = ObjectiveConfig(short_rate=0.0, document_rate=1.0)
    n, last = np.full(2, 10), np.array([True, False])
    assert [d.ends for d in draw_many(n, last, np.arange(2), cfg, seed=0, epoch=0)] == [True, False]


def test_an_example_is_a_function_of_its_address_and_epochs_differ():
    tokens = np.arange(100, 200, dtype=np.int32)
    cfg = ObjectiveConfig()

    def draw(epoch, index):
        return draw_example(tokens, cfg, IDS, seed=1, epoch=epoch, index=index).tokens.tolist()

    assert draw(0, 5) == draw(0, 5)
    assert draw(0, 5) != draw(1, 5)
    assert draw(0, 5) != draw(0, 6)


@pytest.mark.parametrize("row_length", [16, 64, 256, 512, 2048])
def test_the_longest_piece_fits_a_row_whatever_is_drawn(row_length):
    cfg = ObjectiveConfig(short_rate=1.0, document_rate=0.0)
    longest = longest_piece(row_length, cfg)
    n = np.full(3000, longest)
    draws = draw_many(n, np.ones(3000, bool), np.arange(3000), cfg, seed=0, epoch=0)
    assert max(d.example_length(longest) for d in draws) <= row_length
    assert longest >= 0.7 * row_length - 8
