import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blankfill.config.objective import ObjectiveConfig
from blankfill.errors import ConfigError, DataError
from blankfill.objective.batch import IGNORE_INDEX, End, Kind
from blankfill.objective.blank import build_example, build_prompt, restore
from blankfill.objective.mask import visible
from blankfill.objective.positions import blank_positions
from blankfill.objective.sample import draw_example
from blankfill.objective.special import SpecialIds

SCHEMES = ["corrupted", "linear", "original"]
IDS = SpecialIds(pad=0, mask=1, smask=2, gmask=3, sop=4, eop=5, eos=6, dblock=7)
FOX = np.arange(10, 19, dtype=np.int32)  # The quick brown fox jumps over the lazy dog.


def fox(scheme="corrupted", spans=((2, 4),), order=None, **options):
    order = range(len(spans)) if order is None else order
    return build_example(
        FOX, np.array(spans), kind=Kind.SHORT, order=np.array(order), ids=IDS, scheme=scheme,
        **options,
    )  # fmt: skip


def test_the_articles_numbers():
    example = fox("original")
    assert example.tokens.tolist() == [10, 11, 1, 14, 15, 16, 17, 18, 4, 12, 13]
    assert example.targets.tolist() == [IGNORE_INDEX] * 8 + [12, 13, 5]
    assert example.positions[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 2, 2, 3]
    assert example.positions[1].tolist() == [0] * 8 + [0, 0, 1]


def test_the_papers_numbers():
    example = fox("corrupted", spans=((2, 4), (7, 8)), order=(1, 0))
    assert example.positions[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 6, 6, 2, 2, 2]
    assert example.positions[1].tolist() == [0] * 8 + [1, 2, 1, 2, 3]
    assert example.tokens[8:].tolist() == [4, 17, 4, 12, 13]
    assert example.targets[8:].tolist() == [17, 5, 12, 13, 5]


def test_glm_130b_numbers_a_document_blank_straight_through():
    example = build_example(
        FOX, np.array([[2, 9]]), kind=Kind.DOCUMENT, order=np.array([0]), ids=IDS,
        scheme="linear", end=End.NONE,
    )  # fmt: skip
    assert example.tokens.tolist() == [10, 11, 3, 4, 12, 13, 14, 15, 16, 17]
    assert example.targets[3:].tolist() == [12, 13, 14, 15, 16, 17, 18]
    assert example.positions[0].tolist() == list(range(10))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("n", [*range(1, 12), 40, 200, 513])
def test_restore_undoes_what_was_drawn(scheme, n):
    for index in range(12):
        tokens = np.random.default_rng(index).integers(8, 99, n).astype(np.int32)
        cfg = ObjectiveConfig(short_rate=0.5, document_rate=0.5, positions=scheme)
        example = draw_example(tokens, cfg, IDS, seed=3, epoch=1, index=index)
        assert restore(example).tolist() == tokens.tolist()


@settings(deadline=None, max_examples=80)
@given(data=st.data(), n=st.integers(1, 60), scheme=st.sampled_from(SCHEMES))
def test_restore_undoes_any_spans_in_any_order(data, n, scheme):
    cuts = sorted(data.draw(st.sets(st.integers(0, n), min_size=2, max_size=8)))
    # Neighbours must leave a visible token under `original`, where ids of spans would meet.
    spans = [(a, b) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
    order = data.draw(st.permutations(range(len(spans))))
    tokens = np.arange(100, 100 + n, dtype=np.int32)
    example = build_example(
        tokens, np.array(spans), kind=Kind.SHORT, order=np.array(order), ids=IDS, scheme=scheme
    )
    assert restore(example).tolist() == tokens.tolist()
    assert len(example.tokens) == n + 2 * len(spans)


@pytest.mark.parametrize("index", range(20))
def test_every_masked_token_is_a_target_exactly_once(index):
    tokens = np.arange(100, 220, dtype=np.int32)
    example = draw_example(tokens, ObjectiveConfig(), IDS, seed=0, epoch=0, index=index)
    visible_tokens = set(example.tokens[~example.is_part_b].tolist()) - {1, 2, 3}
    targets = [t for t in example.targets.tolist() if t not in (IGNORE_INDEX, IDS.eop)]
    assert sorted([*visible_tokens, *targets]) == tokens.tolist()
    assert len(set(targets)) == len(targets)


def test_part_a_never_sees_part_b_and_part_b_is_causal():
    segments = np.array([0, 0, 0, 0, 1, 1, -1])
    part_b = np.array([False, False, True, True, False, True, False])
    expected = [
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 1],
    ]
    assert visible(segments, part_b).astype(int).tolist() == expected


@pytest.mark.parametrize("scheme", SCHEMES)
def test_generation_numbers_one_input_at_a_time_as_training_numbers_them_all(scheme):
    options = {"mask_index": 5, "part_a_length": 9, "earlier_lengths": [3, 1]}
    whole = blank_positions(scheme, Kind.SHORT, num_inputs=6, **options)
    steps = [
        blank_positions(scheme, Kind.SHORT, num_inputs=1, first_input=i, **options)
        for i in range(6)
    ]
    assert np.concatenate(steps, axis=1).tolist() == whole.tolist()


def test_original_indices_of_a_later_blank_follow_from_the_earlier_fills():
    example = fox("original", spans=((1, 3), (5, 6), (7, 9)))
    prompt = build_prompt(example.tokens[: example.part_b_start], IDS)
    sops = np.flatnonzero(example.tokens == IDS.sop)
    starts = [
        int(
            blank_positions(
                "original", Kind.SHORT, mask_index=int(prompt.blanks[b]),
                part_a_length=len(prompt.tokens), earlier_lengths=[2, 1, 2][:b], num_inputs=1,
            )[0, 0]
        )
        for b in range(3)
    ]  # fmt: skip
    assert starts == example.positions[0, sops].tolist() == [1, 5, 7]


@pytest.mark.parametrize(
    ("spans", "order"),
    [
        ([(2, 2)], [0]),
        ([(3, 2)], [0]),
        ([(-1, 2)], [0]),
        ([(7, 10)], [0]),
        ([(2, 5), (4, 6)], [0, 1]),
        ([(5, 6), (2, 3)], [0, 1]),
        ([(2, 3), (5, 6)], [0, 0]),
        ([(2, 3)], [0, 1]),
    ],
)
def test_impossible_blanks_are_refused(spans, order):
    with pytest.raises(DataError):
        fox(spans=spans, order=order)


def test_special_tokens_that_share_an_id_are_refused():
    with pytest.raises(DataError, match="gmask and eop share the id 3"):
        SpecialIds(pad=0, mask=1, smask=2, gmask=3, sop=4, eop=3, eos=6, dblock=7)


@pytest.mark.parametrize(
    "values",
    [{"short_rate": 0.5}, {"mask_ratio": -0.1}, {"mask_ratio": 1.1}, {"mean_span_length": 0},
     {"short_rate": 1.5, "document_rate": -0.5}],
)  # fmt: skip
def test_impossible_objectives_are_refused(values):
    with pytest.raises(ConfigError, match="objective"):
        ObjectiveConfig(**values)


def test_ids_that_collide_are_refused_unless_they_are_named():
    ids = {"pad": 0, "mask": 1, "smask": 2, "gmask": 5, "sop": 4, "eop": 5, "eos": 6, "dblock": 7}
    with pytest.raises(DataError, match=r"gmask.*share the id 5.*shared=\("):
        SpecialIds(**ids)
    known = SpecialIds(**ids, shared=("gmask", "eop"))
    with pytest.raises(DataError, match="share the id 5"):
        SpecialIds(**(ids | {"eos": 5}), shared=("gmask", "eop"))
    with pytest.raises(DataError, match="'mars'"):
        SpecialIds(**ids, shared=("mars",))
    example = build_example(
        FOX, np.array([[4, 9]]), kind=Kind.DOCUMENT, order=np.array([0]), ids=known
    )
    assert restore(example).tolist() == FOX.tolist()
