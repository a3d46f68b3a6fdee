"""The rows of each tensor that a process keeps.

FSDP2 cuts a tensor along its first dimension into parts of equal height, as `torch.chunk` does; the
last ones are lower, or empty, where it does not divide.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.distributed.tensor import DTensor

__all__ = ["kept_rows", "own", "own_parameters"]


def kept_rows(height: int, part: int, parts: int) -> slice:
    """Give the rows of a tensor that one of several processes keeps."""
    most = -(-height // parts)
    return slice(min(part * most, height), min((part + 1) * most, height))


def own(tensor: torch.Tensor) -> torch.Tensor:
    """Give the rows of a distributed tensor that this process keeps; they share its memory."""
    return cast("DTensor", tensor).to_local()


def own_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Give the kept rows of each parameter, by name, as parameters that share their memory.

    Optimizers move these: their arithmetic is by element, and needs no other rank.
    """
    return {
        name: nn.Parameter(own(parameter).detach()) for name, parameter in model.named_parameters()
    }
