"""Loss sums by kind, language and source, and rates, between two lines of metrics."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import numpy.typing as npt

from blankfill.config.model import ModelConfig
from blankfill.metrics.flops import Flops, training_flops
from blankfill.objective.batch import IGNORE_INDEX, Batch, Kind
from blankfill.text.language import LANGUAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LossMeter", "RateMeter", "count_flops", "example_of_targets"]

RECENT_STEPS = 20
"""Steps whose rates a progress bar shows."""
NO_FLOPS = Flops(model=0, dense=0)


def example_of_targets(batch: Batch) -> npt.NDArray[np.int64]:
    """Tell which example each target belongs to.

    Returns:
        `[n]` index into the batch's examples, targets in row-major order.
    """
    example = np.zeros(batch.targets.shape, dtype=np.int64)
    for k, (row, start, _, end) in enumerate(batch.blocks):
        example[row, start:end] = k
    return example[batch.targets != IGNORE_INDEX]


def count_flops(cfg: ModelConfig, batches: Sequence[Batch]) -> Flops:
    """Count the operations of a step's forward and backward passes."""
    counts = [training_flops(cfg, b.blocks, b.num_targets, b.tokens.shape) for b in batches]
    return Flops(model=sum(c.model for c in counts), dense=sum(c.dense for c in counts))


class LossState(TypedDict):
    """What a checkpoint keeps of a `LossMeter`."""

    sources: int
    """Number of sources."""
    groups: tuple[tuple[int, int, int, float, int], ...]
    """Kind, language, source, nats and number of targets of each group that has targets."""


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
            nll: `[n]` nats of each target, row-major, as the model gives them.
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

    def state(self) -> LossState:
        """Give what a checkpoint keeps."""
        return {
            "sources": self._nll.shape[2],
            "groups": tuple(
                (k, i, s, float(self._nll[k, i, s]), int(self._count[k, i, s]))
                for k, i, s in np.argwhere(self._count).tolist()
            ),
        }

    def load(self, state: LossState) -> None:
        """Take up what `state` gave."""
        self._nll = np.zeros((len(Kind), len(LANGUAGES), state["sources"]))
        self._count = np.zeros(self._nll.shape, dtype=np.int64)
        for k, i, s, nats, count in state["groups"]:
            self._nll[k, i, s], self._count[k, i, s] = nats, count

    @classmethod
    def of_all(cls, states: Sequence[LossState]) -> LossMeter:
        """Add up what several meters gave."""
        meter = cls()
        meter.load({"sources": max(state["sources"] for state in states), "groups": ()})
        for state in states:
            for k, i, s, nats, count in state["groups"]:
                meter._nll[k, i, s] += nats
                meter._count[k, i, s] += count
        return meter

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
    """Rates of the training steps since the last reading, and what everything else cost.

    Only the time of steps counts into rates; validations and saves are paused for, and their share
    of all time can be asked for.

    Args:
        peak_flops_per_second: what utilisation is measured against; 0 leaves it out.
    """

    def __init__(self, peak_flops_per_second: float = 0.0) -> None:
        self._peak = peak_flops_per_second
        self._start = self._mark = time.monotonic()
        self._paused: dict[str, float] = {}
        self._sums = np.zeros(5)
        self._recent: deque[npt.NDArray[np.float64]] = deque(maxlen=RECENT_STEPS)

    def add(self, positions: int, targets: int, flops: Flops = NO_FLOPS) -> float:
        """Count one step, which ends now; give its seconds."""
        now = time.monotonic()
        seconds, self._mark = now - self._mark, now
        step = np.array([seconds, positions, targets, flops.model, flops.dense], float)
        self._sums += step
        self._recent.append(step)
        return seconds

    def pause(self, reason: str) -> float:
        """Leave out the time since the last step or pause, and count it for `reason`.

        Returns:
            Its seconds.
        """
        now = time.monotonic()
        seconds, self._mark = now - self._mark, now
        self._paused[reason] = self._paused.get(reason, 0.0) + seconds
        return seconds

    def step_seconds(self) -> float:
        """Give the mean time of the last steps; 0 before the first."""
        return float(np.mean([step[0] for step in self._recent])) if self._recent else 0.0

    def share(self, reason: str) -> float:
        """Give the share of all time so far that was paused for `reason`."""
        return self._paused.get(reason, 0.0) / max(time.monotonic() - self._start, 1e-9)

    def read(self) -> dict[str, float]:
        """Give the rates since the last reading and start again."""
        rates = self._rates(self._sums)
        self._sums = np.zeros(5)
        return rates

    def notes(self) -> tuple[str, ...]:
        """Write the rates of the last steps as a progress bar shows them."""
        rates = self._rates(np.sum(self._recent, axis=0)) if self._recent else {}
        targets = f"{rates.get('targets_per_second', 0):,.0f} targets/s"
        return (targets, f"MFU {100 * rates['mfu']:.0f} %") if "mfu" in rates else (targets,)

    def _rates(self, sums: npt.NDArray[np.float64]) -> dict[str, float]:
        positions, targets, done, dense = (sums[1:] / max(sums[0], 1e-9)).tolist()
        rates = {
            "positions_per_second": round(positions, 1),
            "targets_per_second": round(targets, 1),
        }
        if done:
            rates |= {"flops_per_second_model": round(done), "flops_per_second_dense": round(dense)}
        if done and self._peak:
            # A rate above a measured peak shows that the peak was measured on a busy machine.
            self._peak = max(self._peak, done)
            rates |= {"peak_flops_per_second": round(self._peak), "mfu": done / self._peak}
        return rates
