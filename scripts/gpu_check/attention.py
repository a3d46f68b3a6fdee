"""Part b: every way of attention beside the rule in float64, and beside each other; its time.

The oracle is `dense_attention` on the same bfloat16 numbers in float64, row by row. Errors are
|found - exact| / |exact| of the result and of the gradients of queries, keys and values, where
there are examples. bfloat16 keeps 8 bits: a rounding is 2^-9 = 0.002 at most, and a result has
those of its weights, its own, and in the backward pass those of the weights' gradients, whose
differences cancel. Hence TOLERANCE, and its sum for two ways beside each other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from blankfill.metrics.flops import visible_area
from blankfill.model.attention import attend, dense_attention
from blankfill.model.masks import DenseMask, build_mask
from gpu_check import Settings
from gpu_check.measure import median_seconds, peak_bytes, relative_error
from gpu_check.record import Record
from gpu_check.rows import row_source

TOLERANCE = 0.01
"""Of the result and of each gradient: five roundings."""
# What is compiled comes last, for the time that it takes.
WAYS = {"cuda": ("varlen", "blocks", "dense", "flex"), "cpu": ("blocks", "dense")}
NAMES = ("out", "dq", "dk", "dv")
ROW_LENGTHS = (512, 2048)
POSITIONS, NUM_HEADS, HEAD_SIZE = 32_768, 12, 64
"""As many positions as a step of `base` has, and its heads."""
BATCHES = 3
"""Different batches that FlexAttention is given: it must not be compiled anew for each."""

Tensors = list[torch.Tensor]


def run(settings: Settings, record: Record) -> None:
    """Check and time each way at each row length."""
    lengths = (128, 256) if settings.quick else ROW_LENGTHS
    case = functools.cache(functools.partial(_Case, settings))
    for way in WAYS[settings.device]:
        for length in lengths:
            name = f"{way}, rows of {length:,}"
            record.do(name, lambda way=way, length=length: case(length).measure(way))


class _Case:
    """One batch, its oracle, and what the ways made of it.

    Args:
        settings: of the whole check.
        length: positions of a row.
    """

    def __init__(self, settings: Settings, length: int) -> None:
        self.device, self.quick = settings.device, settings.quick
        rows = (512 if settings.quick else POSITIONS) // length
        source = row_source(settings, length)
        self.batches = [source.rows(rows * number, rows) for number in range(BATCHES)]
        self.blocks = self.batches[0].blocks
        self.shape = (rows, length)
        heads = 2 if settings.quick else NUM_HEADS
        torch.manual_seed(length)
        *self.qkv, self.grad = (
            torch.randn(rows, length, heads, HEAD_SIZE, device=self.device, dtype=torch.bfloat16)
            for _ in range(4)
        )
        for tensor in self.qkv:
            tensor.requires_grad_()
        real = torch.from_numpy(self.batches[0].segment_ids >= 0).to(self.device)
        self.real = real[:, :, None, None]
        self.grad *= self.real
        self.exact = self._oracle()
        self.made: dict[str, Tensors] = {}

    def _oracle(self) -> Tensors:
        """Compute the rule in float64, a row at a time."""
        mask = DenseMask.of(self.blocks, self.shape).to(self.device)
        rows: list[Tensors] = []
        for row in range(self.shape[0]):
            part = slice(row, row + 1)
            wide = [x.detach()[part].double().requires_grad_() for x in self.qkv]
            out = dense_attention(*wide, DenseMask(mask.visible[part]))
            grads = torch.autograd.grad(out, wide, self.grad[part].double())
            rows.append([x.detach().float() for x in (out, *grads)])
        return [torch.cat(parts) * self.real for parts in zip(*rows, strict=True)]

    def measure(self, way: str) -> dict[str, Any]:
        """Check one way and time it."""
        mask = build_mask(self.blocks, self.shape, way, self.device)
        call: Callable[..., torch.Tensor] = attend
        values: dict[str, Any] = {}
        if way == "flex":
            torch._dynamo.reset()
            call = torch.compile(attend, dynamic=False)
        peak_bytes(self.device)
        out = call(*self.qkv, mask)
        grads = torch.autograd.grad(out, self.qkv, self.grad)
        found = [x.detach() for x in (out, *grads)]
        if way != "dense":  # which gives padding what padding sees
            values["zero_on_padding"] = not bool((found[0] * ~self.real).any())
        found = [x * self.real for x in found]
        errors = {n: relative_error(a, b) for n, a, b in zip(NAMES, found, self.exact, strict=True)}
        between = {
            other: max(relative_error(a, b) for a, b in zip(found, theirs, strict=True))
            for other, theirs in self.made.items()
        }
        self.made[way] = found
        good = (
            max(errors.values()) <= TOLERANCE
            and max(between.values(), default=0.0) <= 2 * TOLERANCE
            and values.get("zero_on_padding", True)
        )
        values |= {"status": "passed" if good else "failed", "errors": errors, "between": between,
                   "tolerance": TOLERANCE, "memory": peak_bytes(self.device)}  # fmt: skip
        if way == "flex":
            values["graphs"] = self._graphs(call)
        return values | self._times(call, mask)

    def _times(self, call: Callable[..., torch.Tensor], mask: Any) -> dict[str, Any]:
        """Time the forward pass, and both."""
        limits: dict[str, Any] = (
            {"warm": 1, "least": 2, "most": 2} if self.quick else {"seconds": 0.6, "least": 8}
        )
        with torch.no_grad():
            forward, _ = median_seconds(lambda: call(*self.qkv, mask), self.device, **limits)

        def both() -> Any:
            return torch.autograd.grad(call(*self.qkv, mask), self.qkv, self.grad)

        there_and_back, number = median_seconds(both, self.device, **limits)
        heads, size = self.qkv[0].shape[2:]
        operations = 4 * heads * size * visible_area(self.blocks)
        return {
            "forward_seconds": forward, "seconds": there_and_back, "calls": number,
            "visible_flops_per_second": 3 * operations / there_and_back,
        }  # fmt: skip

    def _graphs(self, call: Callable[..., torch.Tensor]) -> int:
        """Count the graphs that different batches of one shape are compiled to; 1 is right."""
        counted = torch._dynamo.utils.counters["stats"]
        before = counted["unique_graphs"]
        for batch in self.batches[1:]:
            mask = build_mask(batch.blocks, self.shape, "flex", self.device)
            torch.autograd.grad(call(*self.qkv, mask), self.qkv, self.grad)
        return 1 + counted["unique_graphs"] - before
