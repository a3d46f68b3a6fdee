"""A plan's answer: each layout with its figures of time, memory, energy and cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from blankfill.config.train import TrainConfig
from blankfill.plan.search import Found, Task
from blankfill.plan.step import Costs
from blankfill.results import short_repr

__all__ = ["PlannedLayout", "describe"]

DAY: Final = 86_400
JOULES: Final = 3.6e9
"""Of a megawatt-hour."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedLayout:
    """One layout with its figures."""

    replicate: int
    """Copies of the model, over which gradients are summed."""
    shard: int
    """Ranks that hold a copy together."""
    tensor: int
    """Ranks that compute each block together."""
    pipeline: int
    """Ranks that the blocks are dealt to."""
    schedule: str
    """Order of the pipeline's passes; none without a pipeline."""
    stages_per_rank: int
    """Stages of each pipeline rank."""
    recompute: str
    """What the backward pass computes again."""
    micro_batch_rows: int
    """Rows of a pass."""
    micro_batches: int
    """Passes of a step."""
    blocks: list[int]
    """Blocks of each stage."""
    step_seconds: float
    """Of a step of the full batch."""
    compute_seconds: float
    """Of which kernels."""
    communication_seconds: float
    """Of which sending that nothing hides."""
    bubble_seconds: float
    """Of which the pipeline's filling and draining."""
    fixed_seconds: float
    """Of which the optimizer."""
    mfu: float
    """Model operations, by convention of every position, as a share of the peak."""
    tokens_per_day: float
    """Positions of rows in a day of full batches."""
    days: float
    """For all tokens, the batch's growth included."""
    gpu_energy_mwh: float
    """GPUs at their power limit."""
    energy_mwh: float
    """Servers at their rated power, GPUs included."""
    cost: float | None
    """At the price; None without one."""
    memory_bytes: float
    """Of the fullest rank."""
    memory_by_kind: dict[str, float]
    """Of that rank: weights, gradients, optimizer, activations, receive buffers, and gradients that
    are not cut over the ranks yet."""
    fullest_pipeline_rank: int
    """Which rank that is."""
    spare_bytes: float
    """Left of a GPU's memory; below 0 where the layout does not fit."""

    __repr__ = short_repr


def describe(task: Task, found: Found, *, tokens: float, price: float | None) -> PlannedLayout:
    """Give a layout its figures.

    Args:
        task: what is planned.
        found: the layout.
        tokens: positions of rows to train on.
        price: of one GPU for an hour.
    """
    layout, cluster = found.layout, task.cluster
    rows, length = task.train.batch_rows, task.network.row_length
    step = found.costs.step(rows)
    seconds = run_seconds(found.costs, task.train, tokens / length)
    gpus = cluster.num_gpus
    return PlannedLayout(
        replicate=layout.replicate, shard=layout.shard, tensor=layout.tensor,
        pipeline=layout.pipeline, stages_per_rank=layout.chunks,
        schedule=layout.schedule if layout.pipeline > 1 else "none", recompute=layout.recompute,
        micro_batch_rows=layout.micro_batch_rows, micro_batches=layout.num_micro_batches(rows),
        blocks=list(found.costs.cut), step_seconds=step.total, compute_seconds=step.compute,
        communication_seconds=step.communication, bubble_seconds=step.bubble,
        fixed_seconds=step.fixed,
        mfu=task.network.operations * rows * length
        / (step.total * gpus * cluster.gpu.peak_flops),
        tokens_per_day=rows * length / step.total * DAY, days=seconds / DAY,
        gpu_energy_mwh=gpus * cluster.gpu.watts * seconds / JOULES,
        energy_mwh=gpus * cluster.gpu.server_watts * seconds / JOULES,
        cost=None if price is None else price * gpus * seconds / 3600,
        memory_bytes=found.memory.total, memory_by_kind=found.memory.kinds(),
        fullest_pipeline_rank=found.memory.rank, spare_bytes=found.spare(cluster),
    )  # fmt: skip


def run_seconds(costs: Costs, train: TrainConfig, rows: float) -> float:
    """Time so many rows, in batches that grow as the configuration says.

    Args:
        costs: of the layout's steps.
        train: the batch, and how it grows.
        rows: to train on.
    """
    seconds, done = 0.0, 0.0
    if train.ramp_rows:
        levels = (train.batch_rows - train.ramp_from_rows) // train.micro_batch_rows
        each = train.ramp_rows / max(1, levels)
        for level in range(levels):
            size = train.ramp_from_rows + level * train.micro_batch_rows
            taken = min(each, rows - done)
            seconds += taken / size * costs.step(size).total
            done += taken
            if done >= rows:
                return seconds
    return seconds + (rows - done) / train.batch_rows * costs.step(train.batch_rows).total
