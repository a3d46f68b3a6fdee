"""How long a step takes: computation, what is sent and cannot be hidden, bubble, and what is fixed.

A step of m micro-batches takes m passes of the busiest rank, the wait for the pipeline to fill and
drain, and what happens once whatever their number.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

from blankfill.plan.compute import ELEMENT_BYTES, PassTime, block_time, head_time
from blankfill.plan.hardware import LATENCY_SECONDS, Cluster
from blankfill.plan.layout import (
    Layout,
    StageParameters,
    cut_blocks,
    stage_parameters,
    stages_of,
)
from blankfill.plan.network import Network
from blankfill.plan.practice import Practice
from blankfill.results import short_repr

__all__ = ["Costs", "StepTime", "costs_of", "stage_times"]

OPTIMIZER_BYTES: Final = 40
"""Read and written for one owned weight at the end of a step: AdamW reads four float32 numbers and
writes three (28), the gradient's norm reads one (4), clipping reads and writes one (8)."""

ZBV_WAIT: Final = 2
"""Times that zbv's ranks wait of what the formula of its paper says where passes are not of equal
length: drawn up pass by pass (`timeline`), 1.3 to 2.9, with two to four micro-batches a rank."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTime:
    """Seconds of one step, by what they are spent on."""

    compute: float
    """Kernels of the busiest rank."""
    communication: float
    """What is sent and not hidden behind them."""
    bubble: float
    """Waiting for the pipeline to fill and to drain."""
    fixed: float
    """Once a step: the optimizer."""

    __repr__ = short_repr

    @property
    def total(self) -> float:
        """All of it."""
        return self.compute + self.communication + self.bubble + self.fixed


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """What one layout's steps cost, whatever their number of rows."""

    layout: Layout
    cut: tuple[int, ...]
    """Blocks of each stage."""
    slowest: PassTime
    """One micro-batch on the busiest rank of the pipeline."""
    whole: PassTime
    """One micro-batch on all of its ranks, one after the other."""
    hop: float
    """What a rank sends of one micro-batch to its neighbours, forward and back."""
    per_pass: float
    """Of sharded weights: gathers and reductions of a micro-batch, mostly hidden."""
    once: float
    """What data ranks send once a step, not hidden."""
    hidden_once: float
    """What they send behind the last backward pass."""
    fixed: float
    """The optimizer's part."""

    def step(self, rows: int) -> StepTime:
        """Time a step of so many rows."""
        count = self.layout.num_micro_batches(rows)
        seen = max(0.0, self.per_pass - self.slowest.total) * count
        seen += max(0.0, self.hidden_once - self.slowest.backward)
        return StepTime(
            compute=self.slowest.computed * count,
            communication=(self.slowest.sent + self.hop) * count + seen + self.once,
            bubble=self._bubble(), fixed=self.fixed,
        )  # fmt: skip

    def _bubble(self) -> float:
        """Time the wait of the busiest rank.

        1f1b: the other ranks' part of one micro-batch. interleaved: that over the stages of a rank
        (Narayanan et al. 2021, section 2.2). zbv: (p - 1) (F + B - 2 W), where B are gradients of
        activations and W those of weights, which fill the rest (Qi et al. 2024, table 1), times
        `ZBV_WAIT`; and, as the optimizer waits for all ranks, the way of the first micro-batch down
        to the last rank.
        """
        p = self.layout.pipeline
        if p == 1:
            return 0.0
        others = self.whole.total - self.slowest.total + (p - 1) * self.hop
        if self.layout.schedule == "zbv":
            down = (self.whole.forward + self.whole.forward_sent) / (2 * p) + self.hop / 4
            unfilled = (self.whole.total - 3 * self.whole.of_weights) / p + self.hop
            return min(others, (p - 1) * (down + ZBV_WAIT * max(0.0, unfilled)))
        return others / self.layout.chunks


def costs_of(
    network: Network, practice: Practice, cluster: Cluster, layout: Layout, *, recompute: str = ""
) -> Costs:
    """Work out what a layout's steps cost.

    Args:
        network: the network.
        practice: how it is computed.
        cluster: where.
        layout: how it is laid out.
        recompute: in place of the layout's: `half`, as another program has it.
    """
    passes = _passes(
        network, practice, cluster, layout.tensor, layout.pipeline, layout.schedule, layout.chunks,
        layout.micro_batch_rows, recompute or layout.recompute,
    )  # fmt: skip
    fullest = passes.fullest
    per_pass, once, hidden_once = _of_data_ranks(practice, cluster, layout, fullest)
    shared = 1 if practice.zero == "none" else layout.shard
    return Costs(
        layout=layout, cut=passes.cut, slowest=passes.slowest, whole=passes.whole,
        hop=_hop(network, cluster, layout), per_pass=per_pass,
        once=once + _of_tied_embedding(network, practice, cluster, layout), hidden_once=hidden_once,
        fixed=fullest.total / shared * OPTIMIZER_BYTES / cluster.gpu.read_bandwidth,
    )  # fmt: skip


def stage_times(
    network: Network, practice: Practice, cluster: Cluster, layout: Layout, cut: tuple[int, ...]
) -> list[PassTime]:
    """Time one micro-batch in each stage; arguments as for `costs_of`, and blocks of each stage."""
    at = {"tensor": layout.tensor, "rows": layout.micro_batch_rows}
    block = block_time(network, practice, cluster, recompute=layout.recompute, **at)
    head = head_time(network, practice, cluster, **at)
    last = len(cut) - 1
    return [block.times(n).and_then(head.times(stage == last)) for stage, n in enumerate(cut)]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Passes:
    """What does not depend on the data ranks."""

    cut: tuple[int, ...]
    slowest: PassTime
    whole: PassTime
    fullest: StageParameters


@functools.cache
def _passes(
    network: Network, practice: Practice, cluster: Cluster, tensor: int, pipeline: int,
    schedule: str, chunks: int, rows: int, recompute: str,
) -> _Passes:  # fmt: skip
    block = block_time(
        network, practice, cluster, tensor=tensor, rows=rows, recompute=recompute
    )  # fmt: skip
    head = head_time(network, practice, cluster, tensor=tensor, rows=rows)
    cut = cut_blocks(network.num_layers, pipeline * chunks, head.total / block.total)
    layout = Layout(pipeline=pipeline, schedule=schedule, chunks=chunks)  # pyright: ignore[reportArgumentType]  # a Layout's own
    of_ranks = [stages_of(layout, rank) for rank in range(pipeline)]
    owned = [stage_parameters(network, tensor, stages, cut) for stages in of_ranks]
    times = {
        stages: block.times(part.blocks).and_then(head.times(len(cut) - 1 in stages))
        for stages, part in zip(of_ranks, owned, strict=True)
    }
    return _Passes(
        cut=cut, slowest=max(times.values(), key=lambda rank: rank.total),
        whole=block.times(network.num_layers).and_then(head),
        fullest=max(owned, key=lambda part: part.total),
    )  # fmt: skip


def _hop(network: Network, cluster: Cluster, layout: Layout) -> float:
    """Time what a rank sends of one micro-batch; each tensor rank sends its part."""
    if layout.pipeline == 1:
        return 0.0
    size = layout.positions(network) * network.hidden_size * ELEMENT_BYTES / layout.tensor
    stride = layout.num_data * layout.tensor
    one = size / cluster.bandwidth(2, stride) + LATENCY_SECONDS
    return 2 * one * layout.chunks


def _of_data_ranks(
    practice: Practice, cluster: Cluster, layout: Layout, owned: StageParameters
) -> tuple[float, float, float]:
    """Time what data ranks send: in each pass, once at the end, and once behind a backward pass."""
    shard, replicate, tensor = layout.shard, layout.replicate, layout.tensor
    gather = _ring(cluster, owned.total * practice.gather_bytes, shard, tensor)
    reduce = _ring(cluster, owned.total * practice.reduce_bytes, shard, tensor)
    of_shard = owned.total * practice.reduce_bytes / shard
    of_copies = 2 * _ring(cluster, of_shard, replicate, tensor * shard)
    if practice.zero == "all" and layout.pipeline == 1:
        # The first gather and the last reduction have nothing beside them.
        ends = (gather + reduce) * (owned.of_root + owned.of_block) / owned.total
        return 2 * gather + reduce, ends, of_copies
    if practice.zero == "all":
        return 0.0, gather + reduce + of_copies, 0.0
    if practice.zero == "optimizer":
        return 0.0, gather + 2 * reduce + of_copies, 0.0
    return 0.0, 2 * reduce + of_copies, 0.0


def _of_tied_embedding(
    network: Network, practice: Practice, cluster: Cluster, layout: Layout
) -> float:
    """Time the sum of the two gradients of an embedding that both ends of a pipeline have."""
    if layout.pipeline == 1 or not network.tied:
        return 0.0
    rows = network.head_parameters / layout.tensor
    size = rows * practice.reduce_bytes / (layout.shard if practice.zero == "all" else 1)
    return 2 * _ring(cluster, size, 2, layout.num_data * layout.tensor)


def _ring(cluster: Cluster, size: float, ranks: int, stride: int) -> float:
    """Time a gather or a reduction of `size` bytes over ranks."""
    if ranks == 1:
        return 0.0
    moved = size * (ranks - 1) / ranks
    return moved / cluster.bandwidth(ranks, stride) + LATENCY_SECONDS
