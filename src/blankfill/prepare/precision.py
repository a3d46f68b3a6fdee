"""Which precision a run's products have on a CPU: bfloat16 where that is quicker, not where it is.

A processor may have instructions for bfloat16 and little to gain from them. A run rounds
differently in each precision, so what it began with it keeps.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import torch

from blankfill.config.run import RunConfig
from blankfill.engine.device import choose_precision
from blankfill.model.glm import GLM, device_of
from blankfill.objective.batch import Batch
from blankfill.prepare.timing import median_seconds
from blankfill.prepare.trial import Trial

__all__ = ["fastest_precision", "settle_precision"]

log = logging.getLogger(__name__)

LEAST_SECONDS = 60.0
"""A run that takes less than this in bfloat16 is not measured: it has nothing to earn back, and a
timing may not decide what two runs of a moment compute."""
LEAST_GAIN = 0.1
"""float32, which rounds less, is given up for no smaller share of its time."""


def settle_precision(
    cfg: RunConfig, model: GLM, rows: Callable[[int], Batch], *, before: str | None = None
) -> torch.dtype:
    """Settle a run's precision: as named, as before, or on a CPU by measurement.

    Args:
        cfg: the run.
        model: on the device where it trains; left without gradients.
        rows: makes a batch of so many rows of it.
        before: what the run that is resumed took on such a device, such as `bfloat16`.

    Returns:
        The type of the products. On a GPU `auto` is bfloat16 wherever it has instructions for it.

    Raises:
        ConfigError: bfloat16 was asked for by name on a device that would emulate it.
    """
    device, named = device_of(model), cfg.precision
    lowest = choose_precision(named, device)
    if named != "auto":
        return lowest
    if before == "bfloat16" and lowest == torch.float32:
        log.warning(
            "this run's products were bfloat16 so far, which this processor would emulate; from "
            "here on they are float32"
        )
    if lowest == torch.float32 or device.type != "cpu":
        return lowest
    if before is not None:
        return torch.float32 if before == "float32" else lowest
    return fastest_precision(cfg, model, rows)


def fastest_precision(cfg: RunConfig, model: GLM, rows: Callable[[int], Batch]) -> torch.dtype:
    """Time some rows forward and backward in float32 and in bfloat16, and name the one to take.

    Arguments are those of `settle_precision`.
    """
    device, trial = device_of(model), Trial(cfg, model, rows)
    if not trial.num_targets:
        return torch.bfloat16  # rows of padding alone tell nothing
    wide, narrow = (functools.partial(trial.step, x) for x in (torch.float32, torch.bfloat16))
    (first,) = median_seconds(device, narrow, warm=1, timed=1)
    if trial.seconds_of_run(first) < LEAST_SECONDS:
        return torch.bfloat16
    of_wide, of_narrow = median_seconds(device, wide, narrow, warm=1, timed=3)
    pays = of_narrow <= (1 - LEAST_GAIN) * of_wide
    log.debug(
        "precision, %s: float32 %.1f ms, bfloat16 %.1f ms; taking %s",
        trial, 1000 * of_wide, 1000 * of_narrow, "bfloat16" if pays else "float32",
    )  # fmt: skip
    return torch.bfloat16 if pays else torch.float32
