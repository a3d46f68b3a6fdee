"""Vocabulary and preset by text and minutes: the table at its borders, and what overrules it."""

import pytest

from blankfill.config.choice import (
    BYTES_PER_ID,
    LEAST_BYTES,
    PRESETS,
    VOCABULARIES,
    choose,
    size_of,
)
from blankfill.config.presets import is_preset


def chosen(num_bytes, minutes, *, least_ids=400, on_gpu=False, **named):
    return choose(num_bytes, minutes, least_ids=least_ids, on_gpu=on_gpu, **named)


@pytest.mark.parametrize("ids", VOCABULARIES)
def test_a_vocabulary_is_taken_from_its_text_on(ids):
    assert chosen(BYTES_PER_ID * ids, 5.0).vocab_size == ids
    assert chosen(BYTES_PER_ID * ids - 1, 5.0).vocab_size < ids
    assert chosen(10**12, 0.1).vocab_size == max(VOCABULARIES)


def test_the_runs_that_the_rule_is_made_of_get_what_they_had():
    assert chosen(6_459_345, 5.0).vocab_size == 2_048  # the demo
    real = chosen(78_500_000, 90.0)  # the run on a real corpus
    assert (real.vocab_size, real.preset) == (16_384, "tiny")


@pytest.mark.parametrize(
    ("num_bytes", "minutes", "on_gpu", "name"),
    [
        (78_000_000, 299.0, False, "tiny"),
        (78_000_000, 300.0, False, "small"),
        (49_000_000, 300.0, False, "tiny"),
        (78_000_000, 5.0, True, "small"),
        (78_000_000, 4.0, True, "tiny"),
        (LEAST_BYTES, 0.1, False, "tiny"),
    ],
)
def test_a_preset_is_taken_from_its_text_and_its_minutes_on(num_bytes, minutes, on_gpu, name):
    assert chosen(num_bytes, minutes, on_gpu=on_gpu).preset == name


def test_every_preset_of_the_table_is_one():
    assert all(is_preset(entry.name) for entry in PRESETS)


@pytest.mark.parametrize(("least_ids", "ids"), [(400, 1_024), (1_700, 4_096), (20_000, 25_000)])
def test_a_vocabulary_has_room_for_words_beside_its_characters(least_ids, ids):
    found = chosen(300_000, 60.0, least_ids=least_ids)
    assert found.vocab_size == ids
    assert ("single characters" in found.why_vocabulary) == (least_ids > 1_000)


def test_what_is_named_is_taken():
    found = chosen(10**6, 1.0, vocab_size=777, preset="base")
    assert (found.vocab_size, found.preset) == (777, "base")
    assert found.why_vocabulary == found.why_preset == "as you said"


@pytest.mark.parametrize("num_bytes", [LEAST_BYTES, 7 * 10**6, 30 * 10**6, 10**9])
@pytest.mark.parametrize("minutes", [0.1, 5.0, 60.0, 600.0])
def test_every_choice_has_a_reason_of_one_short_line(num_bytes, minutes):
    found = chosen(num_bytes, minutes)
    for why in (found.why_vocabulary, found.why_preset):
        assert 0 < len(why) <= 45
        assert "\n" not in why


@pytest.mark.parametrize(
    ("num_bytes", "said"),
    [(1, "1 bytes"), (1_000, "1 kB"), (78_500_000, "78.5 MB"), (2_340_000_000, "2.34 GB")],
)
def test_sizes_in_words(num_bytes, said):
    assert size_of(num_bytes) == said
