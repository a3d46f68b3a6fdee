"""Validation during training: the loss on fixed rows of held-out documents, and what else is asked.

Filling blanks lives above (`evaluate.watch`) and is handed in as one more check.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from blankfill.data.rows import RowSource
from blankfill.engine.device import precision_context
from blankfill.engine.transfer import to_tensors
from blankfill.metrics import LossMeter, Sample
from blankfill.model.glm import GLM, device_of
from blankfill.objective.batch import Batch

__all__ = ["Check", "Validation", "run_checks", "score_batches", "validation_batches"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Validation:
    """What a validation found."""

    values: dict[str, float]
    """Metrics such as `validation_loss_nats_zh`."""
    samples: Sequence[Sample] = ()
    """Filled blanks to show."""

    def summary(self) -> str:
        """Say the loss, and the share of blanks filled exactly, in a line."""
        loss = self.values.get("validation_loss_nats")
        exact = [
            f"{key.removeprefix(EXACT_MATCH)} {value:.1%}"
            for key, value in self.values.items()
            if key.startswith(EXACT_MATCH)
        ]
        shown = [] if loss is None else [f"validation loss {loss:.4f} nats"]
        return ", ".join(shown + ([f"filled exactly {', '.join(exact)}"] if exact else []))

    def told(self, step: int, seconds: float, share: float) -> str:
        """Say what was found at a step, in how many seconds, which were that share of the time."""
        # Before the first step there is no other time that it could be a share of.
        shown = f", {100 * share:.1f} % of the time so far" if step else ""
        return f"step {step}: {self.summary()}; {seconds:.1f} s{shown}"


Check = Callable[[GLM], Validation]
"""Looks at a model in evaluation mode."""
EXACT_MATCH = "validation_exact_match_"
"""Key of the share of blanks filled exactly, before the language."""


def run_checks(model: GLM, checks: Sequence[Check]) -> Validation:
    """Run several checks and put together what they find."""
    found = [check(model) for check in checks]
    return Validation(
        values={key: value for one in found for key, value in one.values.items()},
        samples=[sample for one in found for sample in one.samples],
    )


def validation_batches(rows: RowSource, *, max_rows: int, micro_batch_rows: int) -> list[Batch]:
    """Make the batches that every validation of a run scores: the first rows of epoch 0.

    Args:
        rows: stream over the held-out stores.
        max_rows: most rows to take; an epoch that is shorter is taken once.
        micro_batch_rows: rows of one forward pass.
    """
    num_rows = rows.num_rows(0, at_most=max_rows)
    return [
        rows.rows(first, min(micro_batch_rows, num_rows - first))
        for first in range(0, num_rows, micro_batch_rows)
    ]


@torch.no_grad()
def score_batches(
    model: GLM, batches: Sequence[Batch], dtype: torch.dtype, *, prefix: str = "validation_"
) -> dict[str, float]:
    """Score batches and name the means, such as `validation_loss_nats_zh`."""
    losses, device = LossMeter(), device_of(model)
    for batch in batches:
        tensors = to_tensors(batch, device=device)
        with precision_context(dtype, device):
            _, nll = model(tensors.tokens, tensors.positions, tensors.mask, targets=tensors.targets)
        losses.add(batch, nll.cpu().numpy())
    return {prefix + key: value for key, value in losses.means().items()}
