"""What changes from step to step, as pure functions: learning rate, embedding-gradient shrink."""

from __future__ import annotations

import math
from typing import Literal

from blankfill.config.schedule import ScheduleConfig

__all__ = ["annealing_lr", "lr_at", "shrink_at"]


def lr_at(step: int, cfg: ScheduleConfig, steps: int) -> float:
    """Give the learning rate that step number `step` uses.

    Warm-up rises linearly from `peak / warmup_steps` at step 0 to the peak at step
    `warmup_steps - 1`; decay then falls from the peak to `min_lr_ratio * peak`, which the last
    step of the decay (`decay_steps - 1`, or `steps - 1`) reaches and later steps keep. `wsd` keeps
    the peak until `cooldown_steps` before that and then falls linearly (Hu et al. 2024, MiniCPM;
    Hagele et al. 2024). The `glm_` forms are those of `annealing_lr`.

    Args:
        step: 0-based optimizer step.
        cfg: peak, warm-up and decay.
        steps: of the run.
    """
    last = cfg.decay_steps or steps
    if cfg.kind == "glm_cosine" or cfg.kind == "glm_linear":
        return annealing_lr(
            step, style="cosine" if cfg.kind == "glm_cosine" else "linear",
            peak=cfg.peak_lr, warmup=cfg.warmup_steps, span=last - cfg.warmup_steps,
            ratio=cfg.min_lr_ratio,
        )  # fmt: skip
    if step < cfg.warmup_steps:
        return cfg.peak_lr * (step + 1) / cfg.warmup_steps
    if cfg.kind == "constant":
        return cfg.peak_lr
    start = cfg.warmup_steps
    if cfg.kind == "wsd":
        start = max(start, last - 1 - (cfg.cooldown_steps or max(1, last // 10)))
        if step <= start:
            return cfg.peak_lr
    span = last - 1 - start
    done = 1.0 if span <= 0 else min(1.0, (step - start) / span)
    left = 0.5 * (1 + math.cos(math.pi * done)) if cfg.kind == "cosine" else 1 - done
    return cfg.peak_lr * (cfg.min_lr_ratio + (1 - cfg.min_lr_ratio) * left)


def annealing_lr(
    step: int,
    *,
    style: Literal["cosine", "linear", "constant"],
    peak: float,
    warmup: float,
    span: float,
    ratio: float,
) -> float:
    """Give GLM's learning rate (released `learning_rates.py`, `AnnealingLR`).

    `peak * t / warmup` up to and with step `warmup`, so step 0 does not move; then, with `u = (t -
    warmup) / span`, `peak * (ratio + (1 - ratio) * (1 + cos(pi * min(1, u))) / 2)` for cosine and
    `peak * (1 - (1 - ratio) * u)` for linear, which is not held at its end. GLM-130B's cosine is
    the same (Megatron's). Their runs take `span` as the steps of the decay less the warm-up.

    Args:
        step: 0-based optimizer step t.
        style: form of the decay.
        peak: learning rate at the end of warm-up.
        warmup: steps of warm-up.
        span: steps from the end of warm-up to the end of the decay.
        ratio: last learning rate as a share of the peak.
    """
    if warmup > 0 and step <= warmup:
        return peak * step / warmup
    if style == "constant":
        return peak
    u = (step - warmup) / span if span > 0 else 1.0
    if style == "linear":
        return peak * (1 - (1 - ratio) * u)
    return peak * (ratio + (1 - ratio) * (1 + math.cos(math.pi * min(1.0, u))) / 2)


def shrink_at(step: int, share: float, cfg: ScheduleConfig) -> float:
    """Give the share of the gradient that reaches the word embedding at step number `step`.

    GLM-130B's schedule (LargeScale, `shrink_embedding_gradient_steps`): `share` is held for
    `shrink_hold_steps`, then rises linearly to 1 over `shrink_rise_steps`; without these it is
    held for good.

    Args:
        step: 0-based optimizer step.
        share: the model's `embedding_gradient_shrink`.
        cfg: the two lengths.
    """
    if not cfg.shrink_rise_steps:
        return share
    done = (step - cfg.shrink_hold_steps) / cfg.shrink_rise_steps
    return share + (1 - share) * min(1.0, max(0.0, done))
