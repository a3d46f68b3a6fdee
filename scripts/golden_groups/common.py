"""What every group of golden vectors shares: its shape, and the reading of the common files."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from blankfill.objective import SpecialIds

Case = tuple[str, float | str]
"""Name of a case and its largest difference; or, in words, why no public function offers it."""
MISMATCH = float("inf")
"""Difference of things of different shapes."""


@dataclass(frozen=True)
class Group:
    """One line of the report."""

    name: str
    """As it is printed."""
    run: Callable[[Path], Iterator[Case]]
    """From the folder to its cases."""
    tolerance: float
    """Largest difference that passes."""
    needs: tuple[str, ...]
    """Files and folders that it reads."""

    def lacks(self, folder: Path) -> str | None:
        """Name the first file that the folder does not have, or None."""
        return next((name for name in self.needs if not (folder / name).exists()), None)


def special_ids(folder: Path) -> SpecialIds:
    """Read the fake special tokens that all vectors use."""
    ids = json.loads((folder / "special_ids.json").read_text())["special_ids"]
    return SpecialIds(
        pad=ids["pad"], eos=ids["eos"], mask=ids["MASK"], gmask=ids["gMASK"], smask=ids["sMASK"],
        sop=ids["sop"], eop=ids["eop"], dblock=ids["dBLOCK"],
        mask_sentinels=_numbered(ids, "MASK"), sop_sentinels=_numbered(ids, "sop"),
    )  # fmt: skip


def _numbered(ids: dict[str, int], name: str) -> tuple[int, ...]:
    """Give the ids of MASK1, MASK2, ... as far as there are any."""
    known = itertools.takewhile(ids.__contains__, (f"{name}{k}" for k in itertools.count(1)))
    return tuple(ids[key] for key in known)


def difference(found: Any, wanted: Any) -> float:
    """Give the largest difference of two arrays of whole numbers."""
    found, wanted = np.asarray(found, np.int64), np.asarray(wanted, np.int64)
    if found.shape != wanted.shape:
        return MISMATCH
    return float(np.abs(found - wanted).max(initial=0))
