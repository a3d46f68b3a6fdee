"""A stage of a pipeline: some blocks, with the embedding before the first and the head after the
last, as a schedule calls it and as a model that is asked calls it.

Only hidden states travel. Tokens, positions, masks and targets are made in every process of a
pipeline from the same rows, so a pass is told its number and looks up the rest.

Shapes: B rows, T positions, D hidden, n targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from blankfill.engine.device import precision_context
from blankfill.engine.gradient import Drawing
from blankfill.engine.transfer import TensorBatch
from blankfill.model.glm import GLM
from blankfill.model.loss import Loss

__all__ = ["Passes", "Stage"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Passes:
    """The passes of a step: what they compute, and what the last stage has found of each."""

    batches: Sequence[TensorBatch]
    """The micro-batches of the step."""
    dtype: torch.dtype
    """Arithmetic of matrix products."""
    total_weight: float
    """Of all targets of the step, which the sum of their losses is divided by."""
    z_loss: float
    """As the model takes it."""
    shrink: float
    """Share of the gradient that reaches the word embedding."""
    scale: float | None
    """What the loss is multiplied by for the backward pass."""
    draws: Drawing
    """What dropout follows from."""
    begun: Callable[[], None]
    """Called as a pass begins."""
    found: dict[int, Loss] = field(default_factory=dict[int, Loss])
    """By micro-batch its part of the step's loss, in nats, and the nats of its targets."""


class Stage(nn.Module):
    """One stage.

    Args:
        part: of the model, the other parts of which are None.
        dtype: of the hidden states between stages.
    """

    def __init__(self, part: GLM, dtype: torch.dtype) -> None:
        super().__init__()
        self.part, self.dtype = part, dtype
        self.passes: Passes | None = None
        """Those of the step at hand."""

    def forward(
        self, x: torch.Tensor | None = None, *given: Any, number: int | None = None, **options: Any
    ) -> torch.Tensor | Loss:
        """Compute a pass of the step at hand, or what is asked of the model outside of one.

        Args:
            x: `[B, T, D]` hidden states of the stage before; of the first stage ids, which a pass
                looks up.
            given: what else the model is called with, where it is no pass.
            number: of the pass.
            options: as `given`, by name.

        Returns:
            Hidden states for the stage after; of the last stage, what the model gives, and in a
            pass the loss that the backward pass begins from.
        """
        if number is None:
            return self._for_next(self.part(x, *given, **options))
        passes = self.passes
        assert passes is not None, "a pass belongs to a step"
        passes.begun()
        batch = passes.batches[number]
        with precision_context(passes.dtype, batch.tokens.device):
            made = self.part(
                batch.tokens if self.part.embed is not None else x, batch.positions, batch.mask,
                targets=batch.targets, z_loss=passes.z_loss, shrink=passes.shrink,
                draws=passes.draws(batch),
            )  # fmt: skip
        if not isinstance(made, Loss):
            return self._for_next(made)
        loss = made.total / passes.total_weight
        passes.found[number] = Loss(loss.detach(), made.nats)
        return loss if passes.scale is None else loss * passes.scale

    def _for_next(self, made: Any) -> Any:
        """Give hidden states the type in which they travel; leave what is no such thing."""
        ends = self.part.head is not None
        return made if ends or not isinstance(made, torch.Tensor) else made.to(self.dtype)
