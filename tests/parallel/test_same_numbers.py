"""Any layout gives the numbers of one process."""

import numpy as np
import pytest

from parallel.twins import train_alone, train_on_ranks

LAYOUTS = [(1, 1), (1, 2), (2, 1), (1, 3), (3, 1), (1, 4), (2, 2), (4, 1)]
LARGE_LAYOUTS = [(1, 8), (2, 4), (4, 2), (8, 1)]
TOLERANCE = 1e-10
"""Of losses, norms and weights in float64, where the twins' sums differ in their order alone."""


@pytest.fixture(scope="session")
def twin(tmp_path_factory):
    """A function that gives the run of one process, made once for each kind."""
    made = {}

    def make(kind, **changes):
        key = (kind, *changes.items())
        if key not in made:
            folder = tmp_path_factory.mktemp("twin")
            made[key] = train_alone({"optimizer.kind": kind, **changes}, folder / "run")
        return made[key]

    return make


def assert_same(found, expected, tolerance=TOLERANCE):
    assert found["rows"] == expected["rows"]
    assert found["targets"] == expected["targets"]
    for name, value in expected["first"].items():
        np.testing.assert_array_equal(found["first"][name], value, err_msg=name)
    for what in ("losses", "norms"):
        np.testing.assert_allclose(found[what], expected[what], rtol=0, atol=tolerance)
    assert found["means"].keys() == expected["means"].keys()
    for name, value in expected["means"].items():
        assert abs(found["means"][name] - value) < tolerance
    for part, tensors in expected["parts"].items():
        assert found["parts"][part].keys() == tensors.keys()
        for name, value in tensors.items():
            np.testing.assert_allclose(
                found["parts"][part][name], value, rtol=0, atol=tolerance, err_msg=name
            )


def assert_all_moved(found):
    for name, before in found["first"].items():
        moved = np.abs(found["parts"]["model"][name] - before).reshape(len(before), -1).max(1)
        assert moved.min() > 1e-6, f"some rows of {name} have not moved"


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_ten_steps_are_those_of_one_process(crew, twin, tmp_path, layout, kind):
    changes = {"optimizer.kind": kind}
    found, *others = crew.run(
        train_on_ranks, layout[0] * layout[1], changes, layout, tmp_path / "run"
    )
    assert_same(found, twin(kind))
    assert_all_moved(found)
    assert all(other["losses"] == found["losses"] for other in others)
    assert all(other["norms"] == found["norms"] for other in others)


SHAPES = {
    "untied": {"model.tie_head": False, "model.block": "pre_ln", "model.positions": "rope_1d"},
    "learned": {"model.positions": "learned_2d", "model.activation": "gelu", "train.batch_rows": 4},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_other_models_and_batches_are_the_same_too(crew, twin, tmp_path, shape):
    found = crew.run(
        train_on_ranks, 3, {"optimizer.kind": "muon", **SHAPES[shape]}, (1, 3), tmp_path / "run"
    )[0]
    # Not all rows move: with learned positions the keys' biases have no gradient.
    assert_same(found, twin("muon", **SHAPES[shape]))


def test_float32_follows_one_process_for_the_first_steps(crew, twin, tmp_path):
    """Sums in another order round differently; AdamW's first steps make little of that yet."""
    changes = {"optimizer.kind": "adamw", "train.steps": 3, "schedule.warmup_steps": 0}
    found = crew.run(train_on_ranks, 4, changes, (2, 2), tmp_path / "run", "float32")[0]
    expected = train_alone(changes, tmp_path / "alone", "float32")
    for what in ("losses", "norms"):
        np.testing.assert_allclose(found[what][:2], expected[what][:2], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("layout", LARGE_LAYOUTS, ids=str)
def test_ten_steps_on_eight_ranks_are_those_of_one_process(
    large_crew, twin, tmp_path, layout, kind
):
    changes = {"optimizer.kind": kind}
    found = large_crew.run(train_on_ranks, 8, changes, layout, tmp_path / "run", seconds=600)[0]
    assert_same(found, twin(kind))
    assert_all_moved(found)


@pytest.mark.slow
def test_compiled_blocks_give_the_same(crew, twin, tmp_path):
    changes = {"optimizer.kind": "adamw"}
    found = crew.run(
        train_on_ranks, 2, changes, (1, 2), tmp_path / "run", "float64", True, seconds=600
    )[0]
    assert_same(found, twin("adamw"))
