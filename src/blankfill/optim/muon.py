"""Muon (Jordan et al. 2024): momentum, made orthogonal, for matrices.

As `torch.optim.Muon`, with two differences. Torch's Newton-Schulz iteration always multiplies in
bfloat16, which a CPU without instructions for it emulates: there it took twice as long as the rest
of the training step of a small model. Ours takes the precision as an argument, which changes the
loss by less than another seed does (`benchmarks/muon.py`). And it takes three iterations where
torch's takes five.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from torch.optim.optimizer import ParamsT

__all__ = ["Muon", "Orthogonalizer", "orthogonalize"]

NEWTON_SCHULZ = (
    (8.0934, -23.6204, 17.4462),
    (3.6366, -2.7219, 0.5365),
    (2.6613, -1.9772, 0.4526),
)
"""Coefficients of each quintic iteration. Each is the one that comes nearest to 1 over all of the
range that the iteration before leaves (the construction of Amsel et al. 2025, "Polar Express"),
from [0.01, 1] on. Three of them do what five of the fixed polynomial of Jordan et al. 2024 do."""
LONG = 2
"""From this ratio of its sides on, iterating on a matrix's Gram matrix costs less."""
_EPS = 1e-7
_RMS = 0.2
"""Size of AdamW's update, that Muon's is scaled to (Liu et al. 2025, "Muon is Scalable")."""


Orthogonalizer: TypeAlias = Callable[
    [Iterator[torch.Tensor], torch.dtype], Iterator[tuple[torch.Tensor, int]]
]
"""Makes updates orthogonal in a dtype; gives each with the longer side of the whole matrix, of
which an update may be a part."""


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised and scaled to the size of AdamW's update.

    Args:
        parameters: matrices, or groups of them as torch's optimizers take them.
        lr: learning rate, the same as AdamW's.
        momentum: decay of the mean gradient.
        weight_decay: decoupled decay.
        dtype: of the products that make a matrix orthogonal.
        orthogonalizer: does that; every matrix by itself where not given.
    """

    def __init__(
        self,
        parameters: ParamsT,
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        dtype: torch.dtype = torch.float32,
        orthogonalizer: Orthogonalizer | None = None,
    ) -> None:
        self._dtype, self._orthogonalizer = dtype, orthogonalizer or orthogonalize_each
        self.found_inf: torch.Tensor | None = None
        """`[]` on the device, 1 where a step leaves everything as it is; None where it moves."""
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # the base may return the closure's loss
        """Move every matrix once."""
        assert closure is None, "the gradient is computed before the step"
        for group in self.param_groups:
            lr, decay, momentum = group["lr"], group["weight_decay"], group["momentum"]
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            updates = (self._update(parameter, momentum) for parameter in moved)
            moves = self._orthogonalizer(updates, self._dtype)
            for parameter, (move, side) in zip(moved, moves, strict=True):
                before = self._before(parameter)
                parameter.mul_(1 - lr * decay)
                parameter.add_(move, alpha=-lr * _RMS * math.sqrt(side))
                self._keep(parameter, before)

    def _update(self, parameter: torch.Tensor, momentum: float) -> torch.Tensor:
        """Take the gradient into the mean of the gradients, and look ahead (Nesterov)."""
        state, grad = self.state[parameter], parameter.grad
        assert grad is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        mean = state["momentum_buffer"]
        before = self._before(mean)
        update = grad.lerp(mean.lerp_(grad, 1 - momentum), momentum)
        self._keep(mean, before)
        return update

    def _before(self, value: torch.Tensor) -> torch.Tensor | None:
        """Give what a tensor goes back to where a step leaves everything as it is."""
        return None if self.found_inf is None else value.clone()

    def _keep(self, value: torch.Tensor, before: torch.Tensor | None) -> None:
        """Go back to what was before, where the device has found that the step is not to be."""
        if before is not None and self.found_inf is not None:
            value.copy_(torch.where(self.found_inf > 0, before, value))


def orthogonalize_each(
    updates: Iterator[torch.Tensor], dtype: torch.dtype
) -> Iterator[tuple[torch.Tensor, int]]:
    """Make whole matrices orthogonal, one after the other."""
    for update in updates:
        yield orthogonalize(update, dtype), max(update.shape)


def orthogonalize(matrix: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Bring the singular values of a matrix near 1.

    Args:
        matrix: `[m, n]`.
        dtype: of the products.

    Returns:
        `[m, n]` in `dtype`, with the same singular vectors; a singular value of at least 0.01 of
        the root of the Gram matrix's norm comes into (0.73, 1.27), a smaller one is raised. In
        bfloat16 the largest ones may end a few tenths off, where the polynomials are steep.
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.T).to(dtype)
    x = x / x.norm().clamp(min=_EPS)
    # The root of the Gram matrix's norm bounds the largest singular value more closely than the
    # matrix's norm does: a flat spectrum of rank r begins at r ** -0.25 instead of r ** -0.5.
    gram = x @ x.T
    size = gram.norm().clamp(min=_EPS)
    x, gram = x / size.sqrt(), gram / size
    if dtype == torch.bfloat16 or x.shape[1] < LONG * x.shape[0]:
        for step, (a, b, c) in enumerate(NEWTON_SCHULZ):
            gram = x @ x.T if step else gram
            x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return x if wide else x.T
    # The polynomials are of the Gram matrix, which is the smaller one: their product first. Squared
    # singular values need float32.
    one = torch.eye(len(gram), dtype=dtype, device=gram.device)
    product = factor = one
    for step, (a, b, c) in enumerate(NEWTON_SCHULZ):
        gram = factor @ gram @ factor if step else gram
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c).add_(one, alpha=a)
        product = factor @ product if step else factor
    x = product @ x
    return x if wide else x.T
