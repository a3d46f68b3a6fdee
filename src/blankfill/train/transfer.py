"""From numpy batches to tensors on the device, and the arithmetic they meet there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from blankfill.config.train import AttentionKind
from blankfill.errors import ConfigError
from blankfill.model.masks import Mask, build_mask
from blankfill.objective.batch import Batch

__all__ = ["TensorBatch", "choose_precision", "precision_context", "to_tensors"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorBatch:
    """A batch as the model takes it."""

    tokens: torch.Tensor
    """`[B, T]` int64."""
    targets: torch.Tensor
    """`[B, T]` int64."""
    positions: torch.Tensor
    """`[B, 2, T]` int64."""
    weights: torch.Tensor
    """`[B, T]` float32."""
    mask: Mask
    """Who sees whom."""


def to_tensors(batch: Batch, attention: AttentionKind = "blocks") -> TensorBatch:
    """Copy a batch into tensors, with the mask that this way of attention takes."""
    return TensorBatch(
        tokens=torch.from_numpy(batch.tokens.astype(np.int64)),
        targets=torch.from_numpy(batch.targets.astype(np.int64)),
        positions=torch.from_numpy(batch.positions.astype(np.int64)),
        weights=torch.from_numpy(batch.weights),
        mask=build_mask(batch.blocks, batch.tokens.shape, attention),
    )


def choose_precision(
    wanted: Literal["auto", "bfloat16", "float16", "float32"],
) -> torch.dtype:
    """Settle `auto`: bfloat16 where the CPU has instructions for it, else float32.

    Raises:
        ConfigError: bfloat16 was asked for by name on a CPU that would emulate it.
    """
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # pyright: ignore[reportPrivateUsage]  # torch has no public question for it
    if wanted == "float16":
        return torch.float16
    if wanted == "float32" or (wanted == "auto" and not native):
        return torch.float32
    if not native:
        raise ConfigError(
            "train.precision=bfloat16 would be emulated on this CPU, several times slower than "
            "float32; use --train.precision float32 or auto"
        )
    return torch.bfloat16


def precision_context(dtype: torch.dtype) -> AbstractContextManager[object]:
    """Make matrix products run in `dtype`; weights and reductions stay float32.

    Autocast rather than cast weights beside float32 masters: both take the same time on a CPU, but
    here the residual stream, norms, softmax and the sum of gradients over micro-batches are float32
    as well, and there is one copy of the weights to save, to clip and to be right about.
    """
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast("cpu", dtype=dtype)
