"""One model laid out over processes, from outside and in one fixed order.

Blocks are compiled first, so that what the compiler sees is one block's arithmetic; then each block
becomes a group of FSDP2, whose weights are put together before it computes and dropped after it;
last the whole model, which keeps what is left: embedding, final norm and head. A tied head reads
the embedding after the last block, so both stay in that group.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from blankfill.config.model import ModelConfig
from blankfill.engine.compiled import compile_block
from blankfill.model.glm import GLM

__all__ = ["build_sharded", "groups_of"]


def build_sharded(
    cfg: ModelConfig, mesh: DeviceMesh, device: torch.device, dtype: torch.dtype, *,
    compiled: bool = False, one_graph: bool = True,
) -> GLM:  # fmt: skip
    """Build a model without values, of which this process keeps its rows alone.

    Args:
        cfg: the network.
        mesh: axes for copies and for their parts.
        device: where this process computes.
        dtype: of the weights, and of the sums of gradients.
        compiled: compile the blocks.
        one_graph: as `compile_block` takes it.
    """
    with torch.device("meta"):
        model = GLM(cfg).to(dtype)
    for block in model.blocks.values():
        if compiled:
            compile_block(block, one_graph=one_graph)
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model.to_empty(device=device)
    for group in groups_of(model):
        # Losses are divided by the weight of all ranks' targets, so gradients are summed.
        group.set_gradient_divide_factor(1.0)
        group.set_force_sum_reduction_for_comms(True)  # the other sums are NCCL's alone
        # What holds a group's whole weights is made here, and not under inference mode, whose
        # tensors could not be trained on later.
        group.unshard()
        group.reshard()
    return model


def groups_of(model: GLM) -> Iterator[FSDPModule]:
    """List the groups of parameters that are put together and dropped as one."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            yield cast("FSDPModule", module)
