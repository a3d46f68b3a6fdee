"""Rows that attention is tested on, and what the rule says of them."""

import math

import numpy as np
import pytest
import torch

from blankfill.config.model import ModelConfig
from blankfill.kernels.native import load_native
from blankfill.kernels.rectangles import rectangles
from blankfill.model.attention import dense_attention, packed_attention, varlen_attention
from blankfill.model.masks import DenseMask, PackedMask, VarlenMask
from blankfill.objective.mask import visible

T = 300
BLOCKS = {
    "ragged": [[0, 0, 37, 50], [0, 50, 60, 199], [0, 199, 280, 300], [1, 0, 130, 180]],
    "one token": [[0, 0, 1, 1], [0, 1, 1, 2], [0, 2, 3, 4], [1, 299, 299, 300]],
    "empty part b": [[0, 0, 20, 20], [1, 0, 300, 300]],
    "empty part a": [[0, 0, 0, 170], [0, 170, 170, 171]],
    "long part b": [
        [0, 0, 10, 300], [1, 0, 64, 128], [1, 128, 140, 205], [1, 205, 206, 300], [2, 0, 1, 257],
    ],
    "rows of only padding": [[1, 5, 9, 14]],
    "nothing": [],
}  # fmt: skip


def table(name):
    return np.array(BLOCKS[name], np.int32).reshape(-1, 4)


def rule(blocks, rows=3):
    """The square of every row by `visible()`, and where there are examples."""
    segment = np.full((rows, T), -1, np.int32)
    is_part_b = np.zeros((rows, T), bool)
    for number, (row, start, part_b, end) in enumerate(blocks.tolist()):
        segment[row, start:end] = number
        is_part_b[row, part_b:end] = True
    seen = np.stack([visible(s, b) for s, b in zip(segment, is_part_b, strict=True)])
    return torch.from_numpy(seen), torch.from_numpy(segment >= 0)


def draw(dtype, rows=3, heads=2, size=8):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(rows, T, heads, size, generator=generator, dtype=torch.float64)
        .to(dtype).requires_grad_()
        for _ in range(4)
    ]  # fmt: skip


def plain(q, k, v, seen, real):
    """Attention as it is defined, in the precision of the inputs; zero on padding."""
    scores = torch.einsum("bqnh,bknh->bnqk", q, k) / math.sqrt(q.shape[-1])
    weights = scores.masked_fill(~seen[:, None], -math.inf).softmax(-1)
    return torch.einsum("bnqk,bknh->bqnh", weights, v) * real[:, :, None, None]


def standin(q, k, v, q_bounds, k_bounds, _longest_q, _longest_k, *, causal, scale):
    """A variable-length kernel by its definition, causal at the bottom right."""
    parts = []
    for i in range(len(q_bounds) - 1):
        a, b = q_bounds[i : i + 2].tolist()
        c, d = k_bounds[i : i + 2].tolist()
        seen = torch.ones(b - a, d - c, dtype=torch.bool)
        seen = seen.tril(d - c - (b - a)) if causal else seen
        scores = torch.einsum("qnh,knh->nqk", q[a:b], k[c:d]) * (scale or q.shape[-1] ** -0.5)
        weights = scores.masked_fill(~seen, -math.inf).softmax(-1)
        parts.append(torch.einsum("nqk,knh->qnh", weights, v[c:d]))
    return torch.cat(parts)


WAYS = {
    "blocks": lambda q, k, v, b: packed_attention(q, k, v, PackedMask(b, (3, T))),
    "dense": lambda q, k, v, b: dense_attention(q, k, v, DenseMask.of(b, (3, T))),
    "varlen": lambda q, k, v, b: varlen_attention(
        q, k, v, VarlenMask.of(b, (3, T), "cpu"), kernel=standin
    ),
}
"""Ways of attention that work on every CPU."""

CFG = ModelConfig(vocab_size=64, hidden_size=16, num_layers=1, num_heads=2, ffn_size=24)
"""A model of one small block."""


def require_native():
    if load_native() is None:
        pytest.skip("no C compiler here, or no sgemm in torch's library")


def dropped(shape, blocks, buffer):
    """What dropout took, `[B, N, T, T]`, by the signs of the kept weights; and their indices."""
    rows, heads, length = shape
    gone = torch.zeros(rows, heads, length, length, dtype=torch.bool)
    index = torch.zeros(gone.shape, dtype=torch.int64)
    at = 0
    for first, query, end, _ in rectangles(blocks.tolist(), length):
        row, base = divmod(first, length)
        size = (heads, end - query, end - first)
        where = (row, slice(None), slice(query - row * length, end - row * length),
                 slice(base, base + end - first))  # fmt: skip
        here = torch.arange(at, at + math.prod(size)).view(size)
        index[where], gone[where] = here, buffer[here] < 0
        at += math.prod(size)
    return gone, index
