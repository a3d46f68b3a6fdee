"""The arithmetic of one step around the model: its gradient, and averaged weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from blankfill.config.train import AttentionKind
from blankfill.errors import DataError
from blankfill.model.glm import GLM
from blankfill.model.loss import batch_loss
from blankfill.objective.batch import Batch, Float32
from blankfill.train.transfer import precision_context, to_tensors

__all__ = ["forward_backward", "move_average"]


def forward_backward(
    model: GLM, batches: Sequence[Batch], dtype: torch.dtype, *, attention: AttentionKind,
    z_loss: float = 0.0, scale: float | None = None,
) -> tuple[float, list[Float32]]:  # fmt: skip
    """Leave the gradient of the weighted mean loss in the parameters.

    Args:
        model: without gradients.
        batches: the step's micro-batches.
        dtype: arithmetic of matrix products.
        attention: how attention is computed.
        z_loss: weight of the squared log of the softmax's denominator.
        scale: multiply the loss on its way back, and divide the gradients after it.

    Returns:
        The loss in nats, and of each micro-batch `[n]` nats of its targets in row-major order.

    Raises:
        DataError: the batches have no targets.
    """
    total_weight = sum(float(batch.weights.sum()) for batch in batches)
    if not total_weight:
        raise DataError("a step has no targets; is the training text empty?")
    loss_nats = 0.0
    nlls: list[Float32] = []
    for batch in batches:
        tensors = to_tensors(batch, attention)
        with precision_context(dtype):
            loss, nll = batch_loss(
                model, tensors.tokens, tensors.positions, tensors.mask, tensors.targets,
                tensors.weights, z_loss,
            )  # fmt: skip
        loss = loss / total_weight
        loss_nats += loss.item()
        (loss if scale is None else loss * scale).backward()
        nlls.append(nll.numpy())
    if scale is not None:
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad /= scale
    return loss_nats, nlls


@torch.no_grad()
def move_average(average: dict[str, torch.Tensor], model: GLM, decay: float) -> None:
    """Move averaged weights towards a model's; none are kept where `average` is empty."""
    if average:
        now = model.state_dict()
        for name, value in average.items():
            value.lerp_(now[name], 1 - decay)
