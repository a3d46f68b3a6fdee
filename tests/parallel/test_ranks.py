"""What several processes know alike, and what they do with it."""

import json

import numpy as np
import pytest

from blankfill.optim.muon import orthogonalize
from parallel.crew import RankFailedError
from parallel.twins import (
    CFG,
    fail_on,
    fit_on_ranks,
    load_alone,
    load_on_ranks,
    matrix,
    meet,
    orthogonal_rows,
    refuse_once,
    save_on_ranks,
    sums_and_lists,
)

CHANGES = {"optimizer.kind": "muon", "checkpoint.in_background": True}


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


@pytest.mark.parametrize(
    ("saved", "loaded"), [((1, 4), (1, 3)), ((2, 2), (2, 1)), ((1, 3), (4, 1))]
)
def test_a_run_goes_on_on_other_processes_with_the_same_bits(crew, tmp_path, saved, loaded):
    run = tmp_path / "run"
    run.mkdir()
    stored = crew.run(save_on_ranks, saved[0] * saved[1], CHANGES, saved, run, 3)[0]
    found = crew.run(load_on_ranks, loaded[0] * loaded[1], CHANGES, loaded, run)
    index, row, means, guard, parts = load_alone(CHANGES, run)
    assert (index, row) == (3, 3 * CFG.train.batch_rows)
    assert len(guard.losses) == 3
    assert [(i, r, m, g) for i, r, m, g, _ in found] == [(index, row, means, guard)] * len(found)
    for tensors in (found[0][4], parts):
        assert tensors.keys() == stored.keys()
        for part, of_part in stored.items():
            assert tensors[part].keys() == of_part.keys() != set()
            for name, value in of_part.items():
                np.testing.assert_array_equal(tensors[part][name], value, err_msg=name)


def test_a_signal_to_one_rank_ends_all_after_the_same_step(crew, tmp_path):
    found = crew.run(fit_on_ranks, 3, {}, (1, 3), tmp_path / "run", 2)
    assert found == [(False, 5)] * 3
    checkpoints = tmp_path / "run" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["step-00000005"]


@pytest.mark.parametrize("policy", ["skip", "stop"])
def test_a_bad_batch_of_one_rank_is_every_ranks_verdict_and_one_incident(crew, tmp_path, policy):
    run, changes = tmp_path / "run", {"guard.on_spike": policy}
    found = crew.run(fit_on_ranks, 3, changes, (3, 1), run, None, 1)
    told = json.loads((run / "incidents" / "step-00000003.json").read_text(encoding="utf-8"))
    assert told["first_row"] == 3 * CFG.train.batch_rows
    assert {example["row"] - told["first_row"] for example in told["examples"]} == set(range(6))
    if policy == "skip":
        assert found == [(True, CFG.train.steps)] * 3
    else:
        assert len({text for text, _ in found}) == 1
        assert "step 3: not finite" in found[0][0]
        assert found[0][1] == 3
