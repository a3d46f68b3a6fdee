"""Any layout gives the numbers of one process."""

import functools

import numpy as np
import pytest

from parallel.twins import evaluate_on_ranks, train_alone, train_on_ranks

LAYOUTS = [(1, 1), (1, 2), (2, 1), (1, 3), (3, 1), (1, 4), (2, 2), (4, 1)]
LARGE_LAYOUTS = [(1, 8), (2, 4), (4, 2), (8, 1)]
TOLERANCE = 1e-10
"""Of losses, norms and weights in float64, where the twins' sums differ in their order alone."""
FLOAT32 = {"adamw": (1e-5, 1e-4), "muon": (1e-3, 1e-2)}
"""Of losses and of weights in float32 after ten steps, ten times what `scripts/compare-layouts`
measures; Muon's matrices are made orthogonal in bfloat16 where the processor has it."""


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


def assert_near(found, expected, kind):
    """Compare runs in float32."""
    of_losses, of_weights = FLOAT32[kind]
    assert found["rows"] == expected["rows"]
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=0, atol=of_losses)
    for name, value in expected["parts"]["model"].items():
        np.testing.assert_allclose(
            found["parts"]["model"][name], value, rtol=0, atol=of_weights, err_msg=name
        )


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_ten_steps_in_float32_are_near_those_of_one_process(crew, tmp_path, kind):
    changes = {"optimizer.kind": kind}
    found = crew.run(train_on_ranks, 3, changes, (1, 3), tmp_path / "run", "float32")[0]
    assert_near(found, train_alone(changes, tmp_path / "alone", "float32"), kind)
    assert_all_moved(found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("layout", [*LAYOUTS, *LARGE_LAYOUTS], ids=str)
def test_ten_steps_in_float32_are_near_on_every_layout(large_crew, tmp_path, layout, kind):
    changes, count = {"optimizer.kind": kind}, layout[0] * layout[1]
    run = tmp_path / "run"
    found = large_crew.run(train_on_ranks, count, changes, layout, run, "float32", seconds=600)[0]
    assert_near(found, train_alone(changes, tmp_path / "alone", "float32"), kind)
    assert_all_moved(found)


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


@pytest.mark.parametrize("layout", [(1, 3), (2, 1)], ids=str)
def test_dropout_takes_the_same_units_on_every_layout(crew, twin, tmp_path, layout):
    changes = {"model.dropout": 0.2, "train.batch_rows": 4}  # of 3 ranks two have a row of weight 0
    kind = "muon" if layout == (1, 3) else "adamw"
    found = crew.run(
        train_on_ranks, 3 if layout == (1, 3) else 2, {"optimizer.kind": kind, **changes}, layout,
        tmp_path / "run",
    )[0]  # fmt: skip
    assert_same(found, twin(kind, **changes))
    assert abs(found["losses"][0] - twin(kind, **{"train.batch_rows": 4})["losses"][0]) > 1e-3


@pytest.mark.parametrize("what", ["selective", "full"])
def test_what_is_computed_again_is_the_same_on_several_processes(crew, twin, tmp_path, what):
    changes = {"model.dropout": 0.2, "train.batch_rows": 4}
    found = crew.run(
        train_on_ranks, 2, {"optimizer.kind": "adamw", "train.recompute": what, **changes},
        (1, 2), tmp_path / "run",
    )[0]  # fmt: skip
    assert_same(found, twin("adamw", **changes))


def test_a_run_that_does_not_wait_for_its_numbers_is_the_same(crew, twin, tmp_path):
    changes = {"optimizer.kind": "muon", "train.log_every": 4}
    found = crew.run(
        functools.partial(train_on_ranks, reads_each_step=False), 4, changes, (2, 2),
        tmp_path / "run",
    )[0]  # fmt: skip
    expected = twin("muon")
    read = [loss for step, loss in enumerate(expected["losses"], 1) if step % 4 == 0 or step == 10]
    np.testing.assert_allclose(
        [loss for loss in found["losses"] if loss == loss], read, rtol=0, atol=TOLERANCE
    )
    for part, tensors in expected["parts"].items():
        # The share by which an average moves is a product on the device, in float32.
        tolerance = 1e-8 if part == "ema" else TOLERANCE
        for name, value in tensors.items():
            np.testing.assert_allclose(
                found["parts"][part][name], value, rtol=0, atol=tolerance, err_msg=name
            )


NARROW = {"parallel.weights": "bfloat16", "train.micro_batch_rows": 3, "train.steps": 3}


def test_weights_in_bfloat16_have_masters_and_sums_of_gradients_in_float32(crew, tmp_path):
    """Two passes of one process, or one pass of two: the same two gradients in bfloat16, whose sum
    would differ in the third digit if it were in bfloat16 as well."""
    one, *others = (
        crew.run(
            train_on_ranks, layout[0] * layout[1], NARROW, layout, tmp_path / "run", "float32"
        )[0]
        for layout in ((1, 1), (1, 2), (2, 1))
    )
    for found in others:
        assert found["losses"] == one["losses"]
        np.testing.assert_allclose(found["norms"], one["norms"], rtol=1e-6)
        for part, tensors in one["parts"].items():
            for name, value in tensors.items():
                assert value.dtype == np.float32
                np.testing.assert_allclose(found["parts"][part][name], value, rtol=1e-5, atol=1e-7)
    wide = train_alone({"train.steps": 3}, tmp_path / "alone", "float32")
    for name, value in wide["first"].items():
        np.testing.assert_array_equal(one["first"][name], value, err_msg=name)
    # A product of two numbers of 8 bits is within 2^-8; sums over a row leave less of that.
    np.testing.assert_allclose(one["losses"], wide["losses"], rtol=1e-3)
    assert one["losses"] != wide["losses"]


def test_a_model_with_weights_in_bfloat16_is_validated_as_it_trains(crew, tmp_path):
    wide, narrow = (
        crew.run(evaluate_on_ranks, 2, {"parallel.weights": weights}, (1, 2), tmp_path / "run")
        for weights in ("float32", "bfloat16")
    )
    np.testing.assert_allclose(narrow[0], wide[0], rtol=3e-3)
    assert narrow[0] == narrow[1]
    assert narrow[0] != wide[0]


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
@pytest.mark.parametrize("changes", [{}, {"model.dropout": 0.2, "train.recompute": "full"}])
def test_compiled_blocks_give_the_same(crew, twin, tmp_path, changes):
    found = crew.run(
        functools.partial(train_on_ranks, compiled=True), 2, {"optimizer.kind": "adamw", **changes},
        (1, 2), tmp_path / "run", seconds=600,
    )[0]  # fmt: skip
    assert_same(found, twin("adamw", **changes))
