"""The compiled twin of GeGLU's gate (`model/mlp.py`) for bfloat16: one pass over
memory forward and one backward, where tensor operations take several."""

from __future__ import annotations

from typing import Any

import torch

from blankfill.kernels.native import Native, load_native

__all__ = ["geglu_in_c"]


def geglu_in_c(up: torch.Tensor, gate: torch.Tensor) -> torch.Tensor | None:
    """Give `up * gelu(gate)`, where the compiled form is there and knows this case.

    It is rounded once, from float32, where tensor operations round the activation as well.

    Args:
        up: `[..., F]`, as `gate`.
        gate: what goes through the activation.

    Returns:
        `[..., F]`, or None: torch's own compiler is at work, which joins tensor operations
        itself, or the compiled form does not fit.
    """
    bfloat16 = up.dtype == gate.dtype == torch.bfloat16 and up.device.type == "cpu"
    if not bfloat16 or torch.compiler.is_compiling() or (native := load_native()) is None:
        return None
    gated: torch.Tensor = _Gate.apply(up.contiguous(), gate.contiguous(), native)  # pyright: ignore[reportAssignmentType]  # apply is untyped
    return gated


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the base has *args
        ctx: Any, up: torch.Tensor, gate: torch.Tensor, native: Native
    ) -> torch.Tensor:
        ctx.save_for_backward(up, gate)
        ctx.native = native
        return native.gate(up, gate)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]  # as above
        return *ctx.native.gate_backward(grad.contiguous(), *ctx.saved_tensors), None
