"""The released implementation's own outputs (GLM `blocklm_utils.py`, `mpu/transformer.py`)."""

import json
from pathlib import Path

import numpy as np
import pytest

from blankfill.objective.batch import IGNORE_INDEX, Kind
from blankfill.objective.blank import build_example, restore
from blankfill.objective.mask import visible
from blankfill.objective.special import SpecialIds

GOLDEN = Path(__file__).parents[1] / "golden"
IDS = SpecialIds(pad=0, eos=1, mask=3, gmask=4, smask=5, sop=6, eop=7, dblock=8)
KINDS = {"bert": Kind.SHORT, "gap_sentence": Kind.SENTENCE, "generation": Kind.DOCUMENT}


def block_cases():
    for line in (GOLDEN / "objective_cases.jsonl").read_text().splitlines():
        case = json.loads(line)
        config = case.get("config", {})
        special = config.get("sentinel_token") or config.get("random_position")
        if case["kind"] == "make_block_data" and config["task_mask"] and not special:
            yield pytest.param(case, id=case["id"])


@pytest.mark.parametrize("case", list(block_cases()))
def test_examples_are_the_released_ones(case):
    tokens = np.array(case["input"]["tokens"], np.int32)
    spans = sorted(map(tuple, case["input"]["spans"]))
    order = [spans.index(tuple(span)) for span in case["order"]]
    two_dimensional = case["config"]["block_position_encoding"]
    example = build_example(
        tokens, np.array(spans), kind=KINDS[case["task"]], order=np.array(order), ids=IDS,
        scheme="corrupted",
    )  # fmt: skip
    expected = case["output"]
    assert example.tokens.tolist() == expected["tokens"]
    assert example.part_b_start == expected["source_length"]
    wanted = [
        t if m else IGNORE_INDEX
        for t, m in zip(expected["targets"], expected["loss_mask"], strict=True)
    ]
    assert example.targets.tolist() == wanted
    assert example.positions[0].tolist() == expected["position_ids"][0]
    if two_dimensional:
        assert example.positions[1].tolist() == expected["position_ids"][1]
    assert restore(example).tolist() == tokens.tolist()


def test_there_are_many_cases():
    assert sum(1 for _ in block_cases()) >= 20


def test_masks_are_the_released_ones():
    masks = np.load(GOLDEN / "attention_masks.npz")
    checked = 0
    for name in masks.files:
        if not name.startswith("glm/n") or not name.endswith("_mem0"):
            continue
        found = masks[name].astype(bool)
        n = found.shape[-1]
        seps = name.split("_sep")[1].split("_")[0].split("-")
        for row, sep in enumerate(seps):
            ours = visible(np.zeros(n, np.int32), np.arange(n) >= int(sep))
            assert np.array_equal(found[min(row, len(found) - 1), 0], ours), name
            checked += 1
    assert checked >= 5
