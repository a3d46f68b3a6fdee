"""Matrices of 8 or 4 bits a weight, and products with them.

8 bits: `w = code * scale`, one scale a row. What is multiplied is rounded to 8 bits as well, each
token by a scale of its own, and the sums are exact in 32-bit integers; so what stands beside a
token in a batch cannot change its result, not by a bit. (One scale for a whole batch, as torch's
dynamic quantisation has it, loses every token that stands beside a large one.)

4 bits: `w = (code - 8) * step + middle`, with a step and a middle for every 32 columns of a row;
what is multiplied is rounded to bfloat16. The codes of columns 2c and 2c + 1 share byte c, the
first in the high half, as in the released GLM-130B.

On a CPU both take operators of torch that are private to it. Each is tried, when it is first
needed, against the same computed plainly; where it is missing or wrong, the plain way serves, and
a note says so.

Shapes: F rows (outputs), D columns (inputs), G groups of a row's columns.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, Final, Literal

import torch
from torch import nn

__all__ = [
    "GROUP_SIZE",
    "Bits",
    "QuantizedMatrix",
    "QuantizedTable",
    "make_room",
    "matrices_of",
    "quantize",
    "quantized_bytes",
    "quantized_matrices",
    "settle",
]

log = logging.getLogger(__name__)

Bits = Literal[8, 4]
"""Bits of a weight."""
GROUP_SIZE: Final = 32
"""Columns that share a step and a middle at 4 bits: the smallest that torch's operator takes."""
_ROWS_MULTIPLE = 16
"""Rows of a matrix that torch's operator takes at 4 bits; others are filled up with zeros."""
_PIECE_ELEMENTS = 2**20
"""Numbers of a matrix that are unpacked at a time."""
_SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)
"""Shares of a group's range that are tried at 4 bits: what lies outside is cut off, and the rest is
told apart more finely. Few weights lie at the ends of a normal distribution."""


class QuantizedMatrix(nn.Module):
    """A matrix in 8 or 4 bits a weight; it stands where a layer has its weight.

    Args:
        rows: F.
        columns: D; at 4 bits a multiple of `GROUP_SIZE`.
        bits: 8 or 4.
    """

    codes: torch.Tensor
    scales: torch.Tensor

    def __init__(self, rows: int, columns: int, bits: Bits) -> None:
        super().__init__()
        self.bits: Bits = bits
        self.shape = (rows, columns)
        if bits == 8:
            codes = torch.empty(rows, columns, dtype=torch.int8)
            scales = torch.empty(rows)
        else:
            codes = torch.empty(rows, columns // 2, dtype=torch.uint8)
            scales = torch.empty(rows, columns // GROUP_SIZE, 2, dtype=torch.bfloat16)
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)
        self._packed: tuple[torch.Tensor, torch.Tensor] | None = None

    @classmethod
    def of(cls, matrix: torch.Tensor, bits: Bits) -> QuantizedMatrix:
        """Quantise `[F, D]` finite weights."""
        height, width = matrix.shape
        made = cls(height, width, bits)
        rows = max(1, _PIECE_ELEMENTS // width)
        for first in range(0, height, rows):
            part = slice(first, first + rows)
            codes, scales = (_to_8 if bits == 8 else _to_4)(matrix[part].float())
            made.codes[part], made.scales[part] = codes, scales
        return made

    @classmethod
    def joined(cls, parts: Sequence[QuantizedMatrix]) -> QuantizedMatrix:
        """Lay matrices of one input under each other; the parts keep no memory of their own."""
        rows = [part.shape[0] for part in parts]
        made = cls(0, parts[0].shape[1], parts[0].bits)
        made.shape = (sum(rows), made.shape[1])
        made.codes = torch.cat([part.codes for part in parts])
        made.scales = torch.cat([part.scales for part in parts])
        made.settle(keep_codes=False)
        for part, end in zip(parts, accumulate(rows), strict=True):
            own = slice(end - part.shape[0], end)
            part.codes, part.scales = made.codes[own], made.scales[own]
        return made

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Multiply by the transpose and add a bias.

        Args:
            x: `[..., D]` in float32 or float64.
            bias: `[F]`.

        Returns:
            `[..., F]` in the type of `x`.
        """
        flat = x.reshape(-1, x.shape[-1])
        made = (self._by_8 if self.bits == 8 else self._by_4)(flat).to(x.dtype)
        if bias is not None:
            made += bias
        return made.view(*x.shape[:-1], -1)

    def look_up(self, rows: torch.Tensor) -> torch.Tensor:
        """Give rows as numbers: `[...]` to `[..., D]` float32."""
        if self.bits == 8:
            return self.codes[rows].float() * self.scales[rows].unsqueeze(-1)
        return _from_4(self.codes[rows], self.scales[rows])

    def settle(self, *, keep_codes: bool) -> None:
        """Get ready to multiply, once the values stand.

        Args:
            keep_codes: whether rows will be looked up; else what torch's operator reads at 4 bits
                takes the place of the codes.
        """
        if self.bits == 8 or self.codes.device.type != "cpu" or not _has_int4():
            return
        if not len(self.codes):  # they are a part of another matrix
            return
        missing = -self.shape[0] % _ROWS_MULTIPLE
        codes = nn.functional.pad(_nibbles(self.codes), (0, 0, 0, missing))
        scales = nn.functional.pad(self.scales, (0, 0, 0, 0, 0, missing))
        self._packed = (_pack_4(codes), scales.transpose(0, 1).contiguous())
        if not keep_codes:
            self.codes = self.codes[:0]
            self.scales = self.scales[:0]

    def _by_8(self, x: torch.Tensor) -> torch.Tensor:
        largest = x.abs().amax(dim=-1, keepdim=True)  # [n, 1]
        scale = largest.clamp_min(torch.finfo(torch.float32).tiny) / 127
        codes = (x / scale).round_()  # not a number where something of the row is not, as `scale`
        fast = x.device.type == "cpu" and _has_int8()
        sums = _multiply_8(codes.to(torch.int8), self.codes) if fast else _plain(codes, self.codes)
        return sums.to(x.dtype).mul_(scale).mul_(self.scales)

    def _by_4(self, x: torch.Tensor) -> torch.Tensor:
        if self._packed is not None:
            return _multiply_4(x.bfloat16(), *self._packed)[:, : self.shape[0]]
        x = x.bfloat16().to(x.dtype)
        rows = max(1, _PIECE_ELEMENTS // self.shape[1])
        pieces = [
            x @ _from_4(self.codes[i : i + rows], self.scales[i : i + rows]).to(x.dtype).T
            for i in range(0, self.shape[0], rows)
        ]
        return torch.cat(pieces, dim=-1)

    def extra_repr(self) -> str:
        """Say its shape and bits."""
        return f"{self.shape[0]}, {self.shape[1]}, bits={self.bits}"


class QuantizedTable(nn.Module):
    """A table whose rows are looked up: an embedding."""

    def __init__(self, weight: QuantizedMatrix) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Map `[...]` ids to `[..., D]` float32."""
        return self.weight.look_up(ids)


def matrices_of(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Give the names and shapes of the matrices of a model: all that has two dimensions."""
    return {
        name: (weight.shape[0], weight.shape[1])
        for name, weight in model.named_parameters()
        if weight.dim() == 2
    }


def quantized_matrices(model: nn.Module) -> list[QuantizedMatrix]:
    """List the quantised matrices of a model."""
    return [module for module in model.modules() if isinstance(module, QuantizedMatrix)]


def quantize(model: nn.Module, bits: Bits) -> None:
    """Quantise every matrix of a model, one at a time and in place."""
    for name in matrices_of(model):
        _put(model, name, QuantizedMatrix.of(model.get_parameter(name).detach(), bits))


def make_room(model: nn.Module, bits: Bits) -> None:
    """Give a model without values quantised matrices in place of its own."""
    for name, (rows, columns) in matrices_of(model).items():
        with torch.device(model.get_parameter(name).device):
            _put(model, name, QuantizedMatrix(rows, columns, bits))


def settle(model: nn.Module) -> None:
    """Get the quantised matrices of a model ready, once their values stand."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, QuantizedTable)}
    for matrix in quantized_matrices(model):
        matrix.settle(keep_codes=id(matrix) in tables)


def quantized_bytes(rows: int, columns: int, bits: Bits) -> int:
    """Count the bytes that a matrix takes."""
    if bits == 8:
        return rows * (columns + 4)
    return rows * (columns // 2 + 4 * (columns // GROUP_SIZE))


def _put(model: nn.Module, name: str, matrix: QuantizedMatrix) -> None:
    """Put a quantised matrix in the place of the parameter of that name."""
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if isinstance(module, nn.Embedding):
        parent, _, own = path.rpartition(".")
        setattr(model.get_submodule(parent), own, QuantizedTable(matrix))
        return
    delattr(module, leaf)
    setattr(module, leaf, matrix)


def _to_8(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise `[F, D]`: int8 codes and `[F]` scales."""
    scales = weights.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / 127
    return (weights / scales[:, None]).round_().to(torch.int8), scales


def _to_4(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise `[F, D]`: two codes a byte, and `[F, G, 2]` steps and middles.

    Of each group the range is taken that leaves the least squared error, among some shares of the
    whole one.
    """
    groups = weights.unflatten(1, (-1, GROUP_SIZE))  # [F, G, 32]
    low, high = groups.aminmax(dim=-1)
    middle, half = (low + high) / 2, (high - low) / 2
    best = torch.full_like(low, torch.inf)
    codes = torch.empty_like(groups)
    scales = torch.empty(*low.shape, 2, dtype=torch.bfloat16)
    for shrink in _SHRINKS:
        step = (half * (shrink / 7.5)).clamp_min(torch.finfo(torch.bfloat16).tiny).bfloat16()
        center = (middle + step.float() / 2).bfloat16()  # codes reach from -8 to 7 around it
        made = ((groups - center.float()[..., None]) / step.float()[..., None]).round_()
        made = made.clamp_(-8, 7)
        again = made * step.float()[..., None] + center.float()[..., None]
        error = (again - groups).square().sum(dim=-1)
        better = error < best
        best = torch.where(better, error, best)
        codes = torch.where(better[..., None], made, codes)
        scales = torch.where(better[..., None], torch.stack([step, center], dim=-1), scales)
    nibbles = (codes.flatten(1) + 8).to(torch.uint8)
    return (nibbles[:, 0::2] << 4) | nibbles[:, 1::2], scales


def _nibbles(codes: torch.Tensor) -> torch.Tensor:
    """Take bytes apart: `[..., D / 2]` to `[..., D]` codes from 0 to 15."""
    return torch.stack([codes >> 4, codes & 15], dim=-1).flatten(-2)


def _from_4(codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Undo `_to_4`, as far as it can be: `[..., D]` float32."""
    centered = _nibbles(codes).float().sub_(8).unflatten(-1, (-1, GROUP_SIZE))
    step, middle = scales.float().unbind(-1)
    return (centered * step[..., None] + middle[..., None]).flatten(-2)


def _multiply_8(x: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Multiply `[n, D]` by the transpose of `[F, D]`, both int8: `[n, F]` int32."""
    return torch._int_mm(x, codes.T)  # pyright: ignore[reportPrivateUsage]  # see _has_int8


def _plain(x: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Multiply codes as floating-point numbers, a piece of the matrix at a time."""
    rows = max(1, _PIECE_ELEMENTS // codes.shape[1])
    pieces = [x @ codes[i : i + rows].to(x.dtype).T for i in range(0, len(codes), rows)]
    return torch.cat(pieces, dim=-1)


def _pack_4(codes: torch.Tensor) -> torch.Tensor:
    """Give `[F, D]` codes the order in which this processor reads them."""
    return torch._convert_weight_to_int4pack_for_cpu(codes.int(), 1)  # pyright: ignore[reportPrivateUsage]  # see _has_int4


def _multiply_4(x: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Multiply `[n, D]` bfloat16 by the transpose of a packed matrix: `[n, F]` bfloat16."""
    return torch._weight_int4pack_mm_for_cpu(x, packed, GROUP_SIZE, scales)  # pyright: ignore[reportPrivateUsage]  # see _has_int4


@functools.cache
def _has_int8() -> bool:
    """Try torch's product of int8 matrices; log a note where it is not to be had."""

    def differs() -> bool:
        x, codes = _numbers(3, 70), _numbers(37, 70)
        return not torch.equal(_multiply_8(x, codes).double(), _plain(x.double(), codes))

    return _works("_int_mm", 8, differs)


@functools.cache
def _has_int4() -> bool:
    """Try torch's product with 4-bit matrices; log a note where it is not to be had."""

    def differs() -> bool:
        codes = _numbers(48, 64).int() & 15
        scales = _numbers(48 * 2, 2).view(48, 2, 2).bfloat16() / 64
        x = _numbers(3, 64).bfloat16() / 16
        plain = _from_4(((codes[:, 0::2] << 4) | codes[:, 1::2]).to(torch.uint8), scales).double()
        made = _multiply_4(x, _pack_4(codes), scales.transpose(0, 1).contiguous()).double()
        exact = x.double() @ plain.T
        # Its result is rounded to the eight bits of bfloat16.
        return not torch.allclose(made, exact, rtol=2**-7, atol=2**-7 * float(exact.abs().max()))

    return _works("_weight_int4pack_mm_for_cpu", 4, differs)


def _works(name: str, bits: Bits, differs: Callable[[], bool]) -> bool:
    """Try an operator that torch may change or leave out."""
    try:
        with torch.inference_mode():
            reason = "computes something else" if differs() else ""
    except (AttributeError, RuntimeError, TypeError) as error:
        reason = f"cannot be used ({str(error).splitlines()[0]})"
    if reason:
        log.warning(
            "torch's operator %s %s on this machine: products of %d bits are computed plainly, "
            "which is slower", name, reason, bits,
        )  # fmt: skip
    return not reason


def _numbers(rows: int, columns: int) -> torch.Tensor:
    """Give `[rows, columns]` int8 numbers of all sizes, always the same."""
    made: Any = torch.arange(rows * columns) * 7919 % 255 - 127
    return made.view(rows, columns).to(torch.int8)
