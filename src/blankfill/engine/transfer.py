"""From numpy batches to tensors on the device, and numbers back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from blankfill.config.train import AttentionKind
from blankfill.model.copies import on_device
from blankfill.model.masks import Mask, build_mask
from blankfill.model.targets import Targets
from blankfill.objective.batch import IGNORE_INDEX, Batch

__all__ = ["TensorBatch", "read_together", "to_tensors"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorBatch:
    """A batch as the model takes it."""

    source: Batch
    """What it was made from."""
    tokens: torch.Tensor
    """`[B, T]` int64."""
    positions: torch.Tensor
    """`[B, 2, T]` int64."""
    mask: Mask
    """Who sees whom."""
    targets: Targets
    """What is to be predicted, and where."""
    first_row: int = 0
    """Number of its first row in the stream that it is of."""


def to_tensors(
    batch: Batch, attention: AttentionKind = "blocks", device: torch.device | str = "cpu"
) -> TensorBatch:
    """Copy a batch into tensors on a device, with the mask that this way of attention takes."""
    # Listed here: how many there are is a value, which a GPU would have to be waited for.
    index = np.flatnonzero(batch.targets != IGNORE_INDEX)
    ids = batch.targets.ravel()[index].astype(np.int64)
    parts = (index, ids, batch.weights.ravel()[index])
    return TensorBatch(
        source=batch,
        tokens=on_device(batch.tokens.astype(np.int64), device),
        positions=on_device(batch.positions.astype(np.int64), device),
        mask=build_mask(batch.blocks, batch.tokens.shape, attention, device),
        targets=Targets(*(on_device(part, device) for part in parts)),
    )


def read_together(tensors: Sequence[torch.Tensor]) -> list[npt.NDArray[np.floating]]:
    """Copy tensors of one device to the CPU; a GPU is waited for once."""
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return [tensor.numpy() for tensor in tensors]
    joined = torch.cat([tensor.reshape(-1) for tensor in tensors]).cpu()
    parts = joined.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape).numpy() for part, tensor in zip(parts, tensors, strict=True)]
