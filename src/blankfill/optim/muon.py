"""Muon (Jordan et al. 2024): momentum, made orthogonal, for matrices.

As `torch.optim.Muon`, with one difference: torch's Newton-Schulz iteration always multiplies in
bfloat16, which a CPU without instructions for it emulates. There it took twice as long as the rest
of the training step of a small model; in float32 it takes a few per cent of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

__all__ = ["Muon", "orthogonalize"]

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration, steepest at zero (Jordan et al. 2024)."""
NUM_ITERATIONS = 5
_EPS = 1e-7
_RMS = 0.2
"""Size of AdamW's update, that Muon's is scaled to (Liu et al. 2025, "Muon is Scalable")."""


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised and scaled to the size of AdamW's update.

    Args:
        parameters: matrices.
        lr: learning rate, the same as AdamW's.
        momentum: decay of the mean gradient.
        weight_decay: decoupled decay.
    """

    def __init__(
        self,
        parameters: Iterable[torch.Tensor],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # the base may return the closure's loss
        """Move every matrix once."""
        assert closure is None, "the gradient is computed before the step"
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)

    def _move(self, parameter: torch.Tensor, grad: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        mean = state["momentum_buffer"].lerp_(grad, 1 - group["momentum"])
        update = orthogonalize(grad.lerp(mean, group["momentum"]), _precision(grad.device.type))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update, alpha=-group["lr"] * _RMS * math.sqrt(max(parameter.shape)))


def orthogonalize(matrix: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Bring the singular values of a matrix near 1.

    Args:
        matrix: `[m, n]`.
        dtype: of the products.

    Returns:
        `[m, n]` in `dtype`, singular values roughly in (0.5, 1.5).
    """
    a, b, c = NEWTON_SCHULZ
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.T).to(dtype)
    x = x / x.norm().clamp(min=_EPS)
    for _ in range(NUM_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.T


def _precision(device: str) -> torch.dtype:
    if device != "cpu":
        return torch.bfloat16
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # pyright: ignore[reportPrivateUsage]  # torch has no public question for it
    return torch.bfloat16 if native else torch.float32
