"""The arithmetic of one step around the model: its gradient, and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from blankfill.config.run import RunConfig
from blankfill.engine.compiled import uncompiled
from blankfill.engine.device import precision_context
from blankfill.engine.transfer import TensorBatch
from blankfill.errors import DataError
from blankfill.model.dropout import Draws, address_draws
from blankfill.model.glm import GLM, device_of
from blankfill.optim import LossScaler

__all__ = [
    "bad_weights",
    "divide_gradients",
    "draws_by_row",
    "forward_backward",
    "gradient_norms",
    "layer_of",
    "lend",
    "lost_to_scale",
    "move_average",
    "require_targets",
    "seed_dropout",
]


Drawing = Callable[[TensorBatch], Draws | None]
"""Gives what the dropout of a micro-batch follows from; None where it is torch's generator."""


def seed_dropout(seed: int, step: int) -> None:
    """Draw dropout from the step's own seed, so that a resumed run drops the same units.

    Args:
        seed: the run's.
        step: 0-based optimizer step.
    """
    torch.manual_seed((seed * 1_000_003 + step) % 2**64)  # torch takes 64 bits


def draws_by_row(cfg: RunConfig, step: int, part: int = 0, parts: int = 1) -> Drawing:
    """Draw the dropout of each row from its own address, whatever it is computed beside.

    Args:
        cfg: the run.
        step: 0-based optimizer step.
        part: which of equal parts of the heads and positions is computed here.
        parts: how many there are.
    """

    def draw(batch: TensorBatch) -> Draws | None:
        num_rows, length = batch.tokens.shape
        rows = range(batch.first_row, batch.first_row + num_rows)
        return address_draws(
            cfg.train.seed, step, rows, num_layers=cfg.model.num_layers, length=length,
            device=batch.tokens.device,
        ).in_parts(part, parts) if cfg.model.drops else None  # fmt: skip

    return draw


def forward_backward(
    model: GLM, batches: Iterable[TensorBatch], dtype: torch.dtype, total_weight: float, *,
    z_loss: float = 0.0, shrink: float | None = None, scale: float | None = None,
    draws: Drawing | None = None,
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:  # fmt: skip
    """Leave the gradient of the weighted mean loss in the parameters.

    Args:
        model: without gradients.
        batches: the step's micro-batches, on the model's device.
        dtype: arithmetic of matrix products.
        total_weight: of all targets of the step, which the sum of their losses is divided by.
        z_loss: weight of the squared log of the softmax's denominator.
        shrink: share of the gradient that reaches the word embedding; the configuration's where not
            given.
        scale: what the loss is multiplied by for the backward pass, and the gradients divided by
            after it.
        draws: what dropout follows from; torch's generator where not given.

    Returns:
        Of each micro-batch its part of the loss in nats, and `[n]` nats of its targets in row-major
        order. They are left on the device: until one is read, the CPU runs ahead of a GPU.

    Raises:
        DataError: the step has no targets.
    """
    require_targets(total_weight)
    device = device_of(model)
    losses: list[torch.Tensor] = []
    nlls: list[torch.Tensor] = []
    for batch in batches:
        with precision_context(dtype, device):
            loss, nll = model(
                batch.tokens, batch.positions, batch.mask, targets=batch.targets, z_loss=z_loss,
                shrink=shrink, draws=draws(batch) if draws else None,
            )  # fmt: skip
        loss = loss / total_weight
        (loss if scale is None else loss * scale).backward()
        losses.append(loss.detach())
        nlls.append(nll)
    if scale is not None:
        divide_gradients(model, scale)
    return losses, nlls


def require_targets(total_weight: float) -> None:
    """Check that a step has something to learn.

    Raises:
        DataError: it has no targets.
    """
    if not total_weight:
        raise DataError("a step has no targets; is the training text empty?")


def divide_gradients(model: nn.Module, scale: float) -> None:
    """Divide the gradients by what the loss was multiplied by."""
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad /= scale


def lost_to_scale(scaler: LossScaler | None, loss_nats: float, grad_norm: float) -> bool:
    """Settle the loss scale of float16; tell whether the step is lost to an overflow alone."""
    if scaler is None:
        return False
    overflow, spent = not math.isfinite(grad_norm), scaler.exhausted
    scaler.update(overflow=overflow)
    return overflow and math.isfinite(loss_nats) and not spent


@contextmanager
def lend(model: GLM, *, compiled: bool) -> Generator[GLM]:
    """Lend a model in evaluation mode, uncompiled; training mode comes back."""
    model.eval()
    try:
        with uncompiled() if compiled else nullcontext():
            yield model
    finally:
        model.train()


@torch.no_grad()
def move_average(
    average: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor], decay: float, *,
    unless: torch.Tensor | None = None,
) -> None:  # fmt: skip
    """Move averaged weights towards a model's.

    Args:
        average: the averaged weights by name.
        weights: those that they follow.
        decay: share of them that stays.
        unless: `[]` on the device, 1 where they stay as they are and 0 where they move.
    """
    share = 1 - decay if unless is None else (1 - decay) * (1 - unless)
    for name, value in average.items():
        value.lerp_(weights[name], share)


def bad_weights(model: nn.Module) -> list[str]:
    """Name the weights that are not finite, with how many of their values."""
    found: list[str] = []
    for name, value in model.state_dict().items():
        # A sum is finite unless a value is not, or it overflows; only then look at each.
        if not torch.isfinite(value.sum()):
            count = int((~torch.isfinite(value)).sum())
            if count:
                found.append(f"{name} ({count} of {value.numel()} values)")
    return found


def gradient_norms(model: nn.Module) -> dict[str, float]:
    """Give the gradient norm of each layer: `blocks.0`, .., and each part outside the blocks."""
    squares: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            continue
        layer = layer_of(name)
        norm = float(torch.linalg.vector_norm(parameter.grad, dtype=torch.float64))
        squares[layer] = squares.get(layer, 0.0) + norm**2
    return {layer: math.sqrt(square) for layer, square in squares.items()}


def layer_of(name: str) -> str:
    """Name the layer that a parameter is of: `blocks.0`, .., or a part outside the blocks."""
    words = name.split(".")
    return ".".join(words[:2]) if words[0] in ("blocks", "embed") else words[0]
