"""What a rank holds at its fullest moment, by kind.

Activation bytes follow Korthikanti et al. 2022, section 4, counted anew for gated layers and fused
attention: what torch keeps of each operation for its backward pass.

Shapes: D hidden, F feed-forward, N heads, T positions of a row, n positions of a micro-batch,
t tensor-parallel ranks.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

from blankfill.plan.compute import ELEMENT_BYTES, is_fused
from blankfill.plan.layout import (
    Layout,
    Schedule,
    StageParameters,
    in_flight,
    stage_parameters,
    stages_of,
)
from blankfill.plan.network import Network
from blankfill.plan.practice import Practice
from blankfill.results import short_repr

__all__ = ["Memory", "Moments", "activation_bytes", "fullest_rank", "rank_memory"]

MASTER_BYTES: Final = 4
"""Of a float32 weight, gradient or moment."""
GROUPS_GATHERED: Final = 2
"""Blocks of FSDP2 whose weights are whole at once: the one that computes and the next."""
LOGITS_AT_ONCE: Final = 512
"""Targets whose logits are there at once in the chunked loss, at the least (`model/loss.py`)."""
LOGIT_BYTES_KEPT: Final = 10
"""Of one logit: itself, float32, and its gradient."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes of one rank, by kind."""

    weights: float
    """Weights: what it owns, and what is put together of them for products."""
    gradients: float
    """Gradients of what it owns."""
    optimizer: float
    """Master weights where they are apart, moments, averaged weights."""
    activations: float
    """What the forward passes on the way keep, and the logits of one chunk."""
    receive_buffers: float
    """What neighbours in the pipeline write into."""
    unsharded_gradients: float
    """Gradients before they are cut over the ranks: of a whole stage under a pipeline."""
    rank: int
    """Which rank of the pipeline."""

    __repr__ = short_repr

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self.kinds().values())

    def kinds(self) -> dict[str, float]:
        """Give the bytes by the kind's name."""
        return {
            "weights": self.weights, "gradients": self.gradients, "optimizer": self.optimizer,
            "activations": self.activations, "receive buffers": self.receive_buffers,
            "unsharded gradients": self.unsharded_gradients,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """Bytes of the optimizer's state for one weight."""

    matrices: int = 8
    """Of the blocks' matrices: two moments of AdamW, one of Muon."""
    others: int = 8
    """Of everything else."""


def fullest_rank(
    network: Network, practice: Practice, layout: Layout, rows: int, cut: tuple[int, ...],
    moments: Moments, *, recompute: str = "",
) -> Memory:  # fmt: skip
    """Give what the fullest rank of the pipeline holds.

    Args:
        network: the network.
        practice: how it is computed.
        layout: how it is laid out.
        rows: of a step.
        cut: blocks of each stage.
        moments: of the optimizer.
        recompute: in place of the layout's: `half`, as another program has it.
    """
    ranks = _distinct_ranks(
        network, layout.tensor, layout.pipeline, layout.schedule, layout.chunks, cut
    )
    of_ranks = (
        rank_memory(network, practice, layout, rows, owned, moments, rank, recompute=recompute)
        for rank, owned in ranks
    )
    return max(of_ranks, key=lambda memory: memory.total)


@functools.cache
def _distinct_ranks(
    network: Network, tensor: int, pipeline: int, schedule: Schedule, chunks: int,
    cut: tuple[int, ...],
) -> tuple[tuple[int, StageParameters], ...]:  # fmt: skip
    """List the first rank of those that own alike; later ones hold no more micro-batches."""
    layout = Layout(pipeline=pipeline, schedule=schedule, chunks=chunks)
    first: dict[StageParameters, int] = {}
    for rank in range(pipeline):
        owned = stage_parameters(network, tensor, stages_of(layout, rank), cut)
        first.setdefault(owned, rank)
    return tuple((rank, owned) for owned, rank in first.items())


def rank_memory(
    network: Network, practice: Practice, layout: Layout, rows: int, owned: StageParameters,
    moments: Moments, rank: int, *, recompute: str = "",
) -> Memory:  # fmt: skip
    """Give what one rank of the pipeline holds; arguments as for `fullest_rank`."""
    count = layout.num_micro_batches(rows)
    held = in_flight(layout, rank, count)
    weights, gradients, unsharded = _of_weights(owned, practice, layout)
    of_block = functools.partial(
        activation_bytes, network, practice, tensor=layout.tensor, rows=layout.micro_batch_rows
    )
    kind = recompute or layout.recompute
    kept = of_block(kind) * owned.blocks * held
    if kind in ("full", "half"):  # the block that is computed again is there whole
        kept += of_block("none")
    elif kind == "selective":  # and so are its attention weights
        kept += of_block("none") - of_block("selective")
    if rank == layout.pipeline - 1 or layout.schedule == "zbv":
        kept += _logit_bytes(network, practice, layout)
    return Memory(
        weights=weights, gradients=gradients, optimizer=_state(owned, practice, layout, moments),
        activations=kept, unsharded_gradients=unsharded, rank=rank,
        receive_buffers=_receive_buffers(network, practice, layout, rank, held, count),
    )  # fmt: skip


@functools.lru_cache(maxsize=100_000)
def activation_bytes(
    network: Network, practice: Practice, recompute: str, *, tensor: int, rows: int
) -> float:
    """Count what one block keeps of one micro-batch for its backward pass.

    Of `n D` elements of 2 bytes, without recomputation: the input and the output of each norm, and
    1 byte for each dropout's mask, which sequence parallelism cuts over the ranks; queries, keys,
    values and the result of attention, and the halves of the feed-forward layer with their product,
    which tensor parallelism cuts. Unfused attention keeps 5 bytes of each score (softmax, mask,
    dropped), which selective recomputation does not; fused attention 4 of each query and head. With
    a plain GeLU of four times the width this is Korthikanti's `34 + 5 N T / D` bytes an element.
    """
    n, t, D = rows * network.row_length, tensor, network.hidden_size
    whole_cut = t if practice.sequence_parallel else 1
    if recompute == "full":
        cut = t if practice.sequence_parallel or practice.cut_checkpoints else 1
        return ELEMENT_BYTES * n * D / cut
    attended = ELEMENT_BYTES * (2 * D + 2 * network.kv_size)
    inner = ELEMENT_BYTES * network.up_size
    if is_fused(network, practice):
        attended += 4 * network.num_heads
    elif recompute == "none":
        attended += 5 * network.num_heads * network.row_length
    if recompute == "half":  # of the results of products every second; input and attention's stay
        whole = 3 * ELEMENT_BYTES * D
        stays = ELEMENT_BYTES * (D / whole_cut + D / t)
        return n * (stays + (whole / whole_cut + (attended + inner) / t - stays) / 2)
    whole = D * (2 * ELEMENT_BYTES * network.norms + 2 * network.dropout)
    inner += ELEMENT_BYTES * network.ffn_size
    return n * (whole / whole_cut + (attended + inner) / t)


def _of_weights(
    owned: StageParameters, practice: Practice, layout: Layout
) -> tuple[float, float, float]:
    """Count weights, gradients that are kept, and gradients that are not cut yet."""
    total, shard = owned.total, layout.shard
    if practice.zero != "all":
        return total * practice.weight_bytes, total * practice.gradient_bytes, 0.0
    master = total * MASTER_BYTES / shard
    if layout.pipeline > 1:  # put together once a step, since a pipeline asks for them all the time
        return (
            master + total * practice.weight_bytes,
            total * MASTER_BYTES / shard,
            total * practice.gradient_bytes,
        )
    at_once = owned.of_root + min(GROUPS_GATHERED, owned.blocks) * owned.of_block
    gathered = at_once * practice.weight_bytes
    return (
        master + gathered,
        total * MASTER_BYTES / shard,
        at_once * (practice.weight_bytes + practice.reduce_bytes),
    )


def _state(owned: StageParameters, practice: Practice, layout: Layout, moments: Moments) -> float:
    """Count the optimizer's state; masters are weights where all weights are sharded."""
    shard = 1 if practice.zero == "none" else layout.shard
    others = owned.total - owned.matrices
    state = owned.matrices * moments.matrices + others * moments.others
    if practice.zero != "all":
        state += owned.total * MASTER_BYTES
    return state / shard


def _logit_bytes(network: Network, practice: Practice, layout: Layout) -> float:
    scored = layout.positions(network) * network.targets
    if practice.chunked_loss:
        scored = min(scored, LOGITS_AT_ONCE)
    return scored * network.vocab_size / layout.tensor * LOGIT_BYTES_KEPT


def _receive_buffers(
    network: Network, practice: Practice, layout: Layout, rank: int, held: float, count: int
) -> float:
    """Count the buffers: one for each micro-batch on the way, from either neighbour."""
    if layout.pipeline == 1:
        return 0.0
    each = layout.positions(network) * network.hidden_size * ELEMENT_BYTES
    if practice.sequence_parallel:
        each /= layout.tensor
    held = count if practice.receives_all else held
    ends = 2 if layout.chunks > 1 else (rank > 0) + (rank < layout.pipeline - 1)
    return each * held * layout.chunks * ends
