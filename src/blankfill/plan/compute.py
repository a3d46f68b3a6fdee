"""How long a block and the head take on one rank, for one micro-batch.

A product of matrices takes its operations at the rate that products reach, and besides the reading
and writing of its matrices: the two overlap little at a product's beginning and end, which is why
small products are slower. Everything else is reading and writing memory. What tensor-parallel ranks
send is not hidden behind either.

Shapes: D hidden, F feed-forward, V vocabulary, N heads, H head size, T positions of a row,
n positions of a micro-batch, t tensor-parallel ranks.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Final

from blankfill.plan.hardware import (
    FUSED_ATTENTION_SHARE,
    LATENCY_SECONDS,
    LAUNCH_SECONDS,
    Cluster,
    Gpu,
)
from blankfill.plan.network import Network
from blankfill.plan.practice import Practice

__all__ = ["PassTime", "block_time", "head_time", "is_fused"]

ELEMENT_BYTES: Final = 2
"""Of bfloat16 and float16."""
FUSED_BACKWARD: Final = 2.5
"""Products of fused attention's backward pass over those of its forward pass: five over two, as it
computes the scores again (Dao 2023)."""
BACKWARD_PER_FORWARD: Final = 2
"""Each product has two in the backward pass: one for either factor's gradient."""
BACKWARD_MOVES: Final = 1.5
"""Bytes that the backward pass of an operation between products moves, over those of its forward
pass: of a norm 6 for 4, of a branch's end 7 for 7, of GeLU with its bias 8 for 4."""
LOGIT_BYTES: Final = 14
"""Read and written for one logit between its products: 2 written, 2 read and 4 written as float32,
4 read by the softmax, 2 of its gradient."""
TILES: Final = ((256, 128), (128, 256))
"""Rows and columns of a product's result that one multiprocessor computes at a time: the two large
tiles of NVIDIA's libraries, which are its most efficient."""
REDONE_PRODUCTS: Final = {"none": 0.0, "selective": 0.0, "full": 1.0, "half": 0.5}
"""Share of the forward products that the backward pass computes again. `half` is torchtitan's
selective recomputation of every second product."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PassTime:
    """Seconds of one micro-batch's passes."""

    forward: float
    """Forward, without what is sent."""
    backward: float
    """Backward, with what is computed again."""
    of_weights: float
    """Of the backward pass: gradients of weights, which zero-bubble schedules put off."""
    forward_sent: float = 0.0
    """What tensor-parallel ranks send, forward."""
    backward_sent: float = 0.0
    """The same, backward."""

    @property
    def computed(self) -> float:
        """Both passes' computation."""
        return self.forward + self.backward

    @property
    def sent(self) -> float:
        """Both passes' communication."""
        return self.forward_sent + self.backward_sent

    @property
    def total(self) -> float:
        """Both passes, computation and communication."""
        return self.computed + self.sent

    def times(self, count: float) -> PassTime:
        """Give the time of several."""
        return PassTime(
            forward=self.forward * count, backward=self.backward * count,
            of_weights=self.of_weights * count, forward_sent=self.forward_sent * count,
            backward_sent=self.backward_sent * count,
        )  # fmt: skip

    def and_then(self, other: PassTime) -> PassTime:
        """Give the time of both."""
        return PassTime(
            forward=self.forward + other.forward, backward=self.backward + other.backward,
            of_weights=self.of_weights + other.of_weights,
            forward_sent=self.forward_sent + other.forward_sent,
            backward_sent=self.backward_sent + other.backward_sent,
        )  # fmt: skip


@functools.cache
def block_time(
    network: Network, practice: Practice, cluster: Cluster, *, tensor: int, rows: int,
    recompute: str,
) -> PassTime:  # fmt: skip
    """Time one block.

    Args:
        network: the network.
        practice: how it is computed.
        cluster: where.
        tensor: ranks that compute it together.
        rows: of a micro-batch.
        recompute: a layout's, or `half`.
    """
    gpu, n, t = cluster.gpu, rows * network.row_length, tensor
    D, F = network.hidden_size, network.ffn_size
    outputs = D + 2 * network.kv_size
    shapes = [(outputs / t, D), (D, D / t), (network.up_size / t, D), (D, F / t)]
    products = sum(_product(gpu, n, columns, inner) for columns, inner in shapes)
    of_inputs = sum(_product(gpu, n, inner, columns) for columns, inner in shapes)
    of_matrices = sum(_product(gpu, columns, inner, n) for columns, inner in shapes)
    attention, attention_back = _attention(network, practice, gpu, n, t)
    others = _elementwise(network, practice, n, t) / gpu.read_bandwidth
    accumulate = practice.accumulate_bytes * _weights(network, t) / gpu.read_bandwidth
    forward = products + attention + others
    of_weights = of_matrices + accumulate
    backward = of_inputs + of_weights + attention_back + BACKWARD_MOVES * others
    launches = practice.launches * LAUNCH_SECONDS
    again = REDONE_PRODUCTS[recompute] * products
    if recompute in ("full", "half"):
        again += others
    if recompute == "full" or (recompute == "selective" and not is_fused(network, practice)):
        again += attention
    sum_of_ranks = _all_reduce(cluster, n * D * ELEMENT_BYTES, t)
    passes = 2 * sum_of_ranks
    sent_again = passes if recompute == "full" else 0.0
    if practice.cut_checkpoints and recompute == "full":
        sent_again += sum_of_ranks / 2  # a gather is half of a sum over ranks
    return PassTime(
        forward=max(forward, launches),
        backward=max(backward, BACKWARD_PER_FORWARD * launches) + again,
        of_weights=of_weights, forward_sent=passes, backward_sent=passes + sent_again,
    )  # fmt: skip


@functools.cache
def head_time(
    network: Network, practice: Practice, cluster: Cluster, *, tensor: int, rows: int
) -> PassTime:
    """Time the head and its loss, on the positions that it scores; arguments as `block_time`."""
    gpu, t = cluster.gpu, tensor
    n = rows * network.row_length * network.targets
    D, V = network.hidden_size, network.vocab_size / t
    forward = _product(gpu, n, V, D)
    of_hidden, of_matrix = _product(gpu, n, D, V), _product(gpu, V, D, n)
    logits = n * V * LOGIT_BYTES / gpu.read_bandwidth
    accumulate = practice.accumulate_bytes * V * D / gpu.read_bandwidth
    sent = _all_reduce(cluster, n * D * ELEMENT_BYTES, t)
    return PassTime(
        forward=forward + logits / 2,
        backward=of_hidden + of_matrix + logits / 2 + accumulate,
        of_weights=of_matrix + accumulate, backward_sent=sent,
    )  # fmt: skip


def _product(gpu: Gpu, rows: float, columns: float, inner: float, count: float = 1) -> float:
    """Time a product of `[rows, inner]` and `[inner, columns]`.

    Its result is computed in tiles, one for each multiprocessor at a time, and the last wave of
    tiles takes as long as a full one (NVIDIA, "Matrix Multiplication Background").
    """
    operations = 2 * rows * columns * inner
    moved = ELEMENT_BYTES * (rows * inner + inner * columns + rows * columns)
    busy = max(
        rows * columns / (_waves(rows / high, columns / wide, gpu) * high * wide)
        for high, wide in TILES
    )
    return count * (operations / (gpu.product_flops * busy) + moved / gpu.read_bandwidth)


def _waves(down: float, across: float, gpu: Gpu) -> int:
    """Count the tiles that are computed, those of multiprocessors without work included."""
    tiles = math.ceil(down) * math.ceil(across)
    return math.ceil(tiles / gpu.multiprocessors) * gpu.multiprocessors


def is_fused(network: Network, practice: Practice) -> bool:
    """Tell whether scores stay within one kernel, which has no dropout."""
    return practice.fused_attention and not network.attention_dropout


def _attention(
    network: Network, practice: Practice, gpu: Gpu, n: int, t: int
) -> tuple[float, float]:
    """Time the scores of attention, their softmax and the weighted values, forward and backward."""
    T, H = network.row_length, network.head_size
    heads = n / T * network.num_heads / t
    if is_fused(network, practice):
        forward_share, backward_share = FUSED_ATTENTION_SHARE[gpu.family]
        operations = 4 * heads * T * T * H * network.visible
        forward = operations / (gpu.peak_flops * forward_share)
        return forward, FUSED_BACKWARD * operations / (gpu.peak_flops * backward_share)
    scores = _product(gpu, heads * T, T, H)
    one_pass = heads * T * T / gpu.read_bandwidth
    forward = 2 * scores + one_pass * practice.score_bytes
    return forward, BACKWARD_PER_FORWARD * 2 * scores + one_pass * practice.score_backward_bytes


def _elementwise(network: Network, practice: Practice, n: int, t: int) -> float:
    """Count the bytes that a block's other operations move, forward."""
    D = network.hidden_size
    whole = D * (network.norms * practice.norm_bytes + 2 * practice.residual_bytes)
    if practice.sequence_parallel:
        whole /= t
    inner = network.ffn_size * practice.activation_bytes
    rotated = (D + network.kv_size) * practice.rotary_bytes * network.rotary
    return n * (whole + (inner + rotated) / t)


def _weights(network: Network, t: int) -> float:
    """Count the weights of a block's matrices on one rank."""
    D = network.hidden_size
    return D * (2 * D + 2 * network.kv_size + network.up_size + network.ffn_size) / t


def _all_reduce(cluster: Cluster, size: float, ranks: int) -> float:
    """Time a sum over tensor-parallel ranks, or the gather and the reduction in its place."""
    if ranks == 1:
        return 0.0
    moved = 2 * size * (ranks - 1) / ranks
    return moved / cluster.bandwidth(ranks, 1) + LATENCY_SECONDS
