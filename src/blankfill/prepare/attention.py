"""Which way of attention is fastest on this device, found by doing one layer of the run's rows.

A way that is not torch's plain products is a kernel that others wrote for this device, and may be
wrong on it, with this torch or with the masks that it is given. So none trains before its result
and its gradients on these rows were seen to be the plain ones.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from blankfill.config.run import RunConfig
from blankfill.config.train import AttentionKind
from blankfill.engine.device import attention_ways, choose_attention
from blankfill.errors import ConfigError, TrainingError
from blankfill.model.attention import attend, dense_attention
from blankfill.model.masks import (
    Blocks,
    DenseMask,
    Mask,
    build_mask,
)
from blankfill.objective.batch import Batch
from blankfill.prepare.timing import median_seconds

__all__ = ["fastest_attention", "settle_attention"]

log = logging.getLogger(__name__)

LARGEST_ERROR = 0.02
"""Of a result or a gradient, as |found - exact| / |exact|. Ways that are right were up to 0.005 off
in bfloat16 (NVIDIA H200, torch 2.11); one that mistook the visible tiles was 0.3 to 0.5 off."""


def settle_attention(
    cfg: RunConfig,
    device: torch.device,
    dtype: torch.dtype,
    batch: Callable[[], Batch],
    *,
    before: AttentionKind | None = None,
) -> AttentionKind:
    """Settle a run's way of attention: as named, as before, or the fastest.

    Args:
        cfg: the run.
        device: where it computes.
        dtype: of its products.
        batch: makes a micro-batch of it, where there is something to measure.
        before: what the run that is resumed took on such a device. It goes on so: two ways round
            differently, and a resumed run is to be the one that was never stopped.

    Raises:
        ConfigError: the device, the type or the dropout rules the named one out, or it does not
            work here or is wrong, or the one from before is.
        TrainingError: none of the ways works here.
    """
    dropout = cfg.model.attention_dropout_rate
    ways = attention_ways(device.type, dtype, dropout=dropout)
    if cfg.train.attention != "auto" or len(ways) == 1:
        settled = choose_attention(cfg.train.attention, device.type, dtype, dropout=dropout)
    elif before is not None and before in ways:
        settled = before
    else:
        return fastest_attention(ways, _Layer(batch(), cfg, device, dtype))
    if settled in ("flex", "varlen"):
        _require_right(settled, _Layer(batch(), cfg, device, dtype))
    return settled


def fastest_attention(kinds: Sequence[AttentionKind], layer: _Layer) -> AttentionKind:
    """Time each way on one layer, forward and backward, and name the fastest that is right.

    Raises:
        TrainingError: none of them works.
    """
    seconds: dict[AttentionKind, float] = {}
    for kind in kinds:
        try:
            took, error = layer.measure(kind)
        except Exception as failure:  # a kernel that is missing, or refuses this device or shape
            log.warning("attention %s does not work here (%s)", kind, _first_line(failure))
            continue
        if error <= LARGEST_ERROR:
            seconds[kind] = took
        else:
            log.warning("attention %s is not taken: %s", kind, _how_wrong(error))
    if not seconds:
        raise TrainingError(
            f"no way of attention works on this device ({', '.join(kinds)}); name one that does "
            "with --train.attention dense, or take --train.device cpu"
        )
    best = min(seconds, key=seconds.__getitem__)
    times = ", ".join(f"{kind} {1000 * each:.2f} ms" for kind, each in seconds.items())
    log.debug("attention, one layer forward and backward: %s; taking %s", times, best)
    return best


def _require_right(kind: AttentionKind, layer: _Layer) -> None:
    """Check a way that is settled without a choice.

    Raises:
        ConfigError: it does not work here, or is wrong.
    """
    try:
        _, error = layer.measure(kind)
        problem = "" if error <= LARGEST_ERROR else _how_wrong(error)
    except Exception as failure:  # as above
        problem = f"it does not work here ({_first_line(failure)})"
    if problem:
        raise ConfigError(
            f"train.attention={kind}: {problem}; take --train.attention blocks, which a run that "
            "is resumed needs --allow-change train.attention for"
        )


class _Layer:
    """One layer's attention forward and backward, on random numbers in the rows of a run.

    Args:
        batch: whose examples are attended within.
        cfg: the run.
        device: where it computes.
        dtype: of its products.
    """

    def __init__(
        self, batch: Batch, cfg: RunConfig, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._device, self._shape = device, batch.tokens.shape
        # And the same rows in reverse order: what is compiled for one batch must serve another.
        self._blocks = [batch.blocks, _reversed(batch.blocks, self._shape[0])]
        real = torch.from_numpy(batch.segment_ids[::-1] >= 0).to(device)
        self._real = real[:, :, None, None]
        generator = torch.Generator(device).manual_seed(0)  # the run's own is left alone

        def draw(*shape: int) -> torch.Tensor:
            size = (*self._shape, *shape, cfg.model.num_heads, cfg.model.head_size)
            return torch.randn(size, device=device, dtype=dtype, generator=generator)

        self._qkv = draw(3).requires_grad_()  # side by side, as the model has them
        self._grad = draw() * self._real

    def measure(self, kind: AttentionKind) -> tuple[float, float]:
        """Give a way's median seconds forward and backward, and its largest relative error."""
        call: Any = torch.compile(attend) if kind == "flex" else attend
        mask, last_first = (build_mask(b, self._shape, kind, self._device) for b in self._blocks)
        (seconds,) = median_seconds(self._device, lambda: self._forward_and_backward(call, mask))
        found = self._forward_and_backward(call, last_first)
        return seconds, max(_relative_error(a, b) for a, b in zip(found, self._exact, strict=True))

    def _forward_and_backward(self, call: Any, mask: Mask) -> list[torch.Tensor]:
        """Give the result and the gradient."""
        out = call(*self._qkv.unbind(2), mask)
        (grad,) = torch.autograd.grad(out, self._qkv, self._grad)
        return [out.detach() * self._real, grad]

    @functools.cached_property
    def _exact(self) -> list[torch.Tensor]:
        """What the reversed rows give by plain products in float32, of a row's head at a time: the
        square of a row is the only thing that grows with its length."""
        out, grad = (torch.empty_like(x, dtype=torch.float32) for x in (self._grad, self._qkv))
        blocks, (rows, length), heads = self._blocks[1], self._shape, self._grad.shape[2]
        for row in range(rows):
            own = blocks[blocks[:, 0] == row] * np.array([0, 1, 1, 1], np.int32)
            mask = DenseMask.of(own, (1, length)).to(self._device)
            for head in range(heads):
                of_head: Any = (slice(row, row + 1), ..., slice(head, head + 1), slice(None))
                qkv = self._qkv.detach()[of_head].float().requires_grad_()
                q, k, v = qkv.unbind(2)
                made = dense_attention(q, k, v, mask)
                out[of_head] = made.detach() * self._real[row]
                (grad[of_head],) = torch.autograd.grad(made, qkv, self._grad[of_head].float())
        return [out, grad]


def _reversed(blocks: Blocks, rows: int) -> Blocks:
    """Put the last row first."""
    last_first = blocks.copy()
    last_first[:, 0] = rows - 1 - last_first[:, 0]
    return last_first[np.argsort(last_first[:, 0], kind="stable")]


def _relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Give |found - exact| / |exact|; infinity where a value is not finite."""
    error = float((found.float() - exact).norm() / exact.norm())
    return error if math.isfinite(error) else math.inf


def _how_wrong(error: float) -> str:
    off = f"{100 * error:.0f} % off" if math.isfinite(error) else "not finite"
    return f"its result or its gradient is {off} here (torch {torch.__version__})"


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0]
