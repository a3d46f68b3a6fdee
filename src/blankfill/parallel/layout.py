"""One model laid out over processes, from outside and in one fixed order.

What several processes compute together is cut; blocks are told what to compute again in the
backward pass, then compiled, so that what the compiler sees is one block's arithmetic; then each
block becomes a group of FSDP2, whose weights are put together before it computes and dropped after
it; last the whole model, which keeps what is left: embedding, final norm and head. A tied head
reads the embedding after the last block, so both stay in that group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from blankfill.config.model import ModelConfig
from blankfill.config.train import RecomputeKind
from blankfill.engine.compiled import compile_block
from blankfill.engine.recompute import recompute
from blankfill.model.glm import GLM
from blankfill.model.init import first_values
from blankfill.parallel.places import Place
from blankfill.parallel.ranks import REPLICATE, SHARD, Ranks
from blankfill.parallel.tensor import cut_model

__all__ = ["build_sharded", "draw_weights", "groups_of"]


def build_sharded(
    cfg: ModelConfig, ranks: Ranks, dtype: torch.dtype, *,
    compiled: bool = False, one_graph: bool = True, again: RecomputeKind = "none",
    narrow: bool = False,
) -> GLM:  # fmt: skip
    """Build a model without values, of which this process keeps its rows alone.

    Args:
        cfg: the network.
        ranks: the processes.
        dtype: of the weights, and of the sums of gradients.
        compiled: compile the blocks.
        one_graph: as `compile_block` takes it.
        again: what is computed again in the backward pass.
        narrow: put weights together in bfloat16, in which blocks then compute; what is kept of
            them, and the sums of gradients, stay as they are.
    """
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if narrow else None, reduce_dtype=dtype
    )
    with torch.device("meta"):
        model = GLM(cfg).to(dtype)
    if ranks.tensor.size > 1:
        cut_model(model, ranks.tensor)
    mesh = ranks.mesh[REPLICATE, SHARD]
    recompute(model, again)
    for block in model.blocks.values():
        if compiled:
            compile_block(block, one_graph=one_graph)
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    model.to_empty(device=ranks.device)
    for group in groups_of(model):
        # Losses are divided by the weight of all ranks' targets, so gradients are summed.
        group.set_gradient_divide_factor(1.0)
        group.set_force_sum_reduction_for_comms(True)  # the other sums are NCCL's alone
        # What holds a group's whole weights is made here, and not under inference mode, whose
        # tensors could not be trained on later.
        group.unshard()
        group.reshard()
    return model


@torch.no_grad()
def draw_weights(
    cfg: ModelConfig, own: Mapping[str, torch.Tensor], places: Mapping[str, Sequence[Place]],
    seed: int, ranks: Ranks,
) -> None:  # fmt: skip
    """Give what is kept of every weight its first values, those of one process bit for bit.

    A tensor is drawn by one process, which sends its parts to those that keep them; the processes
    take turns.

    Args:
        cfg: the network.
        own: what this process keeps of each weight, by name.
        places: what each holder of a copy keeps of it.
        seed: the run's.
        ranks: the processes.
    """
    with torch.device("meta"):
        model = GLM(cfg)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    turn = 0
    for first in first_values(model, seed):
        draws = first.is_constant or turn == ranks.rank
        made = [values for _, values in first.values()] if draws else [None] * len(first.weights)
        for weight, values in zip(first.weights, made, strict=True):
            name = names[id(weight)]
            if first.is_constant and values is not None:
                part = values[places[name][ranks.holder].index]
            else:
                part = ranks.scatter(values, places[name], turn)
            own[name].copy_(part)
        if not first.is_constant:
            turn = (turn + 1) % ranks.count


def groups_of(model: GLM) -> Iterator[FSDPModule]:
    """List the groups of parameters that are put together and dropped as one."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            yield cast("FSDPModule", module)
