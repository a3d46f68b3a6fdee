"""Blocks in stages, through which micro-batches pass, give the numbers of one process."""

import functools
from itertools import pairwise

import numpy as np
import pytest

from blankfill.config.parallel import ParallelConfig
from blankfill.config.stages import cut_blocks, stages_of
from blankfill.errors import ConfigError
from blankfill.parallel.cut import blocks_of_stages
from parallel.spoiling import overflow_on_ranks
from parallel.test_elastic import hand_on
from parallel.test_same_numbers import assert_all_moved, assert_near, assert_same
from parallel.test_tensor import SHAPES as SHAPES_TOGETHER
from parallel.test_tensor import SIZES
from parallel.twins import (
    CFG,
    buffers_on_ranks,
    evaluate_on_ranks,
    fit_on_ranks,
    laid_out,
    reads_on_ranks,
    train_alone,
    train_on_ranks,
)

STEPS = {"model.num_layers": 4, "train.batch_rows": 8, "train.seed": 2}
"""Steps of four micro-batches through up to four stages."""
SHAPES = {
    "glm-130b": {},
    "own head": {
        "model.block": "sandwich", "model.positions": "rope_1d", "model.activation": "swiglu",
        "model.tie_head": False, "model.qk_norm": True, "model.dropout": 0.2,
        "train.recompute": "full",
    },
    "as its paper": {
        "model.block": "deepnorm_paper", "model.activation": "gelu", "model.dropout": 0.2,
        "model.embedding_gradient_shrink": 0.1, "model.shrink_head": True, "train.z_loss": 1e-3,
        "train.recompute": "selective",
    },
    "glm": {
        "model.block": "pre_ln", "model.positions": "learned_2d", "model.activation": "gelu_tanh",
        "train.batch_rows": 7, "train.micro_batch_rows": 1,  # 3 and 4 rows, of which one is none
    },
    "post-ln": {
        "model.block": "post_ln", "model.positions": "none", "model.activation": "relu",
        "model.num_layers": 5,  # which 2 and 4 do not divide
    },
}  # fmt: skip
COVERING = [
    ((1, 1, 1, 2, "1f1b"), "adamw", "as its paper"),
    ((1, 1, 1, 2, "interleaved"), "muon", "glm-130b"),
    ((1, 1, 1, 2, "zbv"), "adamw", "as its paper"),
    ((1, 1, 1, 4, "1f1b"), "adamw", "post-ln"),
    ((1, 2, 1, 2, "1f1b"), "muon", "glm"),
    ((2, 1, 1, 2, "zbv"), "muon", "own head"),
]
OTHERS = [
    (*sizes, schedule)
    for sizes in ((1, 1, 1, 2), (2, 1, 1, 2), (1, 2, 1, 2))
    for schedule in ("1f1b", "interleaved", "zbv")
]
LARGE = [
    (1, 1, 1, 8, "1f1b"), (1, 2, 1, 4, "interleaved"), (2, 1, 1, 4, "zbv"), (2, 2, 1, 2, "1f1b"),
    (1, 4, 1, 2, "interleaved"), (4, 1, 1, 2, "zbv"),
]  # fmt: skip
TOGETHER = [
    (1, 1, 2, 2, "1f1b"), (1, 1, 2, 2, "interleaved"), (1, 1, 2, 2, "zbv"), (1, 2, 2, 2, "1f1b"),
    (2, 1, 2, 2, "zbv"), (1, 1, 4, 2, "1f1b"), (1, 1, 2, 4, "interleaved"),
]  # fmt: skip
"""Blocks that several processes compute together, in stages."""


@pytest.fixture(scope="session")
def twin(tmp_path_factory):
    """A function that gives the run of one process, made once for each of them."""

    @functools.cache
    def made(changes):
        return train_alone(dict(changes), tmp_path_factory.mktemp("twin") / "run")

    return lambda changes: made(tuple(changes.items()))


def train_as_one(crew, twin, run, layout, changes, **options):
    found, *others = crew.run(
        functools.partial(train_on_ranks, **options), laid_out(layout).num_processes, changes,
        layout, run, seconds=600,
    )  # fmt: skip
    assert_same(found, twin(changes))
    assert all(other["losses"] == found["losses"] for other in others)
    assert all(other["norms"] == found["norms"] for other in others)
    if changes.get("model.positions", "rope_2d").startswith("rope"):
        return assert_all_moved(found)
    # Where keys are not rotated, their biases have no gradient.
    found["first"] = {k: v for k, v in found["first"].items() if not k.endswith(".k.bias")}
    return assert_all_moved(found)


@pytest.mark.parametrize(("layout", "kind", "shape"), COVERING, ids=str)
def test_ten_steps_are_those_of_one_process(crew, twin, tmp_path, layout, kind, shape):
    changes = {**STEPS, "optimizer.kind": kind, **SHAPES[shape]}
    train_as_one(crew, twin, tmp_path / "run", layout, changes)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("layout", OTHERS, ids=str)
def test_ten_steps_are_those_of_one_process_in_all_products(
    crew, twin, tmp_path, layout, kind, shape
):
    changes = {**STEPS, "optimizer.kind": kind, **SHAPES[shape]}
    if shape == "glm" and layout[4] == "interleaved":
        changes["train.batch_rows"] = 8  # an even number of passes
    train_as_one(crew, twin, tmp_path / "run", layout, changes)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("layout", LARGE, ids=str)
def test_ten_steps_on_eight_ranks_are_those_of_one_process(
    large_crew, twin, tmp_path, layout, kind
):
    changes = {"model.num_layers": 8, "train.batch_rows": 16, "optimizer.kind": kind}
    train_as_one(large_crew, twin, tmp_path / "run", layout, {**changes, "model.dropout": 0.2})


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES_TOGETHER)
@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("layout", TOGETHER, ids=str)
def test_stages_whose_blocks_are_computed_together_are_one_process_too(
    large_crew, twin, tmp_path, layout, kind, shape
):
    changes = {
        **SIZES, "optimizer.kind": kind, **SHAPES_TOGETHER[shape], "model.num_layers": 8,
        "train.batch_rows": 16,
    }  # fmt: skip
    train_as_one(large_crew, twin, tmp_path / "run", layout, changes)


@pytest.mark.slow
@pytest.mark.parametrize("recompute", ["none", "full"])
@pytest.mark.parametrize("layout", OTHERS[:3], ids=str)
def test_compiled_blocks_give_the_same(crew, twin, tmp_path, layout, recompute):
    changes = {**STEPS, "optimizer.kind": "adamw", "train.recompute": recompute,
               "model.dropout": 0.2}  # fmt: skip
    train_as_one(crew, twin, tmp_path / "run", layout, changes, compiled=True)


@pytest.mark.parametrize("layout", [(1, 1, 1, 2, "interleaved")], ids=str)
def test_ten_steps_in_float32_are_near_those_of_one_process(crew, tmp_path, layout):
    changes = {**STEPS, "optimizer.kind": "adamw"}
    found = crew.run(train_on_ranks, 2, changes, layout, tmp_path / "run", "float32")[0]
    assert_near(found, train_alone(changes, tmp_path / "alone", "float32"), "adamw")


def test_a_pipeline_with_weights_in_bfloat16_has_sums_of_gradients_in_float32(crew, tmp_path):
    """Those of a tied embedding's two ends would be one in bfloat16 on one process."""
    changes = {**STEPS, "parallel.weights": "bfloat16", "train.steps": 3, "model.tie_head": False}
    one, *others = (
        crew.run(train_on_ranks, laid_out(layout).num_processes, changes, layout,
                 tmp_path / "run", "float32")[0]
        for layout in ((1, 1), (1, 1, 1, 2, "1f1b"), (1, 1, 1, 2, "zbv"))
    )  # fmt: skip
    for found in others:
        np.testing.assert_allclose(found["losses"], one["losses"], rtol=1e-7)
        np.testing.assert_allclose(found["norms"], one["norms"], rtol=1e-6)


@pytest.mark.parametrize("layout", [(1, 1, 1, 2, "1f1b"), (1, 2, 1, 2, "zbv")], ids=str)
def test_a_pipeline_is_validated_as_a_model_is(crew, tmp_path, layout):
    expected = crew.run(evaluate_on_ranks, 2, STEPS, (1, 2), tmp_path / "run")
    count = laid_out(layout).num_processes
    found = crew.run(evaluate_on_ranks, count, STEPS, layout, tmp_path / "run")
    assert found == [found[0]] * count
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)


def test_an_overflow_in_a_pipeline_lowers_the_loss_scale_of_all(crew, tmp_path):
    found = crew.run(overflow_on_ranks, 2, (1, 1, 1, 2), tmp_path / "run", [0, 1], STEPS)
    assert found[0] == found[1]
    assert [left_out for left_out, _ in found[0]] == [False, True, True, False, False]


def test_a_signal_to_a_later_stage_ends_all_after_the_same_step(crew, tmp_path):
    changes = {**STEPS, "train.steps": 6}
    found = crew.run(fit_on_ranks, 2, changes, (1, 1, 1, 2, "zbv"), tmp_path / "run", 1)
    assert [(ended, index) for ended, index, *_ in found] == [(False, 5)] * 2


def test_a_bad_batch_is_one_incident_of_those_that_had_its_rows(crew, tmp_path):
    changes = {**STEPS, "train.steps": 6, "guard.on_spike": "skip"}
    found = crew.run(fit_on_ranks, 4, changes, (2, 1, 1, 2), tmp_path / "run", None, [1, 3])
    assert [(ended, index) for ended, index, *_ in found] == [(True, 6)] * 4
    assert [wrote for *_, wrote in found] == [False, True, False, False]


@pytest.mark.parametrize("schedule", ["1f1b", "zbv"])
def test_nothing_is_read_between_logging_steps_of_a_pipeline(crew, tmp_path, schedule):
    changes = {**STEPS, "train.steps": 5, "train.log_every": 4, "train.attention": "dense"}
    for found in crew.run(reads_on_ranks, 2, changes, (1, 1, 1, 2, schedule), tmp_path / "run"):
        together, alone = zip(*found, strict=True)
        assert together == (0, 0, 0, 4, 5)
        assert set(alone) == {alone[0]}  # what stages have settled before the first step


@pytest.mark.parametrize(
    ("schedule", "most", "hops"), [("1f1b", 1, 1), ("interleaved", 4, 3), ("zbv", 4, 2)]
)
def test_buffers_are_few_and_only_what_must_travels(crew, tmp_path, schedule, most, hops):
    count, hidden = 16, 4 * 2 * 64 * 32  # micro-batches; bytes of one's hidden states
    changes = {**STEPS, "train.batch_rows": 4 * count, "train.steps": 2}
    found = crew.run(buffers_on_ranks, 4, changes, (1, 2, 1, 2, schedule), tmp_path / "run")
    for seen, left, _, (gathered, reduced), whole in found:
        assert (seen <= most, left) == (True, 0)
        assert gathered == reduced == whole / 2  # once in a step: what the other one has
    assert sum(passed for _, _, passed, *_ in found) == 2 * hops * 2 * count * hidden


def test_pipelines_hand_on_to_other_layouts_and_back(crew, tmp_path):
    layouts = [(1, 1, 1, 2, "zbv"), (1, 2), (1, 1, 1, 4), (2, 1, 1, 2, "interleaved"), (1, 3),
               (1, 2, 1, 2)]  # fmt: skip
    changes = {**STEPS, "optimizer.kind": "muon", "checkpoint.in_background": True,
               "train.batch_rows": 8}  # fmt: skip
    hand_on(crew, tmp_path / "run", layouts, changes)


# -- which blocks are whose -----------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["1f1b", "interleaved", "zbv"])
@pytest.mark.parametrize("pipeline", [2, 3, 4, 8])
def test_every_stage_is_one_process_s(schedule, pipeline):
    chunks = 1 if schedule == "1f1b" else 2
    dealt = [stages_of(schedule, pipeline, rank, chunks) for rank in range(pipeline)]
    assert sorted(sum(dealt, ())) == list(range(pipeline * chunks))
    assert all(0 in of if rank == 0 else 0 not in of for rank, of in enumerate(dealt))
    last = pipeline * chunks - 1
    assert last in dealt[0 if schedule == "zbv" else -1]


@pytest.mark.parametrize("num_layers", [2, 3, 7, 24, 70])
@pytest.mark.parametrize("num_stages", [1, 2, 3, 8])
@pytest.mark.parametrize(("head", "embedding"), [(0.0, 0.0), (1.7, 0.4), (6.0, 9.0), (-0.2, 0.1)])
def test_no_cut_has_a_faster_slowest_stage(num_layers, num_stages, head, embedding):
    if num_stages > num_layers:
        return

    def slowest(cut):
        times = list(cut)
        times[0] += embedding
        times[-1] += head
        return max(times)

    cut = cut_blocks(num_layers, num_stages, head, embedding)
    assert (sum(cut), len(cut), min(cut) >= 1) == (num_layers, num_stages, True)
    # Moving one block from any stage to any other never helps.
    for source in range(num_stages):
        for target in range(num_stages):
            moved = list(cut)
            moved[source] -= 1
            moved[target] += 1
            assert not moved[source] or slowest(moved) >= slowest(cut) - 1e-9


def test_the_head_and_the_embedding_weigh():
    def blocks(**changes):
        cfg = CFG.changed({"model.num_layers": 16, **changes})
        return [end - first for first, end in blocks_of_stages(cfg, 4, 1)]

    assert blocks(**{"model.vocab_size": 16}) == [4, 4, 4, 4]
    large = blocks(**{"model.vocab_size": 2000})
    assert large[-1] < large[1]  # its products
    huge = blocks(**{"model.vocab_size": 2000, "train.row_length": 16, "train.batch_rows": 2})
    assert huge[0] < huge[1]  # its update, in a short step
    bounds = blocks_of_stages(CFG.changed({"model.num_layers": 16}), 4, 1)
    assert all(end == first for (_, end), (first, _) in pairwise(bounds))
    assert (bounds[0][0], bounds[-1][1]) == (0, 16)


# -- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"parallel.pipeline": 5},
         "parallel.pipeline=5 is more stages than model.num_layers=4; take parallel.pipeline=4 or "
         "less"),
        ({"parallel.pipeline": 4, "parallel.schedule": "zbv"},
         "parallel.pipeline=4 of 2 stages each under zbv is more stages than model.num_layers=4; "
         "take parallel.pipeline=2 or less"),
        ({"parallel.schedule": "interleaved"},
         "parallel.schedule=interleaved needs a pipeline, and parallel.pipeline is 1; take "
         "parallel.pipeline=2 or more, or leave the schedule out"),
        ({"parallel.pipeline": 4, "parallel.shard": 2},
         "parallel.pipeline=4 needs at least 4 micro-batches, and 8 rows on 2 data ranks are 2; "
         "take fewer stages, a smaller train.micro_batch_rows or a larger train.batch_rows"),
        ({"parallel.pipeline": 4, "train.ramp_from_rows": 2, "train.ramp_rows": 100},
         "parallel.pipeline=4 needs at least 4 micro-batches, and 2 rows on 1 data ranks are 1; "
         "take fewer stages, a smaller train.micro_batch_rows or a larger train.batch_rows"),
        ({"parallel.pipeline": 2, "parallel.schedule": "interleaved", "train.batch_rows": 6},
         "parallel.schedule=interleaved needs micro-batches in multiples of parallel.pipeline=2, "
         "and a step has 3; take 1f1b, or other train.batch_rows"),
    ],
)  # fmt: skip
def test_what_is_no_pipeline_is_refused_in_a_sentence(changes, sentence):
    cfg = CFG.changed({**STEPS, **changes})
    with pytest.raises(ConfigError) as caught:
        cfg.parallel.require_stages(cfg.model, cfg.train)
    assert str(caught.value) == sentence


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ConfigError, match=r"parallel\.schedule='gpipe' is not one of: 1f1b, "):
        CFG.changed({"parallel.schedule": "gpipe"})


@pytest.mark.parametrize(
    ("layout", "count", "said"),
    [
        ((1, 1, 1, 2), 1, "times parallel.pipeline=2 is 2, and this is one process; start so many"),
        ((1, 1, 1, 2), 8, "take --parallel.shard 4 --parallel.pipeline 2, or "),
        ((1, 1, 2, 2), 8, "take --parallel.shard 2 --parallel.tensor 2 --parallel.pipeline 2, or "),
        ((1, 1, 1, 3), 4, "take --parallel.shard 4, or "),
        ((2, 1, 1, 2), 2, "take --parallel.pipeline 2"),
    ],
)
def test_a_pipeline_of_other_processes_is_refused_with_those_that_would_do(layout, count, said):
    with pytest.raises(ConfigError) as caught:
        laid_out(layout).require(count)
    assert said in str(caught.value)
    assert laid_out(layout) == ParallelConfig(
        replicate=layout[0], shard=layout[1], tensor=layout[2], pipeline=layout[3]
    )
