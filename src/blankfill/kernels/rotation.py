"""The compiled twin of `model/rope.py`'s rotation: one pass over memory, where tensor operations
take six.

For float32 it gives the same bits; bfloat16 is rounded once, from float32, where tensor operations
round every product and every sum.
"""

from __future__ import annotations

from typing import Any

import torch

from blankfill.kernels.native import TYPES, Native, load_native

__all__ = ["rotate_in_c"]


def rotate_in_c(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor | None:
    """Rotate as `model.rope.rotate`, where the compiled form is there and knows this case.

    Args:
        x: `[B, T, N, H]`.
        cos: `[B, T, 1, parts, H / parts / 2]`, as `sin`.
        sin: of the angles.

    Returns:
        `[B, T, N, H]`, or None: torch's own compiler is at work, which joins tensor operations
        itself, or the compiled form does not fit.
    """
    fits = x.device.type == "cpu" and x.dtype in TYPES and cos.dtype == torch.float32 and x.numel()
    if not fits or torch.compiler.is_compiling():
        return None
    if cos.shape[:2] != x.shape[:2] or (native := load_native()) is None:
        return None
    rotated: torch.Tensor = _Rotate.apply(x, cos.contiguous(), sin.contiguous(), native)  # pyright: ignore[reportAssignmentType]  # apply is untyped
    return rotated


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the base has *args
        ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, native: Native
    ) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.native = native
        return native.rotate(x, cos, sin, 1.0)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]  # as above
        return ctx.native.rotate(grad, *ctx.saved_tensors, -1.0), None, None, None
