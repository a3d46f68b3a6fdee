"""Unusual steps: sudden rises of loss or gradient norm, and values that are not finite.

A spike is found by robust statistics over a window of steps whose updates were applied: a value
more than `threshold` robust standard deviations (1.4826 times the median absolute deviation) above
the median. Gradient norms are compared by their logarithm, which is closer to normal. A collapse
follows a spike of the gradient norm by a few steps (Zeng et al. 2022, section 3), so both are
watched.

The result depends only on the window: the same losses give the same decisions, so a resumed run
decides as the uninterrupted one does.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Guard", "Trouble", "robust_limit"]

MAD_TO_DEVIATION = 1.4826
"""Turns the median absolute deviation of normal values into their standard deviation."""
LEAST_LOSS_SHARE = 0.01
"""The deviation of losses counts as at least this share of their median."""
LEAST_LOG_NORM = 0.05
"""The deviation of log gradient norms counts as at least this: 5 % of the norm."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trouble:
    """What a guard found."""

    kind: Literal["loss spike", "gradient spike", "not finite", "weights not finite"]
    """What is unusual."""
    detail: str
    """The trouble with its numbers, in one sentence."""

    @property
    def finite(self) -> bool:
        """Whether an update could be applied all the same."""
        return self.kind in ("loss spike", "gradient spike")


class Guard:
    """Judges steps by those before them.

    Args:
        window: most steps to remember; a quarter of them must be known before a spike is reported.
        threshold: robust standard deviations above the median that make a spike.
    """

    def __init__(self, window: int, threshold: float) -> None:
        self._threshold, self._least = threshold, max(2, window // 4)
        self._losses: deque[float] = deque(maxlen=window)
        self._log_norms: deque[float] = deque(maxlen=window)

    def judge(self, loss_nats: float, grad_norm: float) -> Trouble | None:
        """Say what is unusual about a step, before its update."""
        if not (math.isfinite(loss_nats) and math.isfinite(grad_norm)):
            return Trouble(
                kind="not finite", detail=f"loss {loss_nats} and gradient norm {grad_norm}"
            )
        if len(self._losses) < self._least:
            return None
        middle, limit = robust_limit(
            self._losses, self._threshold, least=LEAST_LOSS_SHARE * statistics.median(self._losses)
        )
        if loss_nats > limit:
            return Trouble(
                kind="loss spike",
                detail=f"loss {loss_nats:.4g} nats, usual {middle:.4g}, limit {limit:.4g}",
            )
        middle, limit = robust_limit(self._log_norms, self._threshold, least=LEAST_LOG_NORM)
        if _log(grad_norm) > limit:
            return Trouble(
                kind="gradient spike",
                detail=f"gradient norm {grad_norm:.4g}, usual {math.exp(middle):.4g}, "
                f"limit {math.exp(limit):.4g}",
            )
        return None

    def accept(self, loss_nats: float, grad_norm: float) -> None:
        """Remember a step whose update was applied."""
        self._losses.append(loss_nats)
        self._log_norms.append(_log(grad_norm))

    def window(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Give the losses and the logarithms of the gradient norms that it remembers."""
        return tuple(self._losses), tuple(self._log_norms)

    def load(self, losses: Sequence[float], log_norms: Sequence[float]) -> None:
        """Restore what `window` gave."""
        for kept, values in ((self._losses, losses), (self._log_norms, log_norms)):
            kept.clear()
            kept.extend(values)


def robust_limit(
    values: Sequence[float] | deque[float], threshold: float, *, least: float = 0.0
) -> tuple[float, float]:
    """Give the median of values, and what lies `threshold` robust deviations above it.

    Args:
        values: at least one.
        threshold: robust standard deviations.
        least: the deviation counts as at least this.
    """
    middle = statistics.median(values)
    deviation = MAD_TO_DEVIATION * statistics.median(abs(value - middle) for value in values)
    return middle, middle + threshold * max(deviation, least)


def _log(norm: float) -> float:
    return math.log(max(norm, 1e-30))
