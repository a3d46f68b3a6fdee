"""Rotary positions beside what the released models computed (captured inside their attention)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from blankfill.model.rope import rotate, rotation_of

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "rope.npz")
CASES = sorted({name.rsplit("/", 1)[0] for name in GOLDEN.files if name.endswith("/q_in")})


@pytest.mark.parametrize("case", CASES)
def test_queries_and_keys_turn_as_in_the_released_models(case):
    positions = torch.from_numpy(GOLDEN[f"{case}/position_ids"].astype(np.int64))
    one_dimensional = positions.ndim == 2
    if one_dimensional:
        positions = torch.stack([positions, torch.zeros_like(positions)], dim=1)
    # ChatGLM-6B on Hugging Face rounds its frequencies to float16. float32 angles of the reference
    # are exact to 1.3e-6 below position 100 and to 3e-4 near 2000.
    angles = "float16" if "hf" in case else "float32"
    tolerance = 2e-6 if int(positions.max()) < 100 else 5e-4
    for name in ("q", "k"):
        x = torch.from_numpy(GOLDEN[f"{case}/{name}_in"])
        rotation = rotation_of(
            positions, x.shape[-1], 1 if one_dimensional else 2, x.dtype, angles=angles
        )
        expected = torch.from_numpy(GOLDEN[f"{case}/{name}_out"])
        torch.testing.assert_close(rotate(x, rotation), expected, rtol=0, atol=tolerance)


def test_there_are_cases_of_both_dimensions():
    assert any("1d" in case for case in CASES)
    assert any("2d" in case for case in CASES)


def test_a_turn_keeps_lengths_and_depends_on_distances_alone():
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 8, generator=generator, dtype=torch.float64)

    def score(first, second):
        both = []
        for x, position in ((q, first), (k, second)):
            at = torch.tensor([[[position], [0]]])
            both.append(rotate(x, rotation_of(at, 8, 1, torch.float64)))
        return (both[0] * both[1]).sum()

    torch.testing.assert_close(score(3, 1), score(1002, 1000), rtol=1e-9, atol=1e-12)
