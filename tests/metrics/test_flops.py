"""The formulas beside a built model and a counted run."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from blankfill.config.model import ModelConfig
from blankfill.config.presets import PRESETS, preset
from blankfill.kernels.rectangles import STRIP
from blankfill.metrics.flops import (
    count_parameters,
    forward_flops,
    training_flops,
    visible_area,
)  # fmt: skip
from blankfill.model.glm import GLM
from blankfill.model.masks import DenseMask
from blankfill.objective.mask import visible

CFG = ModelConfig(vocab_size=300, hidden_size=32, num_layers=2, num_heads=2, ffn_size=48)


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_by_formula_are_those_of_the_built_model(name):
    cfg = preset(name).model
    with torch.device("meta"):
        counted = sum(p.numel() for p in GLM(cfg).parameters())
    assert sum(count_parameters(cfg).values()) == counted


@pytest.mark.parametrize(
    "changes", [{"tie_head": False}, {"activation": "gelu"}, {"positions": "learned_2d"}]
)
def test_every_part_is_the_sum_of_its_tensors(changes):
    cfg = dataclasses.replace(CFG, **changes)
    parts = count_parameters(cfg)
    groups = dict.fromkeys(parts, 0)
    with torch.device("meta"):
        model = GLM(cfg)
    for name, parameter in model.named_parameters():
        group = (
            "embedding" if "word" in name else "positions" if "position" in name
            else "norms" if "norm" in name else "attention" if "attention" in name
            else "head" if name.startswith("head") else "feed_forward"
        )  # fmt: skip
        groups[group] += parameter.numel()
    assert groups == parts


def test_the_dense_formula_is_what_a_dense_training_pass_counts():
    T = 64
    tokens = torch.randint(8, 300, (3, T), generator=torch.Generator().manual_seed(0))
    mask = DenseMask(torch.ones(1, T, T, dtype=torch.bool))
    model = GLM(CFG)
    with FlopCounterMode(display=False) as counter:
        model.logits(model(tokens, torch.zeros(3, 2, T, dtype=torch.long), mask)).sum().backward()
    formula = training_flops(CFG, np.zeros((0, 4), np.int32), 0, (3, T)).dense
    assert counter.get_total_flops() == pytest.approx(formula, rel=0.01)


def test_the_area_is_what_is_visible_and_the_masked_halves_of_part_bs_strips():
    blocks = np.array(
        [[0, 0, 3, 8], [0, 8, 9, 9], [1, 0, 0, 4], [1, 4, 9, 10], [2, 0, 5, 5 + STRIP],
         [2, 100, 100, 101 + STRIP], [3, 0, 40, 40 + 3 * STRIP + 7]], np.int32,
    )  # fmt: skip
    expected = 0
    for _, start, part_b, end in blocks.tolist():
        n, b = end - start, end - part_b
        seen = visible(np.zeros(n, np.int32), np.arange(n) >= part_b - start)
        strips = [min(STRIP, b - low) for low in range(0, b, STRIP)]
        expected += int(seen.sum()) + sum(n * (n - 1) // 2 for n in strips)
    assert visible_area(blocks) == expected


def test_training_is_three_forward_passes():
    blocks = np.array([[0, 0, 20, 30]], np.int32)
    forward, training = (
        count(CFG, blocks, 9, (1, 32)) for count in (forward_flops, training_flops)
    )
    assert (training.model, training.dense) == (3 * forward.model, 3 * forward.dense)
    assert training.model < training.dense
