"""How long a call takes on a device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

__all__ = ["median_seconds"]

WARM_CALLS, TIMED_CALLS = 3, 7
"""Calls that are done, then timed; the first ones compile, and take memory."""


def median_seconds(
    device: torch.device, *calls: Callable[[], object], warm: int = WARM_CALLS,
    timed: int = TIMED_CALLS,
) -> list[float]:  # fmt: skip
    """Time some calls and give the median seconds of each.

    They are timed in rounds, one call of each a round, because a machine's speed varies over time.

    Args:
        device: that is waited for.
        calls: what is timed.
        warm: how often each is done before.
        timed: how often each is timed.
    """
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(warm + timed):
        for call, of_call in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            of_call.append(time.perf_counter() - start)
    return [statistics.median(of_call[warm:]) for of_call in times]
