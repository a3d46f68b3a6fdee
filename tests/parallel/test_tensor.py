"""Blocks that several processes compute together give the numbers of one process."""

import functools
from math import prod

import numpy as np
import pytest

from parallel.asking import ask_alone, ask_on_ranks, gradients_alone, gradients_on_ranks
from parallel.spoiling import overflow_on_ranks
from parallel.test_same_numbers import assert_all_moved, assert_near, assert_same
from parallel.twins import train_alone, train_on_ranks

SIZES = {"model.num_heads": 4, "model.vocab_size": 204}
"""Parts of the vocabulary are of 51 rows among 4, and shards of those are uneven."""
SHAPES = {
    "glm-130b": {},
    "glm": {
        "model.block": "pre_ln", "model.positions": "learned_2d", "model.activation": "gelu_tanh",
        "model.dropout": 0.2,
    },
    "own head": {
        "model.block": "sandwich", "model.positions": "rope_1d", "model.activation": "swiglu",
        "model.tie_head": False, "model.qk_norm": True, "model.num_layers": 3,
    },
    "post-ln": {
        "model.block": "post_ln", "model.positions": "none", "model.activation": "relu",
        "model.num_layers": 1, "train.z_loss": 1e-3,
    },
    "as its paper": {
        "model.block": "deepnorm_paper", "model.activation": "gelu", "model.pb_relax": 8.0,
        "model.embedding_gradient_shrink": 0.1, "model.shrink_head": True,
    },
}  # fmt: skip
COVERING = [
    ((1, 1, 2), "adamw", "glm-130b"),
    ((1, 2, 2), "muon", "glm-130b"),
    ((2, 1, 2), "adamw", "glm"),
    ((1, 1, 2), "muon", "own head"),
    ((1, 1, 4), "adamw", "post-ln"),
    ((1, 1, 2), "adamw", "as its paper"),
]
OTHERS = [(1, 1, 2), (1, 1, 4), (1, 2, 2), (2, 1, 2), (1, 1, 3)]
LARGE = [(2, 2, 2), (1, 4, 2), (1, 2, 4), (4, 1, 2), (2, 1, 4)]


@pytest.fixture(scope="session")
def twin(tmp_path_factory):
    """A function that gives the run of one process, made once for each of them."""

    @functools.cache
    def made(changes):
        return train_alone(dict(changes), tmp_path_factory.mktemp("twin") / "run")

    return lambda changes: made(tuple(changes.items()))


def changes_of(layout, kind, shape):
    sizes = SIZES
    if layout[2] == 3:  # shares that are no power of two
        sizes = {"model.num_heads": 3, "model.hidden_size": 24, "model.vocab_size": 204,
                 "model.ffn_size": 45, "train.row_length": 63}  # fmt: skip
    return {"optimizer.kind": kind, **sizes, **SHAPES[shape]}


def train_as_one(crew, twin, run, layout, changes):
    found, *others = crew.run(train_on_ranks, prod(layout), changes, layout, run, seconds=600)
    assert_same(found, twin(changes))
    assert all(other["losses"] == found["losses"] for other in others)
    assert all(other["norms"] == found["norms"] for other in others)
    return found


@pytest.mark.parametrize(("layout", "kind", "shape"), COVERING, ids=str)
def test_ten_steps_are_those_of_one_process(crew, twin, tmp_path, layout, kind, shape):
    changes = changes_of(layout, kind, shape)
    found = train_as_one(crew, twin, tmp_path / "run", layout, changes)
    if shape in ("glm", "post-ln"):  # where keys are not rotated, their biases have no gradient
        found["first"] = {k: v for k, v in found["first"].items() if not k.endswith(".k.bias")}
    assert_all_moved(found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", [*OTHERS, *LARGE], ids=str)
def test_ten_steps_on_every_layout_are_those_of_one_process(
    large_crew, twin, tmp_path, layout, kind, shape
):
    train_as_one(large_crew, twin, tmp_path / "run", layout, changes_of(layout, kind, shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_gradient_is_that_of_one_process(crew, tmp_path, shape):
    """Biases and norms too, whose gradients are the sums of what processes have."""
    changes = {**SIZES, **SHAPES[shape]}
    alone = gradients_alone(changes, tmp_path / "alone")
    for layout in ((1, 1, 2),) if shape != "glm-130b" else ((1, 1, 2), (1, 2, 2)):
        found, norms = crew.run(
            gradients_on_ranks, prod(layout), changes, layout, tmp_path / "run"
        )[0]
        assert found.keys() == alone[0].keys()
        for name, gradient in alone[0].items():
            size = np.abs(gradient).max()
            assert np.abs(found[name] - gradient).max() <= 1e-10 * max(size, 1e-3), name
        assert norms == pytest.approx(alone[1], rel=1e-10)


@pytest.mark.parametrize("what", ["selective", "full"])
def test_what_is_computed_again_is_the_same(crew, twin, tmp_path, what):
    changes = changes_of((1, 1, 2), "adamw", "glm")
    found = crew.run(
        train_on_ranks, 2, {**changes, "train.recompute": what}, (1, 1, 2), tmp_path / "run"
    )[0]
    assert_same(found, twin(changes))


@pytest.mark.parametrize("attention", ["dense", "blocks"])
def test_dropout_in_float32_takes_the_same_units(crew, tmp_path, attention):
    """By the forms in C, which draw by the head's number among all of them."""
    changes = {**SIZES, "model.dropout": 0.2, "train.steps": 2, "optimizer.kind": "adamw"}
    found = crew.run(
        functools.partial(train_on_ranks, attention=attention), 2, changes, (1, 1, 2),
        tmp_path / "run", "float32",
    )[0]  # fmt: skip
    alone, without = (
        train_alone({**changes, **more}, tmp_path / "alone", "float32", attention=attention)
        for more in ({}, {"model.dropout": 0.0})
    )
    assert_near(found, alone, "adamw")
    assert abs(alone["losses"][0] - without["losses"][0]) > 1e-3


def test_weights_in_bfloat16_are_near(crew, tmp_path):
    changes = {
        **SIZES, "parallel.weights": "bfloat16", "train.steps": 3, "optimizer.kind": "adamw",
    }  # fmt: skip
    found = crew.run(train_on_ranks, 4, changes, (1, 2, 2), tmp_path / "run", "float32")[0]
    wide = train_alone({**SIZES, "train.steps": 3}, tmp_path / "alone", "float32")
    np.testing.assert_allclose(found["losses"], wide["losses"], rtol=2e-3)
    assert found["losses"] != wide["losses"]


def test_an_overflow_of_float16_leaves_a_step_out_in_every_process(crew, tmp_path):
    told = crew.run(overflow_on_ranks, 2, (1, 1, 2), tmp_path / "run", [0, 1], SIZES)
    assert told[0] == told[1]
    assert [left_out for left_out, _ in told[0]] == [False, True, True, False, False]


@pytest.mark.parametrize("length", [64, 33], ids=["whole rows", "a length that does not divide"])
def test_a_model_that_is_asked_answers_as_one_process_does(crew, tmp_path, length):
    """Losses, scores of every token, and the keys and values of a cache."""
    of_all = crew.run(ask_on_ranks, 4, SIZES, (1, 2, 2), tmp_path / "run", length)
    for found in of_all:
        for name, value in ask_alone(SIZES, tmp_path / "alone", length).items():
            np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-10, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"model.dropout": 0.2, "train.recompute": "full"}])
def test_compiled_blocks_give_the_same(crew, twin, tmp_path, changes):
    changes = {"optimizer.kind": "adamw", **SIZES, **changes}
    found = crew.run(
        functools.partial(train_on_ranks, compiled=True), 2, changes, (1, 1, 2), tmp_path / "run",
        seconds=600,
    )[0]  # fmt: skip
    assert_same(found, twin(changes))
