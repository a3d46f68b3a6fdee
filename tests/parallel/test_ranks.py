"""What several processes know alike, and what they do with it."""

import json
import re
from math import prod

import numpy as np
import pytest

from blankfill.optim.muon import orthogonalize
from parallel.crew import RankFailedError
from parallel.spoiling import clip_on_ranks, overflow_on_ranks, spoil_on_ranks
from parallel.twins import (
    CFG,
    fail_on,
    fit_on_ranks,
    matrix,
    meet,
    orthogonal_rows,
    reads_on_ranks,
    refuse_once,
    sums_and_lists,
)


def test_sums_lists_and_refusals_are_those_of_all(crew):
    assert crew.run(meet, 3, (1, 3), sums_and_lists) == [([3.0, 1.5], [1, 2, 2])] * 3
    assert crew.run(meet, 2, (2, 1), refuse_once) == ["no such thing"] * 2


def test_a_failing_rank_is_named_with_its_traceback(crew):
    with pytest.raises(RankFailedError, match=r"(?s)rank 1 of 2:.*ValueError: rank 1 of this case"):
        crew.run(fail_on, 2, 1)
    assert crew.run(fail_on, 2, None) == [None, None]  # others take their place


@pytest.mark.parametrize("layout", [(1, 3), (2, 2), (3, 1)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_owners_give_the_orthogonal_matrices_of_one_process(crew, layout, dtype):
    import torch

    shapes = [(24, 8), (5, 16), (2, 7), (16, 16)]
    found = crew.run(meet, layout[0] * layout[1], layout, orthogonal_rows, shapes, dtype)
    for k, shape in enumerate(shapes):
        expected = orthogonalize(matrix(shape, k), getattr(torch, dtype)).float().numpy()
        for replica in range(layout[0]):
            parts = found[replica * layout[1] : (replica + 1) * layout[1]]
            rows = np.concatenate([pieces[k][0] for _, pieces in parts])
            np.testing.assert_array_equal(rows, expected)
            assert all(pieces[k][1] == max(shape) for _, pieces in parts)


@pytest.mark.parametrize("layout", [(1, 3), (1, 1, 2)], ids=str)
def test_a_signal_to_one_rank_ends_all_after_the_same_step(crew, tmp_path, layout):
    count, changes = prod(layout), {"model.vocab_size": 204}
    found = crew.run(fit_on_ranks, count, changes, layout, tmp_path / "run", count - 1)
    assert [ended for ended, *_ in found] == [False] * count
    assert [index for _, index, *_ in found] == [5] * count
    checkpoints = tmp_path / "run" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["step-00000005"]


@pytest.mark.parametrize("policy", ["skip", "stop"])
def test_a_bad_batch_of_one_rank_is_every_ranks_verdict_and_one_incident(crew, tmp_path, policy):
    run, changes = tmp_path / "run", {"guard.on_spike": policy}
    found = crew.run(fit_on_ranks, 3, changes, (3, 1), run, None, [1])
    told = json.loads((run / "incidents" / "step-00000003.json").read_text(encoding="utf-8"))
    first = told["first_row"]
    assert (first, told["num_rows"]) == (3 * CFG.train.batch_rows, CFG.train.batch_rows)
    # The rank that held it tells of its rows, whose losses are finite: their weights are not.
    assert [wrote for *_, wrote in found] == [False, True, False]
    assert told["told_rows"] == [first + 2, first + 4]
    assert {example["row"] for example in told["examples"]} == {first + 2, first + 3}
    page = (run / "incidents" / "step-00000003.md").read_text(encoding="utf-8")
    assert f"has 6 rows; those from {first + 2} to {first + 3}, of the process with" in page
    assert "(process 1 of 3)" in page
    windows = [window for *_, window, _ in found]
    assert windows == [windows[0]] * 3
    assert len(windows[0].losses) == (CFG.train.steps - 1 if policy == "skip" else 3)
    ends, indices = zip(*((ended, index) for ended, index, *_ in found), strict=True)
    if policy == "skip":
        assert (ends, indices) == ((True,) * 3, (CFG.train.steps,) * 3)
    else:
        assert len(set(ends)) == 1
        assert (
            "step 3: not finite: loss nan and gradient norm nan, met by process 1 of 3" in ends[0]
        )
        assert indices == (3, 3, 3)


@pytest.mark.parametrize(
    ("how", "layout", "said"),
    [
        # The loss is finite, and the gradient of the weights is of all.
        ("gradient", (1, 3), "not finite: loss [0-9.]+ and gradient norm (nan|inf), met by process "
                             "1 of 3; its batch"),
        ("both", (1, 3), "met by processes 0 and 1 of 3; its batch"),
        # Rows that one keeps, and one of three copies.
        ("weight", (1, 3), r"weights not finite: blocks.0.attention.q.weight \(2 of 1024 values, "
                           r"in process 1 of 3\); its batch"),
        ("weight", (3, 1), r"weights not finite: blocks.0.attention.q.weight \(2 of 1024 values, "
                           r"in process 1 of 3\); its batch"),
        # Heads that one has, and what the two that compute a block together both have.
        ("weight", (2, 1, 2), r"blocks.0.attention.q.weight \(2 of 1024 values, in process 1 of 4"),
        ("norm", (2, 1, 2), r"blocks.0.mlp_norm.weight \(2 of 32 values, in process 1 of 4\)"),
        ("gradient", (2, 1, 2), "not finite: loss .*, met by process"),
    ],
)  # fmt: skip
def test_whose_rows_or_weights_are_not_finite_is_said(crew, tmp_path, how, layout, said):
    found = crew.run(spoil_on_ranks, prod(layout), layout, tmp_path / "run", how)
    assert len(set(found)) == 1
    assert re.search(rf"step 3: .*{said}", found[0]), found[0]


def test_the_process_with_the_highest_loss_of_a_spike_is_said(crew, tmp_path):
    found = crew.run(spoil_on_ranks, 3, (3, 1), tmp_path / "run", "spike")
    assert len(set(found)) == 1
    assert re.search(r"loss spike: .*, the highest loss in process 1 of 3; its batch", found[0])


def test_clipping_gives_the_bits_of_one_product_after_another(crew, tmp_path):
    for weights in ("float32", "float64"):
        found = crew.run(clip_on_ranks, 2, (1, 2), tmp_path / "run", weights)
        assert found == [(True, True)] * 2


def test_of_processes_that_compute_together_one_tells_of_their_bad_batch(crew, tmp_path):
    run, changes = tmp_path / "run", {"guard.on_spike": "skip", "model.vocab_size": 204}
    found = crew.run(fit_on_ranks, 4, changes, (2, 1, 2), run, None, [2, 3])
    assert [wrote for *_, wrote in found] == [False, False, True, False]
    told = json.loads((run / "incidents" / "step-00000003.json").read_text(encoding="utf-8"))
    assert told["told_rows"] == [told["first_row"] + 3, told["first_row"] + 6]
    assert [(ended, index) for ended, index, *_ in found] == [(True, CFG.train.steps)] * 4


def test_an_overflow_of_one_rank_lowers_the_loss_scale_of_all(crew, tmp_path):
    found = crew.run(overflow_on_ranks, 2, (1, 2), tmp_path / "run", [1])
    assert found[0] == found[1]
    assert [left_out for left_out, _ in found[0]] == [False, True, True, False, False]
    assert [scale for _, scale in found[0]] == [2.0**16, 2.0**16, 2.0**15, 2.0**15, 2.0**15]


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_nothing_is_read_between_logging_steps_on_several_processes(crew, tmp_path, kind):
    changes = {"optimizer.kind": kind, "train.steps": 5, "train.log_every": 4,
               "train.attention": "dense"}  # fmt: skip
    found = crew.run(reads_on_ranks, 2, changes, (1, 2), tmp_path / "run")
    assert found == [[(0, 0), (0, 0), (0, 0), (4, 0), (5, 0)]] * 2
