"""The rows of each tensor that a process keeps, and how they become whole again.

FSDP2 cuts a tensor along its first dimension into parts of equal height, as `torch.chunk` does; the
last ones are lower, or empty, where it does not divide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard

__all__ = ["kept_rows", "own", "own_parameters", "whole"]


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


def whole(rows: torch.Tensor, shape: Sequence[int], mesh: DeviceMesh) -> torch.Tensor:
    """Put the rows that the processes keep of a tensor together, in all of them.

    Args:
        rows: those of this process.
        shape: of the whole tensor.
        mesh: of the processes.
    """
    strides = torch.empty(tuple(shape), device="meta").stride()
    spread = DTensor.from_local(
        rows.detach(), mesh, (Replicate(), Shard(0)), run_check=False,
        shape=torch.Size(shape), stride=strides,
    )  # fmt: skip
    return spread.full_tensor()
