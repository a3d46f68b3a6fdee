"""Parameters and floating-point operations of a model, by formula.

A multiply and an add are two operations; only matrix products count, as is the custom (Kaplan et
al. 2020, section 2.1; Narayanan et al. 2021). Two countings, because rates of different systems
are quoted in both. `dense` is the convention: every position is scored against the vocabulary and
attends to its whole row. `model` is what this program multiplies: in attention the rectangles of
`model.rectangles`, little more than what is visible; in the head, positions with a target.
A rate by `dense` overstates a program that skips work; a rate by `model` does not. Both count
padding, which passes through every linear layer.

Shapes: B rows, T positions in a row, K examples, D hidden, F feed-forward, V vocabulary, P the
largest position id, H head size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blankfill.config.model import ModelConfig
from blankfill.kernels.rectangles import count_pairs

__all__ = ["Flops", "count_parameters", "forward_flops", "training_flops", "visible_area"]

BACKWARD_PER_FORWARD = 2
"""Each product has two in the backward pass: one for either factor's gradient."""


@dataclass(frozen=True, slots=True)
class Flops:
    """Operations of one batch."""

    model: int
    """As multiplied: visible rectangles, and the head on targets alone."""
    dense: int
    """By convention: whole rows in attention, and the head on every position."""


def training_flops(
    cfg: ModelConfig, blocks: npt.NDArray[np.integer], num_targets: int, shape: tuple[int, int]
) -> Flops:
    """Count a forward and a backward pass.

    Args:
        cfg: the model.
        blocks: `[K, 4]` of each example: row, first position, first of Part B, end.
        num_targets: positions that predict something.
        shape: (B, T) of the batch.
    """
    forward = forward_flops(cfg, blocks, num_targets, shape)
    factor = 1 + BACKWARD_PER_FORWARD
    return Flops(model=factor * forward.model, dense=factor * forward.dense)


def forward_flops(
    cfg: ModelConfig, blocks: npt.NDArray[np.integer], num_targets: int, shape: tuple[int, int]
) -> Flops:
    """Count a forward pass; arguments as for `training_flops`."""
    B, T = shape
    D, F = cfg.hidden_size, cfg.ffn_size
    up = 2 * F if cfg.is_gated else F
    each = 2 * (4 * D * D + up * D + F * D)  # qkv and out; up; down
    spared = (B * T - num_targets) * (each - 2 * 2 * D * D)  # of the last block; not keys, values
    linear = B * T * each
    per_pair = 4 * D  # a score and a weighted value, over all heads
    per_target = 2 * cfg.vocab_size * D
    return Flops(
        model=cfg.num_layers * (linear + per_pair * visible_area(blocks))
        - spared
        + per_target * num_targets,
        dense=cfg.num_layers * (linear + per_pair * B * T * T) + per_target * B * T,
    )


def visible_area(blocks: npt.NDArray[np.integer]) -> int:
    """Count the (query, key) pairs in the rectangles that attention multiplies.

    Args:
        blocks: `[K, 4]` of each example: row, first position, first of Part B, end.
    """
    return int(count_pairs(blocks.astype(np.int64)).sum())


def count_parameters(cfg: ModelConfig) -> dict[str, int]:
    """Count the weights by part; the sum is the model's.

    Returns:
        `embedding`, `attention`, `feed_forward`, `norms`, and, where the model has them,
        `positions` and `head`.
    """
    D, F = cfg.hidden_size, cfg.ffn_size
    up = 2 * F if cfg.is_gated else F
    per_layer = 4 if cfg.block == "sandwich" else 2
    parts = {
        "embedding": cfg.vocab_size * D,
        "attention": cfg.num_layers * (4 * D * D + 4 * D),
        "feed_forward": cfg.num_layers * (up * D + up + F * D + D),
        "norms": 2 * D * (cfg.num_layers * per_layer + cfg.has_final_norm),
    }
    if cfg.qk_norm:
        parts["norms"] += cfg.num_layers * 4 * cfg.head_size
    if cfg.positions == "learned_2d":
        parts["positions"] = 2 * (cfg.max_position + 1) * D
    if not cfg.tie_head:
        parts["head"] = cfg.vocab_size * D
    return parts
