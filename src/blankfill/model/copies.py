"""From numpy arrays to tensors where the model computes, without waiting for what it does there."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch

__all__ = ["on_device"]


def on_device(array: npt.NDArray[Any], device: torch.device | str) -> torch.Tensor:
    """Make a tensor of an array; on a CPU they share their memory.

    A GPU copies from pinned memory once it has done what it was given before, and nobody waits.
    From other memory the thread that makes batches would wait for the step that is being computed,
    and make the rest of its batch while the GPU has nothing to do.
    """
    tensor = torch.from_numpy(array)
    if torch.device(device).type != "cuda" or not tensor.numel():
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)  # torch keeps the memory until then
