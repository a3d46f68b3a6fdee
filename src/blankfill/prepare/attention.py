"""Which way of attention is quickest on this device, found by doing one layer of the run's rows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch

from blankfill.config.run import RunConfig
from blankfill.config.train import AttentionKind
from blankfill.errors import TrainingError
from blankfill.model.attention import attend
from blankfill.model.masks import attention_ways, build_mask, choose_attention
from blankfill.objective.batch import Batch
from blankfill.prepare.timing import median_seconds

__all__ = ["quickest_attention", "settle_attention"]

log = logging.getLogger(__name__)


def settle_attention(
    cfg: RunConfig,
    device: torch.device,
    dtype: torch.dtype,
    batch: Callable[[], Batch],
    *,
    before: AttentionKind | None = None,
) -> AttentionKind:
    """Settle a run's way of attention: as named, as before, or the quickest.

    Args:
        cfg: the run.
        device: where it computes.
        dtype: of its products.
        batch: makes a micro-batch of it, where there is something to measure.
        before: what the run that is resumed took on such a device. It goes on so: two ways round
            differently, and a resumed run is to be the one that was never stopped.

    Raises:
        ConfigError: the device, the type or the dropout rules the named one out.
        TrainingError: none of the ways works here.
    """
    dropout = cfg.model.attention_dropout_rate
    ways = attention_ways(device.type, dtype, dropout=dropout)
    if cfg.train.attention != "auto" or len(ways) == 1:
        return choose_attention(cfg.train.attention, device.type, dtype, dropout=dropout)
    if before is not None and before in ways:
        return before
    return quickest_attention(ways, batch(), cfg, device, dtype)


def quickest_attention(
    kinds: Sequence[AttentionKind],
    batch: Batch,
    cfg: RunConfig,
    device: torch.device,
    dtype: torch.dtype,
) -> AttentionKind:
    """Time each way on one layer, forward and backward, and name the quickest that works.

    Raises:
        TrainingError: none of them works.
    """
    seconds: dict[AttentionKind, float] = {}
    for kind in kinds:
        try:
            seconds[kind] = _seconds(kind, batch, cfg, device, dtype)
        except Exception as error:  # a kernel that is missing, or refuses this device or shape
            log.warning("attention %s does not work here (%s)", kind, str(error).split("\n")[0])
    if not seconds:
        raise TrainingError(
            f"no way of attention works on this device ({', '.join(kinds)}); name one that does "
            "with --train.attention dense, or take --train.device cpu"
        )
    best = min(seconds, key=seconds.__getitem__)
    times = ", ".join(f"{kind} {1000 * each:.2f} ms" for kind, each in seconds.items())
    log.info("attention, one layer there and back: %s; taking %s", times, best)
    return best


def _seconds(
    kind: AttentionKind, batch: Batch, cfg: RunConfig, device: torch.device, dtype: torch.dtype
) -> float:
    """Give the median time of one layer's attention, forward and backward."""
    mask = build_mask(batch.blocks, batch.tokens.shape, kind, device)
    shape = (*batch.tokens.shape, cfg.model.num_heads, cfg.model.head_size)
    qkv = [torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(3)]
    grad = torch.randn(shape, device=device, dtype=dtype)
    call: Any = torch.compile(attend) if kind == "flex" else attend
    return median_seconds(device, lambda: torch.autograd.grad(call(*qkv, mask), qkv, grad))[0]
