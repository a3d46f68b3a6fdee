"""Validation during training: the loss on fixed rows of held-out documents."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from blankfill.data.rows import RowSource
from blankfill.metrics import LossMeter
from blankfill.model.glm import GLM
from blankfill.model.loss import blank_loss
from blankfill.objective.batch import Batch
from blankfill.train.transfer import precision_context, to_tensors

__all__ = ["score_batches", "validation_batches"]


def validation_batches(rows: RowSource, *, max_rows: int, micro_batch_rows: int) -> list[Batch]:
    """Make the batches that every validation of a run scores: the first rows of epoch 0.

    Args:
        rows: stream over the held-out stores.
        max_rows: most rows to take; an epoch that is shorter is taken once.
        micro_batch_rows: rows of one forward pass.
    """
    num_rows = min(max_rows, rows.rows_in_epoch(0))
    full, rest = divmod(num_rows, micro_batch_rows)
    batches = [rows.batch(index, micro_batch_rows) for index in range(full)]
    if rest:
        batches += [rows.batch(index, 1) for index in range(num_rows - rest, num_rows)]
    return batches


@torch.no_grad()
def score_batches(
    model: GLM, batches: Sequence[Batch], dtype: torch.dtype, *, prefix: str = "validation_"
) -> dict[str, float]:
    """Score batches and name the means, such as `validation_loss_nats_zh`."""
    losses = LossMeter()
    for batch in batches:
        tensors = to_tensors(batch)
        with precision_context(dtype):
            hidden = model(tensors.tokens, tensors.positions, tensors.mask)
            _, nll = blank_loss(model, hidden, tensors.targets, tensors.weights)
        losses.add(batch, nll.numpy())
    return {prefix + key: value for key, value in losses.means().items()}
