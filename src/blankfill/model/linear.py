"""Products with a matrix that may be kept in fewer bits than what it multiplies.

Weights that were stored in bfloat16 or float16 stay so in memory. A device that multiplies such
numbers itself does so under autocast, as in training, and so does a CPU with bfloat16 where that is
quicker (`generate.loading`). Else a CPU computes in float32: float16 products are several times
slower there. A piece of the matrix at a time is widened, multiplied, and forgotten: the result is
that of the widened matrix, and no more than a piece of it exists.

Shapes: D inputs, F outputs.
"""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import nn

from blankfill.model.quantized import QuantizedMatrix

__all__ = ["Joined", "Linear", "Matrix", "is_narrow", "product"]

Matrix = torch.Tensor | QuantizedMatrix
"""What is multiplied by."""

PIECE_ELEMENTS = 2**18
"""Numbers of a matrix that are widened at a time: 1 MiB in float32, what a core's own cache holds.
Measured on 4,096 x 4,096 in bfloat16, one core, one row: 3.4 ms so, 4.5 with four times as many,
33 with the whole matrix, and 2.9 where it is kept in float32."""


class Linear(nn.Linear):
    """`x W^T + b`, whatever type the weights are kept in."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]  # the base names it input
        """Map `[..., D]` to `[..., F]`."""
        return product(x, self.weight, self.bias)


def product(x: torch.Tensor, matrix: Matrix, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Multiply by the transpose of a matrix and add a bias.

    Args:
        x: `[..., D]`.
        matrix: `[F, D]`; where it is narrow, the result has the type of `x`, as under no autocast.
        bias: `[F]`, in the type of `x` where the matrix is narrow.

    Returns:
        `[..., F]`.
    """
    if isinstance(matrix, QuantizedMatrix):
        return matrix(x, bias)
    if not is_narrow(matrix, x) or torch.is_autocast_enabled(x.device.type):
        return nn.functional.linear(x, matrix, bias)
    rows = max(1, PIECE_ELEMENTS // matrix.shape[1])
    pieces = [
        nn.functional.linear(
            x, matrix[first : first + rows].to(x.dtype),
            None if bias is None else bias[first : first + rows],
        )
        for first in range(0, len(matrix), rows)
    ]  # fmt: skip
    return torch.cat(pieces, dim=-1) if len(pieces) > 1 else pieces[0]


def is_narrow(matrix: Matrix, x: torch.Tensor) -> bool:
    """Tell whether a matrix has fewer bits than what it multiplies."""
    return isinstance(matrix, QuantizedMatrix) or matrix.dtype.itemsize < x.dtype.itemsize


class Joined:
    """Layers of one input whose matrices lie one after the other in memory: one product of them.

    The layers keep their names and values, which are parts of the whole from here on. It is for a
    model in use: where a gradient is asked for, or values have moved elsewhere, it does not serve.

    Args:
        layers: of one input; with biases.
    """

    def __init__(self, *layers: Linear) -> None:
        self._first = layers[0]
        weights: list[Matrix] = [layer.weight for layer in layers]
        packed = [weight for weight in weights if isinstance(weight, QuantizedMatrix)]
        self._bias = torch.cat([layer.bias.detach() for layer in layers])
        self._weight: Matrix
        if packed:
            self._weight = QuantizedMatrix.joined(packed)
            return
        self._weight = torch.cat([layer.weight.detach() for layer in layers])
        self._begin = self._weight.data_ptr()
        ends = list(accumulate(len(layer.weight) for layer in layers))
        for layer, end in zip(layers, ends, strict=True):
            layer.weight.data = self._weight[end - len(layer.weight) : end]

    @property
    def serves(self) -> bool:
        """Whether this is what the layers compute."""
        weight: Matrix = self._first.weight
        if isinstance(weight, QuantizedMatrix):
            return isinstance(self._weight, QuantizedMatrix)
        return not torch.is_grad_enabled() and weight.data_ptr() == self._begin

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Map `[..., D]` to the results of all layers, side by side."""
        return product(x, self._weight, self._bias)
