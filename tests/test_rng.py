import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blankfill.rng import generator, permute


def test_equal_addresses_give_equal_draws():
    a, b = generator(3, "spans", 1, 17), generator(3, "spans", 1, 17)
    assert (a.integers(0, 2**62, 8) == b.integers(0, 2**62, 8)).all()


@pytest.mark.parametrize(
    "other", [(4, "spans", 1, 17), (3, "order", 1, 17), (3, "spans", 11, 7), (3, "spans", 1, 18)]
)
def test_another_address_gives_other_draws(other):
    first = generator(3, "spans", 1, 17).integers(0, 2**62, 8)
    assert (first != generator(*other).integers(0, 2**62, 8)).all()


def test_the_number_1_and_the_text_1_are_different_addresses():
    assert generator(0, 1).integers(2**62) != generator(0, "1").integers(2**62)


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 3000), seed=st.integers(0, 2**40), epoch=st.integers(0, 5))
def test_permute_is_a_bijection(size, seed, epoch):
    out = permute(np.arange(size), size, seed, "order", epoch)
    assert (np.sort(out) == np.arange(size)).all()


def test_permute_answers_for_one_index_what_it_answers_for_all():
    size = 12_345
    whole = permute(np.arange(size), size, 7, "order", 0)
    picked = np.array([0, 1, 777, size - 1])
    assert (permute(picked, size, 7, "order", 0) == whole[picked]).all()


def test_permute_spreads_neighbours_evenly():
    # Chi-square of where the first tenth of the indices lands, in ten bins: 9 degrees of freedom,
    # 99.99 % quantile 33.7.
    size = 100_000
    landed = permute(np.arange(size // 10), size, 5, "order", 3)
    counts = np.bincount(landed * 10 // size, minlength=10)
    assert ((counts - 1000) ** 2 / 1000).sum() < 33.7


def test_permute_of_nothing_is_nothing():
    assert permute(np.array([], dtype=np.int64), 5, 0).size == 0
