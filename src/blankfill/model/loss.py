"""The loss: logits only where there is a target, cross-entropy in float32, a chunk at a time.

The gradient of cross-entropy is known as soon as the logits are, so the forward pass computes both
and the `[n, V]` logits of all targets never exist together.

Shapes: B rows, T positions, n targets, D hidden, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch

from blankfill.model.glm import GLM

__all__ = ["blank_loss"]

IGNORE_INDEX = -100
"""Target of a position that predicts nothing; the objective's constant of the same name."""
CHUNK_ELEMENTS = 4_000_000
"""Logits held at a time: 16 MB in float32, about what a CPU's last cache holds."""


def blank_loss(
    model: GLM,
    hidden: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum the weighted negative log-likelihood of the targets.

    Args:
        model: whose output layer scores the hidden states.
        hidden: `[B, T, D]` from `model(...)`.
        targets: `[B, T]` ids; `IGNORE_INDEX` where nothing is predicted.
        weights: `[B, T]` loss weights; 1 where not given.

    Returns:
        The weighted sum in nats (float32 or wider, differentiable), and `[n]` unweighted nats of
        each target in row-major order (detached).
    """
    index = (targets != IGNORE_INDEX).flatten().nonzero().squeeze(1)
    picked = hidden.flatten(0, 1).index_select(0, index)
    wanted = targets.flatten().index_select(0, index)
    scale = None if weights is None else weights.flatten().index_select(0, index)
    matrix = model.head_weight
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        picked = picked.to(torch.get_autocast_dtype(device))
    return _ChunkedCrossEntropy.apply(picked, matrix, wanted, scale)  # pyright: ignore[reportReturnType]  # apply is untyped


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the base has *args
        ctx: Any,
        hidden: torch.Tensor,
        matrix: torch.Tensor,
        targets: torch.Tensor,
        scale: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        narrow = matrix.to(hidden.dtype)  # the gradient of the weights keeps their own precision
        needs_grad = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        rows = max(1, CHUNK_ELEMENTS // matrix.shape[0])
        nll = hidden.new_empty(len(targets), dtype=wide)
        grad_hidden = torch.empty_like(hidden) if needs_grad else None
        grad_matrix = matrix.new_zeros(matrix.shape, dtype=wide) if needs_grad else None
        for start in range(0, len(targets), rows):
            part = slice(start, start + rows)
            wanted = targets[part, None]
            log_probs = torch.log_softmax(hidden[part] @ narrow.T, dim=-1, dtype=wide)
            nll[part] = -log_probs.gather(1, wanted)[:, 0]
            if grad_hidden is None or grad_matrix is None:
                continue
            grad = log_probs.exp_()
            grad.scatter_add_(1, wanted, grad.new_full((1, 1), -1.0).expand(wanted.shape))
            if scale is not None:
                grad *= scale[part, None]
            grad = grad.to(hidden.dtype)
            torch.mm(grad, narrow, out=grad_hidden[part])
            grad_matrix += grad.T @ hidden[part]
        if grad_hidden is not None and grad_matrix is not None:
            ctx.save_for_backward(grad_hidden, grad_matrix)
        ctx.mark_non_differentiable(nll)
        total = (nll if scale is None else nll * scale).sum()
        return total, nll

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, _grad_nll: torch.Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]  # as above
        grad_hidden, grad_matrix = ctx.saved_tensors
        return grad_hidden * grad.to(grad_hidden.dtype), grad_matrix * grad, None, None
