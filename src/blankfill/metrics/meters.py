"""Loss sums by kind and language, and rates, between two lines of metrics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from blankfill.objective.batch import IGNORE_INDEX, Batch, Kind
from blankfill.text.language import LANGUAGES

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LossMeter", "RateMeter", "example_of_targets"]


def example_of_targets(batch: Batch) -> npt.NDArray[np.int64]:
    """Tell which example each target belongs to.

    Returns:
        `[n]` index into the batch's examples, targets in row-major order.
    """
    example = np.zeros(batch.targets.shape, dtype=np.int64)
    for k, (row, start, _, end) in enumerate(batch.blocks):
        example[row, start:end] = k
    return example[batch.targets != IGNORE_INDEX]


class LossMeter:
    """Sums of negative log-likelihood and target counts per kind and language."""

    def __init__(self) -> None:
        shape = (len(Kind), len(LANGUAGES))
        self._nll = np.zeros(shape)
        self._count = np.zeros(shape, dtype=np.int64)

    def add(self, batch: Batch, nll: npt.NDArray[np.float32]) -> None:
        """Add one batch.

        Args:
            batch: the batch that was scored.
            nll: `[n]` nats of each target, row-major, as `blank_loss` returns them.
        """
        example = example_of_targets(batch)
        index = (batch.kinds[example].astype(np.int64), batch.languages[example].astype(np.int64))
        np.add.at(self._nll, index, nll.astype(np.float64))
        np.add.at(self._count, index, 1)

    @property
    def num_targets(self) -> int:
        """Targets added so far."""
        return int(self._count.sum())

    def means(self) -> dict[str, float]:
        """Give mean nats per target: over all, per kind, per language; empty ones are left out."""
        groups: list[tuple[str, Sequence[int] | slice, Sequence[int] | slice]] = [
            ("", slice(None), slice(None)),
            *((f"_{kind.name.lower()}", [kind], slice(None)) for kind in Kind),
            *((f"_{name}", slice(None), [code]) for code, name in enumerate(LANGUAGES)),
        ]
        means: dict[str, float] = {}
        for suffix, kinds, languages in groups:
            count = self._count[kinds, :][:, languages].sum()
            if count:
                means[f"loss_nats{suffix}"] = float(self._nll[kinds, :][:, languages].sum() / count)
        return means


class RateMeter:
    """Positions and targets per second of wall time since the last reading."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._positions = self._targets = 0

    def add(self, positions: int, targets: int) -> None:
        """Count one step."""
        self._positions += positions
        self._targets += targets

    def read(self) -> dict[str, float]:
        """Give the rates since the last reading and start again."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        rates = {
            "positions_per_second": round(self._positions / seconds, 1),
            "targets_per_second": round(self._targets / seconds, 1),
        }
        self.__init__()
        return rates
