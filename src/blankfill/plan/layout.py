"""How a network is laid out over GPUs: axes, the schedule of a pipeline, its cut into stages.

The axes stand in this order, outermost first: pipeline, replicate, shard, tensor. So the ranks of a
tensor-parallel group are neighbours, and a copy's shards come next.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from blankfill.config.stages import (
    Schedule,
    cut_blocks,
    require_micro_batches,
    require_stages,
)
from blankfill.config.stages import stages_of as stages_by
from blankfill.config.train import RecomputeKind
from blankfill.errors import ConfigError
from blankfill.plan.network import Network, block_parameters

__all__ = [
    "Layout", "Schedule", "StageParameters", "cut_blocks", "in_flight",
    "require_possible", "stage_parameters", "stages_of",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """One way to share a step's work out."""

    replicate: int = 1
    """Copies of the model, over which gradients are summed."""
    shard: int = 1
    """Ranks that hold a copy's weights, gradients and moments together."""
    tensor: int = 1
    """Ranks that compute each block together."""
    pipeline: int = 1
    """Ranks that the blocks are dealt to in stages."""
    schedule: Schedule = "1f1b"
    """In which order a rank takes its stages' passes."""
    chunks: int = 1
    """Stages of each pipeline rank: 1 under 1f1b, 2 under zbv."""
    recompute: RecomputeKind = "none"
    """What the backward pass computes again. selective: attention weights; full: all of a block but
    its input."""
    micro_batch_rows: int = 1
    """Rows in one pass."""

    @property
    def num_gpus(self) -> int:
        """GPUs that it takes."""
        return self.replicate * self.shard * self.tensor * self.pipeline

    def positions(self, network: Network) -> int:
        """Count the positions of a micro-batch."""
        return self.micro_batch_rows * network.row_length

    @property
    def num_data(self) -> int:
        """Ranks that have rows of their own."""
        return self.replicate * self.shard

    def num_micro_batches(self, rows: int) -> int:
        """Tell how many passes a step of so many rows takes."""
        return math.ceil(rows / (self.num_data * self.micro_batch_rows))


def require_possible(layout: Layout, network: Network, rows: int) -> None:
    """Check that a layout can be one of this network.

    Args:
        layout: the layout.
        network: the network.
        rows: of the smallest step.

    Raises:
        ConfigError: something does not divide, or there are more stages than blocks, fewer
            micro-batches than the schedule needs, or more data ranks than rows.
    """
    t, p = layout.tensor, layout.pipeline
    for value, name in (
        (network.num_heads, "model.num_heads"), (network.vocab_size, "model.vocab_size"),
        (network.ffn_size, "model.ffn_size"), (network.row_length, "train.row_length"),
    ):  # fmt: skip
        if value % t:
            larger = math.ceil(value / t) * t
            other = "" if name == "model.num_heads" else f", or a {name} of {larger:,}"
            raise ConfigError(
                f"parallel.tensor={t} must divide {name}={value:,}; take parallel.tensor="
                f"{math.gcd(value, t)}{other}"
            )
    require_stages(layout.schedule, p, layout.chunks, network.num_layers)
    if layout.num_data * layout.micro_batch_rows > rows:
        raise ConfigError(
            f"parallel.replicate={layout.replicate} times parallel.shard={layout.shard} ranks with "
            f"train.micro_batch_rows={layout.micro_batch_rows} each need "
            f"{layout.num_data * layout.micro_batch_rows:,} rows, and a step has {rows:,}; take "
            "fewer of them, or a larger train.batch_rows"
        )
    require_micro_batches(
        layout.schedule, p, rows=rows, num_data=layout.num_data,
        micro_batch_rows=layout.micro_batch_rows,
    )  # fmt: skip


def stages_of(layout: Layout, rank: int) -> tuple[int, ...]:
    """List the stages of a pipeline rank."""
    return stages_by(layout.schedule, layout.pipeline, rank, layout.chunks)


def in_flight(layout: Layout, rank: int, num_micro_batches: int) -> float:
    """Tell how many micro-batches' activations a pipeline rank holds at once, of all its blocks.

    1f1b: as many as ranks from it on. interleaved: its warm-up and one more, in chunks (Narayanan
    et al. 2021; Korthikanti et al. 2022, section 4.2.3). zbv: as many as ranks, on each (Qi et al.
    2024).
    """
    p, chunks = layout.pipeline, layout.chunks
    if p == 1:
        return 1
    most = p - rank
    if layout.schedule == "interleaved":
        most = (2 * (p - rank - 1) + (chunks - 1) * p + 1) / chunks
    if layout.schedule == "zbv":
        most = p
    return min(num_micro_batches, most)


@dataclass(frozen=True, kw_only=True, slots=True)
class StageParameters:
    """Weights of one pipeline rank's tensor-parallel rank, before they are sharded."""

    blocks: int
    """Blocks."""
    cut: int
    """Weights that no other tensor-parallel rank has."""
    whole: int
    """Weights that each tensor-parallel rank of the stage has."""
    of_block: int
    """Of one block, both kinds."""
    of_root: int
    """What is in no block: embedding, final norm, head."""
    matrices: int
    """Of the blocks' matrices."""
    copied: int
    """Of the copy of a tied embedding, which is another stage's weight as well."""

    @property
    def total(self) -> int:
        """All that it holds."""
        return self.cut + self.whole


@functools.cache
def stage_parameters(
    network: Network, tensor: int, stages: tuple[int, ...], cut: tuple[int, ...]
) -> StageParameters:
    """Count the weights of a rank.

    Args:
        network: the network.
        tensor: ranks that compute a block together.
        stages: that the rank has.
        cut: blocks of each stage.
    """
    t = tensor
    block = block_parameters(network)
    blocks = sum(cut[stage] for stage in stages)
    is_first, is_last = 0 in stages, len(cut) - 1 in stages
    tables, whole, copied = 0, 0, 0
    if is_first:
        tables += network.vocab_size * network.hidden_size // t
        whole += network.position_rows * network.hidden_size
    if is_last:
        whole += network.last_parameters
        if not network.tied or not is_first:
            head = network.head_parameters // t
            tables += head
            copied = head if network.tied else 0
    return StageParameters(
        blocks=blocks, cut=blocks * (block.cut // t) + tables,
        whole=blocks * block.whole + whole, of_block=block.cut // t + block.whole,
        of_root=tables + whole, matrices=blocks * (block.matrices // t), copied=copied,
    )  # fmt: skip
