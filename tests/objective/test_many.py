"""The vector path against the plain one, and both against the laws."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blankfill.config.objective import MIXTURES, ObjectiveConfig
from blankfill.objective import IGNORE_INDEX, End, Kind, SpecialIds, draw_example, restore
from blankfill.objective.batch import Batch
from blankfill.objective.build import build_rows
from blankfill.objective.drawn import join
from blankfill.objective.many import draw_many, place_many
from blankfill.objective.pack import pack, stack
from blankfill.objective.sample import drawn_kind

IDS = SpecialIds(
    pad=0, mask=1, smask=2, gmask=3, sop=4, eop=5, eos=6, dblock=7,
    mask_sentinels=(200, 201, 202), sop_sentinels=(300, 301, 302),
)  # fmt: skip
FRAMED = dataclasses.replace(IDS, opening=45)
ROW = 128


def prompt_of(length, number):
    """Every fifth document is a pair: tokens before its answer, 0 included; -1 is plain text."""
    return number * 7 % length if number % 5 == 4 else -1


def sentence_ends(length, number):
    cut = np.random.default_rng(number).integers(1, length + 1, length // 9)
    return np.unique(np.append(cut, length)).astype(np.int64)


def plain(documents, last, rows, cfg, seed, epoch, ids=IDS):
    examples = [
        draw_example(
            tokens, cfg, ids, seed=seed, epoch=epoch, index=i, is_last=bool(last[i]),
            sentence_ends=sentence_ends(len(tokens), i), row_length=ROW,
            prompt=None if prompt_of(len(tokens), i) < 0 else prompt_of(len(tokens), i),
        )
        for i, tokens in enumerate(documents)
    ]  # fmt: skip
    order = [i for row in rows for i in row]
    batch = stack(
        [[examples[i] for i in row] for row in rows], ROW, pad=IDS.pad, documents=order,
        languages=[0] * len(order), sources=[0] * len(order),
    )  # fmt: skip
    if cfg.loss_weights == "row":
        per_row = (batch.targets != IGNORE_INDEX).sum(1, keepdims=True)
        batch = dataclasses.replace(batch, weights=(batch.weights / per_row).astype(np.float32))
    return examples, batch


def vector(documents, last, rows, cfg, seed, epoch, groups=1, ids=IDS):
    lengths = np.array([len(d) for d in documents])
    numbers = np.arange(len(documents))

    def sentences(selection):
        ends = [sentence_ends(int(lengths[i]), int(i)) for i in selection]
        return np.cumsum([0, *map(len, ends)]), np.concatenate(ends)

    drawn = draw_many(
        lengths, last, numbers, cfg, seed=seed, epoch=epoch, sentences=sentences,
        prompts=np.array([prompt_of(int(n), i) for i, n in enumerate(lengths)]),
        framed=ids.opening is not None,
    )  # fmt: skip
    order = np.array([i for row in rows for i in row])
    parts = [p for p in np.array_split(order, groups) if len(p)]
    placed = join(
        [
            place_many(some, cfg, seed=seed, epoch=epoch, row_length=ROW)
            for some in map(drawn.take, parts)
        ]
    )
    texts = np.concatenate([documents[i] for i in order]).astype(np.int32)
    return drawn, build_rows(
        texts, placed, np.repeat(np.arange(len(rows)), [len(r) for r in rows]), cfg, ids,
        row_length=ROW,        documents=order, languages=np.zeros(len(order), np.uint8),
        sources=np.zeros(len(order), np.int32),
    )  # fmt: skip


def assert_equal(a: Batch, b: Batch):
    for field in dataclasses.fields(Batch):
        x, y = getattr(a, field.name), getattr(b, field.name)
        assert x.dtype == y.dtype, field.name
        assert np.array_equal(x, y), field.name


OPTIONS = {
    "default": {},
    "linear": {"positions": "linear", "random_offset": True},
    "original": {"positions": "original", "short_rate": 0.4, "document_rate": 0.6},
    "released": {"placement": "released", "single_span_rate": 0.3, "block_dropout": 0.3},
    "every kind": {
        "short_rate": 0.25, "sentence_rate": 0.25, "document_rate": 0.25, "causal_rate": 0.25,
        "infill_rate": 0.5, "document_end": "eos", "loss_weights": "row",
    },
    "fixed ratio": {"ratio_law": "fixed"},
    "dense": {"mask_ratio": 0.9, "short_rate": 1.0, "document_rate": 0.0, "shuffle_spans": False},
    "ratio 0": {"mask_ratio": 0.0, "loss_weights": "kind", "short_weight": 0.5},
    "ratio 1": {"mask_ratio": 1.0, "document_end": "none"},
    "geometric": {"length_law": "geometric", "mean_span_length": 5.0},
    "uniform": {"length_law": "uniform", "mean_span_length": 4.0, "max_document_share": 0.5},
    "fixed": {"length_law": "fixed", "mean_span_length": 2.0},
    "unified pairs": {"positions": "linear", "pair_positions": "unified", "pair_weight": 0.5},
    "adaptive pairs": {"positions": "linear", "pair_positions": "adaptive"},
    "sentinels": {"sentinels": 4, "short_rate": 1.0, "document_rate": 0.0, "mask_ratio": 0.4},
}  # fmt: skip
CONFIGS = {name: ObjectiveConfig(**options) for name, options in OPTIONS.items()} | MIXTURES


@pytest.mark.parametrize("ids", [IDS, FRAMED], ids=["bare", "framed"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_vector_path_draws_and_builds_what_the_plain_one_does(name, ids):
    cfg = CONFIGS[name]
    rng = np.random.default_rng(3)
    sizes = np.append(np.minimum(1 + rng.geometric(1 / 20, 150), 80), [1, 1, 2, 3, 4, 80])
    # Ids run through those of the special tokens, as those of a user's corpus may.
    documents = [rng.integers(0, 40, n).astype(np.int32) for n in sizes]
    last = rng.random(len(sizes)) < 0.7
    drawn, _ = vector(documents, last, [[0]], cfg, 11, 2, ids=ids)
    lengths = drawn.example_lengths
    for i in range(len(sizes)):
        if drawn.kinds[i] != Kind.PAIR:
            wanted = drawn_kind(cfg, seed=11, epoch=2, index=i)
            assert drawn.drawn_kinds[i] == wanted
    fitting = np.flatnonzero(lengths <= ROW)
    rows = [[int(fitting[k]) for k in r] for r in pack(lengths[fitting], ROW)]
    examples, wanted = plain(documents, last, rows, cfg, 11, 2, ids)
    for groups in (1, 3):
        assert_equal(vector(documents, last, rows, cfg, 11, 2, groups, ids)[1], wanted)
    for i, (tokens, example) in enumerate(zip(documents, examples, strict=True)):
        assert len(example.tokens) == lengths[i]
        back = restore(example).tolist()
        if ids.opening is not None:
            is_open = example.tokens[example.part_b_start - 1] == ids.gmask
            is_open &= example.kind in (Kind.DOCUMENT, Kind.CAUSAL)
            assert back.pop(0) == ids.opening
            assert is_open or back.pop() == ids.eos
        assert back == tokens.tolist()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_objective_and_documents_agree_and_restore(data):
    rates = data.draw(st.lists(st.integers(0, 4), min_size=4, max_size=4).filter(sum))
    total = sum(rates)
    cfg = ObjectiveConfig(
        short_rate=rates[0] / total, sentence_rate=rates[1] / total,
        document_rate=rates[2] / total, causal_rate=rates[3] / total,
        mask_ratio=data.draw(st.sampled_from([0.0, 0.05, 0.15, 0.5, 1.0])),
        ratio_law=data.draw(st.sampled_from(["fixed", "uniform"])),
        length_law=data.draw(st.sampled_from(["poisson", "fixed", "geometric", "uniform"])),
        mean_span_length=data.draw(st.sampled_from([1.0, 3.0, 12.0])),
        single_span_rate=data.draw(st.sampled_from([0.0, 0.5])),
        placement=data.draw(st.sampled_from(["uniform", "released"])),
        shuffle_spans=data.draw(st.booleans()),
        block_dropout=data.draw(st.sampled_from([0.0, 0.2])),
        infill_rate=data.draw(st.sampled_from([0.0, 0.5])),
        document_end=data.draw(st.sampled_from(["eop", "eos", "none"])),
        positions=data.draw(st.sampled_from(["corrupted", "linear", "original"])),
        random_offset=data.draw(st.booleans()),
        loss_weights=data.draw(st.sampled_from(["token", "row", "kind"])),
        pair_positions=data.draw(st.sampled_from(["straight", "unified", "adaptive"])),
    )  # fmt: skip
    sizes = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=12))
    seed, epoch = data.draw(st.integers(0, 99)), data.draw(st.integers(0, 3))
    documents = [np.arange(10, 10 + n, dtype=np.int32) for n in sizes]
    last = np.array([n % 3 > 0 for n in sizes])
    rows = [[i] for i in range(len(sizes))]
    examples, wanted = plain(documents, last, rows, cfg, seed, epoch)
    drawn, found = vector(documents, last, rows, cfg, seed, epoch)
    assert_equal(found, wanted)
    for i, (tokens, example) in enumerate(zip(documents, examples, strict=True)):
        assert restore(example).tolist() == tokens.tolist()
        # Every masked token is a target exactly once, and every end is one.
        masked = np.concatenate([tokens[a:b] for a, b in example.spans])
        targets = example.targets[example.targets != IGNORE_INDEX]
        assert sorted(t for t in targets if t >= 10) == sorted(masked.tolist())
        assert (targets < 10).sum() == len(example.spans) * (example.end != End.NONE)
        assert drawn.kinds[i] == example.kind
        assert len(example.tokens) == drawn.example_lengths[i]


def test_a_document_takes_the_next_kind_that_fits():
    cfg = ObjectiveConfig(short_rate=0.0, sentence_rate=1.0, document_rate=0.0)
    drawn = draw_many(
        np.array([1, 9, 9]), np.ones(3, bool), np.arange(3), cfg, seed=0, epoch=0,
        sentences=lambda chosen: (
            np.cumsum([0, 1, 1, 2][: len(chosen) + 1]), np.array([1, 9, 4, 9])
        ),
    )  # fmt: skip
    assert drawn.kinds.tolist() == [Kind.DOCUMENT, Kind.SHORT, Kind.SENTENCE]
    assert drawn.drawn_kinds.tolist() == [Kind.SENTENCE] * 3
