"""What `explain` says about texts and stores."""

import numpy as np
import pytest

from blankfill.api.explain import explain
from blankfill.cli.explain import print_explain
from blankfill.config.objective import MIXTURES
from blankfill.data.store_writer import StoreWriter
from blankfill.errors import ConfigError, DataError, RequestError

FOX = "The quick brown fox jumps over the lazy dog."
TWO = "The fox runs. The dog sleeps."


@pytest.fixture(scope="module")
def store(tmp_path_factory, tokenizer_folder):
    """A store of documents of all sizes, every ninth token the end of a sentence."""
    path = tmp_path_factory.mktemp("explain") / "store"
    rng = np.random.default_rng(0)
    with StoreWriter(
        path, vocab_size=300, tokenizer_fingerprint="f", tokenizer=tokenizer_folder
    ) as writer:
        for n in rng.geometric(1 / 60, 300):
            ends = np.unique(np.append(np.arange(9, n, 9), n))
            writer.add(rng.integers(100, 200, n), 1, sentence_ends=ends)
        writer.finish()
    return path


def test_compare_puts_the_articles_numbers_beside_the_papers():
    result = explain(FOX, spans=("2:4",), compare=True)
    assert [row.token for row in result.tokens[8:]] == ["[S]", "brown", "fox"]
    part_b = {name: [ids[8:] for ids in both] for name, both in result.compare.items()}
    assert part_b["corrupted"] == [[2, 2, 2], [1, 2, 3]]
    assert part_b["original"] == [[2, 2, 3], [0, 0, 1]]
    assert part_b["linear"] == [[2, 2, 2], [0, 0, 0]]


def test_the_draw_is_named_and_repeatable():
    first, again = explain(FOX, seed=4), explain(FOX, seed=4)
    assert first == again
    assert first.draw.seed == 4
    assert first.draw.lengths == [b - a for a, b in first.spans]


def test_sentences_of_a_text_can_be_drawn():
    result = explain(TWO, kind="sentence")
    assert result.kind == "sentence"
    assert result.spans in ([[0, 3]], [[3, 6]])
    assert "[sMASK]" in [row.token for row in result.tokens]
    one = explain(FOX, kind="sentence")
    assert (one.kind, one.draw.drawn_kind) == ("short", "sentence")


@pytest.mark.parametrize("mixture", MIXTURES)
def test_an_epoch_of_a_store_loses_nothing(store, mixture):
    found = explain(data=store, stats=True, mixture=mixture, row_length=256).statistics
    assert found.lost == 0
    assert found.tokens == found.tokens_in_stores
    assert found.targets == found.masked_tokens + found.ends
    assert sum(found.kinds.values()) == pytest.approx(1)
    assert 0.9 < found.fill <= 1


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_both_languages_print(store, lang, capsys):
    from rich.console import Console

    for result in (
        explain(FOX, lang=lang, compare=True),
        explain(data=store, index=3, lang=lang),
        explain(data=store, stats=True, lang=lang),
    ):
        print_explain(result, Console(width=120))
    out = capsys.readouterr().out
    assert ("丢失：0" in out) == (lang == "zh")


def test_what_cannot_be_explained_is_named(store):
    with pytest.raises(ConfigError, match="mixture 'x'"):
        explain(FOX, mixture="x")
    with pytest.raises(RequestError, match="--stats"):
        explain(FOX, stats=True)
    with pytest.raises(DataError, match="documents 0 to 299"):
        explain(data=store, index=300)


@pytest.mark.parametrize("options", [{}, {"kind": "document"}, {"spans": ("2:4",)}])
@pytest.mark.parametrize("mixture", MIXTURES)
def test_positions_are_the_mixtures_own_unless_they_are_given(mixture, options):
    own = MIXTURES[mixture].positions
    found = explain(FOX, mixture=mixture, **options)
    assert found.positions == own
    for scheme in ("corrupted", "linear", "original"):
        given = explain(FOX, mixture=mixture, positions=scheme, **options)
        assert given.positions == scheme
        assert (given.tokens == found.tokens) == (scheme == own)


def test_the_positions_of_a_whole_store_are_the_mixtures_own(store):
    assert explain(data=store, stats=True, mixture="glm-130b").positions == "linear"
    assert explain(data=store, stats=True).positions == "corrupted"


def test_a_draw_may_have_any_seed_and_any_epoch(store):
    for options in ({"seed": 2**64 - 1}, {"epoch": 10**12}, {"index": 299}):
        assert explain(data=store, **options).tokens
    assert explain(data=store, stats=True, row_length=16).statistics
    with pytest.raises(DataError, match="documents 0 to 299, not 1000000000000"):
        explain(data=store, index=10**12)
