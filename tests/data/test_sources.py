"""Pairs, objectives by source, and sentinels, through the rows that training sees."""

import dataclasses
import json

import numpy as np
import pytest

from blankfill.api.data import data_build, data_info, data_show
from blankfill.config.objective import MIXTURES, ObjectiveConfig
from blankfill.data.rows import RowSource
from blankfill.data.statistics import epoch_statistics
from blankfill.data.store import TokenStore
from blankfill.errors import ConfigError
from blankfill.objective.batch import IGNORE_INDEX, Kind
from blankfill.objective.spans import pin_probability
from conftest import MemoryStore


def pair_store(lengths, prompts):
    """Documents of ascending ids; those with a prompt of 0 or more are pairs."""
    first = np.cumsum([8, *lengths])
    documents = [np.arange(a, a + n) for a, n in zip(first, lengths, strict=False)]
    return MemoryStore(documents, prompts=prompts)


def examples(batch):
    """Part A and targets of each example by document."""
    found = {}
    for (row, start, part_b, end), document in zip(batch.blocks, batch.documents, strict=True):
        targets = batch.targets[row, part_b:end].tolist()
        found[int(document)] = (batch.tokens[row, start:part_b].tolist(), targets)
    return found


def test_the_answer_of_a_pair_is_its_only_blank(ids):
    store = pair_store([10, 40, 7], [6, -1, 0])
    batch = RowSource([store], ObjectiveConfig(), ids, row_length=128, seed=0).rows(0, 1)
    found = examples(batch)
    assert found[0] == ([*range(8, 14), ids.mask], [*range(14, 18), ids.eop])
    assert found[2] == ([ids.mask], [*range(58, 65), ids.eop])
    kinds = dict(zip(batch.documents.tolist(), batch.kinds.tolist(), strict=True))
    assert kinds[0] == kinds[2] == Kind.PAIR
    assert kinds[1] != Kind.PAIR


@pytest.mark.parametrize(
    ("prompt", "answer", "kept"),
    [
        (100, 50, (100, 50)),  # fits
        (254, 256, (254, 256)),  # just fits a row of 512
        (300, 256, (254, 256)),  # the text gives way
        (300, 400, (128, 382)),  # to 128 tokens, then the answer does
        (100, 600, (100, 410)),  # a short text is kept whole
    ],
)
def test_long_pairs_are_shortened_by_the_released_rule(ids, prompt, answer, kept):
    store = pair_store([prompt + answer], [prompt])
    batch = RowSource([store], ObjectiveConfig(), ids, row_length=512, seed=0).rows(0, 1)
    part_a, targets = examples(batch)[0]
    assert part_a == [*range(8, 8 + kept[0]), ids.mask]
    assert targets == [*range(8 + prompt, 8 + prompt + kept[1]), ids.eop]
    counted = epoch_statistics([store], ObjectiveConfig(), ids, row_length=512)
    assert counted.lost == 0
    assert counted.tokens_in_stores - counted.tokens == prompt + answer - sum(kept)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        # GLM-130B's ids of "text text text [MASK] [S] a b c" (LargeScale `collator.py`).
        ("straight", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("unified", [0, 1, 2, 3, 3, 4, 5, 6]),
    ],
)
def test_a_pair_is_numbered_by_its_rule(ids, rule, expected):
    cfg = ObjectiveConfig(positions="linear", pair_positions=rule)
    batch = RowSource([pair_store([6], [3])], cfg, ids, row_length=16, seed=0).rows(0, 1)
    assert batch.positions[0, 0, :8].tolist() == expected


def test_adaptive_pairs_pin_short_answers_and_unify_long_ones(ids):
    cfg = ObjectiveConfig(positions="linear", pair_positions="adaptive")
    answers = [1, 5, 12]
    lengths = np.repeat(3 + np.array(answers), 800)
    store = pair_store(lengths, np.full(len(lengths), 3))
    rows = RowSource([store], cfg, ids, row_length=32, seed=0)
    batch = rows.rows(0, rows.num_rows(0))
    for answer in answers:
        chosen = lengths[batch.documents] == 3 + answer
        last = [batch.positions[r, 0, end - 1] for r, _, _, end in batch.blocks[chosen]]
        first = [batch.positions[r, 0, part_b] for r, _, part_b, _ in batch.blocks[chosen]]
        offsets = {int(b) - int(a) for a, b in zip(first, last, strict=True)}
        assert offsets <= {0, answer}
        share = np.mean(np.array(first) == np.array(last))
        law = float(pin_probability(np.array([answer]))[0])
        # 800 draws: five standard deviations of a share.
        assert abs(share - law) < 5 * np.sqrt(law * (1 - law) / 800) + 1e-9
    # 1 - CDF of a Poisson law of mean 5, from a table of it.
    expected = [0.959572, 0.384039, 0.002019]
    assert pin_probability(np.array(answers)).tolist() == pytest.approx(expected, abs=5e-7)


def test_pairs_come_from_json_and_go_back_to_text(tokenizer_folder, tmp_path):
    lines = [
        {"text": "the old fox reads", "summary": "a young dog"},
        {"text": "the river"},
        {"text": "\u4eba\u5c71\u6c34", "summary": "\u706b"},
        {"text": "the town", "summary": 3},
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    built = data_build(
        [path], tokenizer=tokenizer_folder, out=tmp_path / "s", answer_field="summary"
    )
    assert built.num_skipped == 1
    assert data_info(tmp_path / "s", verify=True).pairs == 2
    shown = data_show(tmp_path / "s", count=3).documents
    assert [(d.text, d.answer) for d in shown] == [
        ("the old fox reads", "a young dog"), ("the river", None),
        ("\u4eba\u5c71\u6c34", "\u706b"),
    ]  # fmt: skip
    store = TokenStore.open(tmp_path / "s")
    assert store.has_pairs
    assert store.prompts_of(np.array([1])).tolist() == [-1]


def test_each_source_has_its_own_mixture(ids, random_store):
    stores = [random_store([60] * 400), random_store([60] * 400, seed=1)]
    cfg = ObjectiveConfig(
        short_rate=0.0, document_rate=1.0, by_source=("", "glm-base"), positions="linear"
    )
    rows = RowSource(stores, cfg, ids, row_length=128, seed=0)
    batch = rows.rows(0, rows.num_rows(0))
    assert set(batch.kinds[batch.sources == 0]) == {Kind.DOCUMENT}
    assert set(batch.kinds[batch.sources == 1]) == {Kind.SHORT}
    # What a store's documents become does not depend on the other stores' mixtures.
    alone = dataclasses.replace(MIXTURES["glm-base"], positions="linear")
    same = RowSource(stores, alone, ids, row_length=128, seed=0)
    other = same.rows(0, same.num_rows(0))

    def second(batch):
        return sorted(
            (int(d), batch.targets[r, a:b].tolist(), batch.positions[r, :, a:b].tolist())
            for (r, a, _, b), d, s in zip(batch.blocks, batch.documents, batch.sources, strict=True)
            if s == 1
        )

    assert second(batch) == second(other)


def test_sources_must_be_named_once_each(ids, random_store):
    with pytest.raises(ConfigError, match="2 mixtures for 1 token stores"):
        RowSource(
            [random_store([9])], ObjectiveConfig(by_source=("", "ours")), ids, row_length=64,
            seed=0,
        )  # fmt: skip
    with pytest.raises(ConfigError, match="none of: ours"):
        ObjectiveConfig(by_source=("theirs",))


def test_spans_have_sentinels_of_their_own(random_store, ids):
    named = dataclasses.replace(ids, mask_sentinels=(200, 201), sop_sentinels=(210, 211))
    cfg = ObjectiveConfig(short_rate=1.0, document_rate=0.0, mask_ratio=0.4, sentinels=3)
    rows = RowSource([random_store([60] * 50)], cfg, named, row_length=128, seed=0)
    batch = rows.rows(0, rows.num_rows(0))
    seen = set()
    for row, start, part_b, end in batch.blocks:
        part_a, inputs = batch.tokens[row, start:part_b], batch.tokens[row, part_b:end]
        masks = [t for t in part_a.tolist() if t in (ids.mask, 200, 201)]
        sops = [t for t in inputs.tolist() if t in (ids.sop, 210, 211)]
        assert sops == [ids.sop, 210, 211][: len(sops)]
        assert sorted(masks) == [ids.mask, 200, 201][: len(sops)]
        assert (batch.positions[row, 0, part_b:end] == 128).all()
        assert (batch.targets[row, part_b:end] != IGNORE_INDEX).all()
        seen.add(len(sops))
    assert max(seen) == 3
    with pytest.raises(ConfigError, match="this one has 2"):
        RowSource(
            [random_store([9])], dataclasses.replace(cfg, sentinels=4), named, row_length=64,
            seed=0,
        )  # fmt: skip
