"""Queries and keys before and after rotation, captured inside the released attention layers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from blankfill.model.rope import Rotation, rotate, rotation_of
from golden_groups.common import MISMATCH, Case

NEAR = 100
"""float32 angles are exact to a few roundings below this position."""


def near(folder: Path) -> Iterator[Case]:
    """Positions below 100, and the tables of cosines, sines and frequencies."""
    arrays = np.load(folder / "rope.npz")
    yield from _captured(arrays, far=False)
    for name in arrays.files:
        family, *_, what = name.split("/")
        table = torch.from_numpy(arrays[name])
        if family == "cache" and what in ("cos", "sin"):
            rotation = _table(len(table), table.shape[1])
            half = (rotation.cos if what == "cos" else rotation.sin)[0, :, 0, 0]
            yield name, _largest(torch.cat([half, half], dim=-1), table)
        elif what.startswith("inv_freq"):
            yield name, _largest(_frequencies(2 * len(table), "fp16" in what), table)


def far(folder: Path) -> Iterator[Case]:
    """Positions of 100 and above."""
    yield from _captured(np.load(folder / "rope.npz"), far=True)


def _captured(arrays: np.lib.npyio.NpzFile, *, far: bool) -> Iterator[Case]:
    for name in arrays.files:
        if not name.endswith("/q_in"):
            continue
        case = name.removesuffix("/q_in")
        positions = torch.from_numpy(arrays[f"{case}/position_ids"].astype(np.int64))
        if (int(positions.max()) >= NEAR) != far:
            continue
        num_parts = 2 if positions.ndim == 3 else 1
        if num_parts == 1:
            positions = torch.stack([positions, torch.zeros_like(positions)], dim=1)
        rounded = f"{case}/inv_freq_fp16_rounded" in arrays.files
        for which in ("q", "k"):
            x = torch.from_numpy(arrays[f"{case}/{which}_in"])
            rotation = rotation_of(
                positions, x.shape[-1], num_parts, x.dtype,
                angles="float16" if rounded else "float32",
            )  # fmt: skip
            wanted = torch.from_numpy(arrays[f"{case}/{which}_out"])
            yield f"{case} {which}", _largest(rotate(x, rotation), wanted)


def _table(num_positions: int, width: int, *, rounded: bool = False) -> Rotation:
    positions = torch.arange(num_positions).expand(1, 2, -1)
    angles = "float16" if rounded else "float32"
    return rotation_of(positions, width, 1, torch.float32, angles=angles)


def _frequencies(width: int, rounded: bool) -> torch.Tensor:
    """Read the inverse frequencies off the angle of position 1."""
    rotation = _table(2, width, rounded=rounded)
    return torch.atan2(rotation.sin, rotation.cos)[0, 1, 0, 0]


def _largest(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Give the largest difference, relative to the largest number where that exceeds 1."""
    if found.shape != wanted.shape:
        return MISMATCH
    return float((found - wanted).abs().max() / max(1.0, float(wanted.abs().max())))
