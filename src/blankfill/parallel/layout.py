"""One model laid out over processes, from outside and in one fixed order.

Of a pipeline each process takes its stages; what several processes compute together is cut; blocks
are told what to compute again in the backward pass, then compiled, so that what the compiler sees
is one block's arithmetic; then each block becomes a group of FSDP2, whose weights are put together
before it computes and dropped after it; last the whole model, which keeps what is left: embedding,
final norm and head. A tied head reads the embedding after the last block, so both stay in that
group. In a pipeline weights stay together from the first pass of a step to the last, and gradients
are summed over processes once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from blankfill.config.model import ModelConfig
from blankfill.config.run import RunConfig
from blankfill.config.stages import CHUNKS, stages_of
from blankfill.engine.compiled import compile_block
from blankfill.engine.recompute import recompute
from blankfill.model.glm import GLM
from blankfill.model.init import first_values
from blankfill.parallel.cut import blocks_of_stages
from blankfill.parallel.pipeline import take_part
from blankfill.parallel.places import Place
from blankfill.parallel.ranks import REPLICATE, SHARD, Ranks
from blankfill.parallel.stage import Stage
from blankfill.parallel.tensor import cut_model
from blankfill.parallel.way import InStages, InTurn, Way

__all__ = ["draw_weights", "lay_out"]


def lay_out(
    cfg: RunConfig, ranks: Ranks, dtype: torch.dtype, *, compiled: bool = False,
    one_graph: bool = True,
) -> Way:  # fmt: skip
    """Build a model without values, of which this process keeps its part alone.

    Args:
        cfg: the run.
        ranks: the processes.
        dtype: of the weights, and of the sums of gradients.
        compiled: compile the blocks.
        one_graph: as `compile_block` takes it.
    """
    layout, narrow = ranks.layout, cfg.parallel.weights == "bfloat16"

    def build(first: int, end: int) -> GLM:
        """Make some blocks, not laid out."""
        with torch.device("meta"):
            model = GLM(cfg.model).to(dtype)
        if layout.pipeline > 1:
            take_part(model, first, end)
        if layout.tensor > 1:
            cut_model(model, ranks.tensor)
        recompute(model, cfg.train.recompute)
        for block in model.blocks.values():
            if compiled:
                compile_block(block, one_graph=one_graph)
        return model

    if layout.pipeline == 1:
        model = build(0, cfg.model.num_layers)
        _shard(model, model, ranks, dtype, narrow=narrow)
        return InTurn(model)
    chunks = CHUNKS[layout.schedule]
    bounds = blocks_of_stages(cfg, layout.pipeline * chunks, ranks.num_readers)
    stages: dict[int, Stage] = {}
    for index in stages_of(layout.schedule, layout.pipeline, ranks.station, chunks):
        stage = Stage(build(*bounds[index]), torch.bfloat16 if narrow else dtype)
        _shard(stage, stage.part, ranks, dtype, narrow=narrow, keeps=True)
        stages[index] = stage
    return InStages(
        cfg.model, stages, layout.schedule, ranks,
        in_halves=not (compiled or narrow or cfg.train.recompute == "full"),
    )  # fmt: skip


def _shard(
    root: nn.Module, model: GLM, ranks: Ranks, dtype: torch.dtype, *, narrow: bool,
    keeps: bool = False,
) -> None:  # fmt: skip
    """Let this process keep its part of the weights alone, and give them memory.

    Args:
        root: what is called.
        model: in it.
        ranks: the processes.
        dtype: of the weights, and of the sums of gradients.
        narrow: put weights together in bfloat16, in which blocks then compute; what is kept of
            them, and the sums of gradients, stay as they are.
        keeps: whether weights stay together after a forward pass.
    """
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if narrow else None, reduce_dtype=dtype
    )
    after = False if keeps else None
    mesh = ranks.mesh[REPLICATE, SHARD]
    for block in model.blocks.values():
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=after)
    fully_shard(root, mesh=mesh, mp_policy=policy, reshard_after_forward=after)
    root.to_empty(device=ranks.device)
    for group in root.modules():
        if not isinstance(group, FSDPModule):
            continue
        # Losses are divided by the weight of all ranks' targets, so gradients are summed.
        group.set_gradient_divide_factor(1.0)
        group.set_force_sum_reduction_for_comms(True)  # the other sums are NCCL's alone
        # What holds a group's whole weights is made here, and not under inference mode, whose
        # tensors could not be trained on later.
        group.unshard()
        group.reshard()


@torch.no_grad()
def draw_weights(
    cfg: ModelConfig, own: Mapping[str, torch.Tensor], places: Mapping[str, Sequence[Place]],
    seed: int, ranks: Ranks,
) -> None:  # fmt: skip
    """Give what is kept of every weight its first values, those of one process bit for bit.

    A tensor is drawn by one process, which sends its parts to those that keep them; the processes
    that keep any of it take turns.

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
        if names[id(first.weights[0])] not in own:  # another stage's
            continue
        draws = first.is_constant or turn == ranks.peer
        made = [values for _, values in first.values()] if draws else [None] * len(first.weights)
        for weight, values in zip(first.weights, made, strict=True):
            name = names[id(weight)]
            if first.is_constant and values is not None:
                part = values[places[name][ranks.holder].index]
            else:
                part = ranks.scatter(values, places[name], turn)
            own[name].copy_(part)
        if not first.is_constant:
            turn = (turn + 1) % ranks.num_peers
