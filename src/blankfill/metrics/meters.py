"""Loss sums by kind, language and source, and rates, between two lines of metrics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from blankfill.objective.batch import IGNORE_INDEX, Batch, Kind
from blankfill.text.language import LANGUAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    """Sums of negative log-likelihood and target counts per kind, language and source."""

    def __init__(self) -> None:
        shape = (len(Kind), len(LANGUAGES), 0)
        self._nll = np.zeros(shape)
        self._count = np.zeros(shape, dtype=np.int64)

    def add(self, batch: Batch, nll: npt.NDArray[np.float32]) -> None:
        """Add one batch.

        Args:
            batch: the batch that was scored.
            nll: `[n]` nats of each target, row-major, as `blank_loss` returns them.
        """
        example = example_of_targets(batch)
        more = int(batch.sources.max(initial=0)) + 1 - self._nll.shape[2]
        if more > 0:
            self._nll = np.pad(self._nll, ((0, 0), (0, 0), (0, more)))
            self._count = np.pad(self._count, ((0, 0), (0, 0), (0, more)))
        index = (
            batch.kinds[example].astype(np.int64),
            batch.languages[example].astype(np.int64),
            batch.sources[example],
        )
        np.add.at(self._nll, index, nll.astype(np.float64))
        np.add.at(self._count, index, 1)

    def state(self) -> dict[str, Any]:
        """Give what a checkpoint keeps: number of sources, and `[kind, language, source, nats,
        count]` of each group that has targets."""
        return {
            "sources": self._nll.shape[2],
            "groups": [
                [*group, float(self._nll[tuple(group)]), int(self._count[tuple(group)])]
                for group in np.argwhere(self._count).tolist()
            ],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave."""
        self._nll = np.zeros((len(Kind), len(LANGUAGES), state["sources"]))
        self._count = np.zeros(self._nll.shape, dtype=np.int64)
        for *group, nll, count in state["groups"]:
            self._nll[tuple(group)], self._count[tuple(group)] = nll, count

    @property
    def num_targets(self) -> int:
        """Targets added so far."""
        return int(self._count.sum())

    def means(self) -> dict[str, float]:
        """Give mean nats per target: over all, per kind, per language, and per source where there
        are several; empty ones are left out."""
        return {f"loss_nats{suffix}": nll / count for suffix, nll, count in self._groups() if count}

    def counts(self) -> dict[str, int]:
        """Give the number of targets of the same groups, but not of all."""
        groups = ((suffix, count) for suffix, _, count in self._groups())
        return {f"targets{suffix}": count for suffix, count in groups if suffix and count}

    def _groups(self) -> Iterator[tuple[str, float, int]]:
        names = (
            [kind.name.lower() for kind in Kind],
            LANGUAGES,
            [f"source_{i}" for i in range(self._nll.shape[2])],
        )
        yield "", float(self._nll.sum()), self.num_targets
        for axis, labels in enumerate(names):
            if axis == 2 and len(labels) < 2:
                continue
            others = tuple(a for a in range(3) if a != axis)
            sums, counts = self._nll.sum(others), self._count.sum(others)
            for label, nll, count in zip(labels, sums.tolist(), counts.tolist(), strict=True):
                yield f"_{label}", nll, count


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
