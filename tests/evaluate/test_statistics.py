"""Standard errors of scores, held to the textbook and to repeated draws."""

import numpy as np
import pytest

from blankfill.evaluate.statistics import ratio_of_sums


def test_one_blank_a_document_is_the_textbook_error_of_a_mean():
    values = np.random.default_rng(0).normal(size=50)
    found = ratio_of_sums(values, np.ones(50), [str(i) for i in range(50)])
    assert found.value == pytest.approx(values.mean())
    assert found.standard_error == pytest.approx(values.std(ddof=1) / np.sqrt(50))


def test_blanks_that_say_the_same_are_worth_one():
    values = np.random.default_rng(0).normal(size=50)
    alone = ratio_of_sums(values, np.ones(50), [str(i) for i in range(50)])
    copied = ratio_of_sums(np.repeat(values, 7), np.ones(350), [str(i // 7) for i in range(350)])
    assert copied.value == pytest.approx(alone.value)
    assert copied.standard_error == pytest.approx(alone.standard_error)


def test_one_document_has_no_error_and_a_constant_has_none_to_speak_of():
    assert ratio_of_sums([1.0, 2.0], [1, 1], ["a", "a"]).standard_error is None
    assert ratio_of_sums([2.0, 4.0, 6.0], [1, 2, 3], ["a", "b", "c"]).standard_error == 0


def draw(rng, documents):
    """Nats and characters of blanks whose documents differ: several in some, few in others."""
    sizes = rng.integers(1, 6, documents)
    owner = np.repeat(np.arange(documents), sizes)
    characters = rng.integers(3, 30, len(owner))
    difficulty = rng.gamma(4, 0.25, documents)[owner]
    nats = characters * difficulty * rng.gamma(8, 1 / 8, len(owner))
    exact = rng.random(len(owner)) < rng.beta(2, 3, documents)[owner]
    return nats, characters, exact, owner.astype(str)


@pytest.mark.parametrize("score", ["nats per character", "exact"])
def test_the_error_is_the_spread_of_repeated_draws_and_its_interval_covers(score):
    rng = np.random.default_rng(1)
    found = []
    for _ in range(2000):
        nats, characters, exact, owner = draw(rng, 120)
        exact_sizes = np.ones(len(exact))
        found.append(
            ratio_of_sums(nats, characters, owner) if score == "nats per character"
            else ratio_of_sums(exact, exact_sizes, owner)
        )  # fmt: skip
    values = np.array([one.value for one in found])
    errors = np.array([one.standard_error for one in found])
    truth = 1.0 if score == "nats per character" else 0.4
    # 2,000 draws know their own spread to 1.6 %, and a share of 95 % to 0.5 points.
    assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(), rel=0.05)
    assert 0.93 <= (abs(values - truth) < 1.96 * errors).mean() <= 0.97


def test_ignoring_the_documents_would_be_too_sure():
    rng = np.random.default_rng(2)
    nats, characters, _, owner = draw(rng, 400)
    each = [str(i) for i in range(len(owner))]
    ours, naive = (ratio_of_sums(nats, characters, by).standard_error for by in (owner, each))
    assert ours > 1.2 * naive
