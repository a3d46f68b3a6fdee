"""Dynamic loss scale for float16, as published for GLM-130B.

Gradients in float16 underflow below 6e-8, so the loss is multiplied before the backward pass and
the gradients divided after it. An overflow drops the step. Values: 2^16 at first, doubled after
`window` steps in a row without overflow, halved at an overflow once `hysteresis` overflows were
seen since it last grew, never below 1 (Zeng et al. 2022, table 11: window 2000, hysteresis 2).
Rule: Megatron-LM's DynamicGradScaler, which DeepSpeed's agrees with.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["LossScaler"]

FIRST_SCALE = 2.0**16
"""Zeng et al. 2022 (GLM-130B), table 11."""
HYSTERESIS = 2
"""Overflows after which the scale falls (same table)."""
LEAST_SCALE = 1.0
"""The scale falls no further (same table)."""


class LossScaler:
    """The scale of a run's loss.

    Args:
        window: steps in a row without overflow after which the scale doubles.
    """

    def __init__(self, window: int = 2000) -> None:
        self.window = window
        self.scale = FIRST_SCALE
        self._good_steps = 0
        self._patience = HYSTERESIS

    @property
    def exhausted(self) -> bool:
        """Whether the scale cannot fall further."""
        return self.scale <= LEAST_SCALE

    def update(self, *, overflow: bool) -> None:
        """Settle the scale of the next step."""
        if overflow:
            self._good_steps = 0
            self._patience -= 1
            if self._patience <= 0:
                self.scale = max(self.scale / 2, LEAST_SCALE)
            return
        self._good_steps += 1
        if self._good_steps == self.window:
            self._good_steps, self._patience = 0, HYSTERESIS
            self.scale *= 2

    def state(self) -> tuple[float, ...]:
        """Give what a checkpoint keeps."""
        return (self.scale, self._good_steps, self._patience)

    def load(self, state: Sequence[float]) -> None:
        """Restore what `state` gave."""
        self.scale, self._good_steps, self._patience = state[0], int(state[1]), int(state[2])
