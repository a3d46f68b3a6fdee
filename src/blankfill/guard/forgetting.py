"""The forgetting guard: what a model knew must not be lost while it learns something else.

Each held-out store is a suite. Its best loss so far, that of the weights the run started from
included, is what it is measured against, at every validation.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from blankfill.errors import TrainingError
from blankfill.metrics import read_metrics

__all__ = ["ForgettingGuard"]

log = logging.getLogger(__name__)

LOSS = "validation_loss_nats"
"""Key of the loss on one held-out store; where there are several, `_source_N` is appended."""


class ForgettingGuard:
    """Compares held-out losses with the best that the run has had.

    Args:
        run: the run's folder; a resumed run finds its best losses in the metrics there.
        names: names of the held-out stores.
        limit: share by which a loss may exceed its best.
        policy: warn goes on; stop ends the run.
    """

    def __init__(
        self, run: Path, names: Sequence[str], *, limit: float, policy: Literal["warn", "stop"]
    ) -> None:
        self._run, self._limit, self._policy = run, limit, policy
        several = len(names) > 1
        self._keys = {f"{LOSS}_source_{i}" if several else LOSS: n for i, n in enumerate(names)}
        self._best: dict[str, float] | None = None

    def judge(self, values: dict[str, float]) -> dict[str, float]:
        """Judge a validation.

        Args:
            values: its metrics.

        Returns:
            By how much each loss exceeds its best, as a share: `forgotten_share_NAME`.

        Raises:
            TrainingError: a loss exceeds its best by more than the limit, and the policy is stop.
        """
        if self._best is None:
            rows = read_metrics(self._run)
            self._best = {
                key: min((row[key] for row in rows if key in row), default=float("inf"))
                for key in self._keys
            }
        shares: dict[str, float] = {}
        for key, name in self._keys.items():
            if key not in values:
                continue
            best = self._best[key] = min(self._best[key], values[key])
            share = values[key] / best - 1 if best > 0 else 0.0
            shares[f"forgotten_share_{name}"] = share
            if share > self._limit:
                text = (
                    f"the loss on {name} is {values[key]:.4f} nats, {share:.1%} above its best, "
                    f"{best:.4f}; mix in more of the old text with --replay, or lower "
                    "--schedule.peak-lr"
                )
                if self._policy == "stop":
                    raise TrainingError(f"{text}; the checkpoints before it stay")
                log.warning("%s", text)
        return shares
