"""What changes from step to step: the learning rate, and the embedding-gradient shrink."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from blankfill.config.common import COMMON
from blankfill.config.ranges import Range, Steps, check_numbers
from blankfill.errors import ConfigError

__all__ = ["ScheduleConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """The schedule; it ends with `train.steps`."""

    kind: Literal["cosine", "linear", "constant", "wsd", "glm_cosine", "glm_linear"] = "cosine"
    """Decay from the peak to the last learning rate. wsd (warm-up, stable, decay) stays at the peak
    until the last cooldown_steps, so a run can be cooled down from any of its checkpoints. The glm_
    forms are the released ones: step 0 does not move, and glm_linear goes on falling past its end.
    """
    peak_lr: Annotated[float, Range(1e-12, 10), COMMON] = 1e-3
    """Learning rate at the end of warm-up."""
    min_lr_ratio: Annotated[float, Range(0, 1)] = 0.1
    """Last learning rate as a share of peak_lr."""
    warmup_steps: Steps = 100
    """Steps of linear warm-up; 0 starts at the peak."""
    decay_steps: Steps = 0
    """Step at which the decay ends, warm-up included; 0 is the last step."""
    cooldown_steps: Steps = 0
    """Last steps of wsd, in which the rate falls linearly; 0 takes a tenth of steps."""
    shrink_hold_steps: Steps = 0
    """Steps for which model.embedding_gradient_shrink is held before it rises to 1."""
    shrink_rise_steps: Steps = 0
    """Steps over which it rises; 0 holds it for good."""

    def __post_init__(self) -> None:
        check_numbers(self, "schedule")
        if self.shrink_hold_steps and not self.shrink_rise_steps:
            raise ConfigError(
                f"schedule.shrink_hold_steps={self.shrink_hold_steps} needs "
                "schedule.shrink_rise_steps: without it the share is held for good"
            )

    def check_end(self, steps: int) -> None:
        """Refuse a schedule that falls below 0 before the run ends.

        Args:
            steps: of the run.

        Raises:
            ConfigError: it does.
        """
        span = (self.decay_steps or steps) - self.warmup_steps
        if self.kind != "glm_linear" or span <= 0:
            return
        if (1 - self.min_lr_ratio) * (steps - 1 - self.warmup_steps) > span:
            raise ConfigError(
                f"schedule.kind=glm_linear falls below 0 before train.steps={steps}, and a "
                f"negative learning rate climbs; raise schedule.decay_steps={self.decay_steps} or "
                f"schedule.min_lr_ratio={self.min_lr_ratio:g}"
            )
