"""How a program computes a step: what its kernels read and write, what it keeps, what it sends.

A plan is of `BLANKFILL`. The other programs are there so that the same arithmetic, with the same
shares of the data sheets, can be held against what they published; each number here is counted from
the operations that the program is known to run, and none was fitted.

Bytes are read and written in the forward pass for one element of 2 bytes; the backward pass does
twice as much.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final, Literal

__all__ = [
    "BLANKFILL", "BLANKFILL_FLOAT32", "FOUNDRY", "FOUNDRY_PURE", "LARGESCALE",
    "MEGATRON_2021", "MEGATRON_2022", "TITAN", "TITAN_COMPILED", "Practice",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Practice:
    """One program's way."""

    name: str
    fused_attention: bool
    """Whether scores stay within one kernel; otherwise each passes through memory."""
    score_bytes: float = 0.0
    """Of one score that does: softmax 2 read, 2 written; dropout 2, 2 and 1 of its mask. The
    products that write and read scores are counted with the products."""
    score_backward_bytes: float = 0.0
    """The same in the backward pass: softmax 4 read, 2 written; dropout 3 read, 2 written."""
    norm_bytes: float
    """Of one element of a norm."""
    residual_bytes: float
    """Of one element where a branch ends: bias, dropout, addition."""
    activation_bytes: float
    """Of one element of the inner width: activation and, where gated, its product."""
    rotary_bytes: float
    """Of one element of queries and keys, where positions rotate them."""
    sequence_parallel: bool
    """Whether norms and residuals are cut over the tensor-parallel ranks as well."""
    cut_checkpoints: bool = False
    """Whether what full recomputation keeps is cut over them and gathered again."""
    accumulate_bytes: float
    """Of one weight in each micro-batch: adding its gradient to the sum; of sharded weights the
    copies out of a gather and into a reduction."""
    gather_bytes: float = 2.0
    """Bytes of a weight that a gather sends."""
    reduce_bytes: float = 4.0
    """Bytes of a gradient that a reduction sends."""
    weight_bytes: float
    """Bytes of a weight as products read it."""
    gradient_bytes: float
    """Bytes of the sum of a gradient while micro-batches are added up."""
    zero: Literal["none", "optimizer", "all"]
    """What the data ranks of a copy share out: nothing; master weights and moments (ZeRO-1); the
    weights too (FSDP)."""
    receives_all: bool = False
    """Whether a stage has a receive buffer for every micro-batch, as torch's has by itself."""
    chunked_loss: bool = False
    """Whether the logits of some targets are there at a time, and not of all."""
    launches: float = 30
    """Kernels of one block's forward pass."""


BLANKFILL: Final = Practice(
    name="blankfill", fused_attention=True, score_bytes=9, score_backward_bytes=11,
    norm_bytes=4, residual_bytes=6, activation_bytes=6, rotary_bytes=4, sequence_parallel=True,
    accumulate_bytes=14, weight_bytes=2, gradient_bytes=4, zero="all", chunked_loss=True,
    launches=20,
)  # fmt: skip
"""Blocks compiled by Inductor, which leaves one pass for a norm, one for a branch's end, one for
the gate and one for the rotation; weights bfloat16 over float32 masters, FSDP2, gradients summed in
float32, buffers for the micro-batches on the way alone."""
BLANKFILL_FLOAT32: Final = dataclasses.replace(
    BLANKFILL, name="blankfill, float32 weights", accumulate_bytes=28, gather_bytes=4,
    weight_bytes=4,
)  # fmt: skip
"""The same with weights gathered in float32 and cast in each pass (autocast)."""
MEGATRON_2021: Final = Practice(
    name="Megatron-LM, 2021", fused_attention=False, score_bytes=8, score_backward_bytes=9,
    norm_bytes=4, residual_bytes=7, activation_bytes=4, rotary_bytes=0, sequence_parallel=False,
    accumulate_bytes=10, weight_bytes=2, gradient_bytes=4, reduce_bytes=4, zero="none",
)  # fmt: skip
"""Fused norm, softmax, bias-GeLU and bias-dropout-add; float16 gradients are added to float32
sums, which are reduced (Narayanan et al. 2021; local data-parallel of that release)."""
MEGATRON_2022: Final = Practice(
    name="Megatron-LM, 2022", fused_attention=False, score_bytes=8, score_backward_bytes=9,
    norm_bytes=4, residual_bytes=7, activation_bytes=4, rotary_bytes=0, sequence_parallel=True,
    accumulate_bytes=6, weight_bytes=2, gradient_bytes=4, reduce_bytes=4, zero="none",
)  # fmt: skip
"""The same with sequence parallelism and sums of gradients in the product's own kernel
(Korthikanti et al. 2022)."""
LARGESCALE: Final = Practice(
    name="LargeScale (GLM-130B)", fused_attention=False, score_bytes=10, score_backward_bytes=11,
    norm_bytes=4, residual_bytes=11, activation_bytes=18, rotary_bytes=20, sequence_parallel=False,
    cut_checkpoints=True, accumulate_bytes=6, reduce_bytes=2, weight_bytes=2, gradient_bytes=2,
    zero="optimizer", launches=45,
)  # fmt: skip
"""GLM-130B's own program, by its launch script and code: fused norm and softmax with a mask that is
read (+1); DeepNorm's scaling of the residual as an operation of its own (+4); no fusion of GeGLU
(`--no-bias-gelu-fusion`: bias 8, GeLU 4, product 6) nor of the rotation (negate and join 4, two
products 10, sum 6); checkpoints partitioned (`--partition-activations`), float16 gradients,
ZeRO-1."""
TITAN: Final = Practice(
    name="torchtitan", fused_attention=True, norm_bytes=36, residual_bytes=6,
    activation_bytes=10, rotary_bytes=20, sequence_parallel=True, accumulate_bytes=14,
    weight_bytes=2, gradient_bytes=4, zero="all", launches=60,
)  # fmt: skip
"""FSDP2, uncompiled: RMSNorm and rotation by single operations in float32."""
TITAN_COMPILED: Final = Practice(
    name="torchtitan, compiled", fused_attention=True, norm_bytes=4, residual_bytes=6,
    activation_bytes=6, rotary_bytes=4, sequence_parallel=True, accumulate_bytes=14,
    weight_bytes=2, gradient_bytes=4, zero="all", launches=20,
)  # fmt: skip
FOUNDRY: Final = Practice(
    name="llm-foundry, amp_bf16", fused_attention=True, norm_bytes=10, residual_bytes=10,
    activation_bytes=4, rotary_bytes=0, sequence_parallel=False, accumulate_bytes=28,
    gather_bytes=4, reduce_bytes=2, weight_bytes=4, gradient_bytes=4, zero="all", launches=40,
)  # fmt: skip
"""FSDP that gathers float32 weights, which autocast turns into bfloat16 in each pass."""
FOUNDRY_PURE: Final = Practice(
    name="llm-foundry, bf16", fused_attention=True, norm_bytes=4, residual_bytes=6,
    activation_bytes=4, rotary_bytes=0, sequence_parallel=False, accumulate_bytes=12,
    gather_bytes=2, reduce_bytes=2, weight_bytes=2, gradient_bytes=2, zero="all", launches=40,
)  # fmt: skip
"""The same with weights gathered, and everything computed, in bfloat16."""
