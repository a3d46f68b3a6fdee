"""The learning rate of a step, as a pure function."""

from __future__ import annotations

import math

from blankfill.config.train import TrainConfig

__all__ = ["lr_at"]


def lr_at(step: int, cfg: TrainConfig) -> float:
    """Give the learning rate that step number `step` uses.

    Warm-up rises linearly from `peak / warmup_steps` at step 0 to the peak at step
    `warmup_steps - 1`; decay then falls from the peak to `min_lr_ratio * peak`, which the last
    step (`steps - 1`) reaches and later steps keep. `wsd` keeps the peak until `cooldown_steps`
    before the end and then falls linearly (Hu et al. 2024, MiniCPM; linear decay to zero or a
    floor as in Hagele et al. 2024).

    Args:
        step: 0-based optimizer step.
        cfg: peak, warm-up, decay and length.
    """
    if step < cfg.warmup_steps:
        return cfg.peak_lr * (step + 1) / cfg.warmup_steps
    if cfg.schedule == "constant":
        return cfg.peak_lr
    start = cfg.warmup_steps
    if cfg.schedule == "wsd":
        cooldown = cfg.cooldown_steps or max(1, cfg.steps // 10)
        start = max(start, cfg.steps - 1 - cooldown)
        if step <= start:
            return cfg.peak_lr
    span = cfg.steps - 1 - start
    done = 1.0 if span <= 0 else min(1.0, (step - start) / span)
    left = 0.5 * (1 + math.cos(math.pi * done)) if cfg.schedule == "cosine" else 1 - done
    return cfg.peak_lr * (cfg.min_lr_ratio + (1 - cfg.min_lr_ratio) * left)
