"""Whether a run fits into this machine, told before memory is taken for it.

What is counted is the least that any such run holds at once, so that nothing that could work is
refused; a run that passes may still need more.
"""

from __future__ import annotations

import torch

from blankfill.config.run import RunConfig
from blankfill.errors import ConfigError
from blankfill.metrics.flops import count_parameters
from blankfill.processes import this_place
from blankfill.runtime import memory_bytes

__all__ = ["least_bytes", "require_memory"]

BYTES_PER_WEIGHT = 12
"""A float32 weight, its gradient, and one moment; AdamW keeps two."""
BYTES_PER_POSITION = 24
"""Token, target, two positions, example and weight of one position of a step's rows."""


def least_bytes(cfg: RunConfig) -> tuple[int, int, int]:
    """Count what a run holds at least.

    Returns:
        Bytes of weights with gradients and the optimizer's state; of what the blocks keep of one
        micro-batch for the backward pass, in two bytes: the factors of their products; of the rows
        of one step.
    """
    train, model = cfg.train, cfg.model
    weights = sum(count_parameters(model).values())
    of_block = 5 * model.hidden_size + 2 * model.ffn_size
    kept = model.num_layers * of_block
    if train.recompute == "full":  # what each block is given, and all of one block
        kept = model.num_layers * model.hidden_size + of_block
    hidden = train.micro_batch_rows * train.row_length * kept * 2
    rows = train.batch_rows * train.row_length * BYTES_PER_POSITION
    return weights * BYTES_PER_WEIGHT, hidden, rows


def require_memory(cfg: RunConfig, device: torch.device) -> None:
    """Refuse a run that this machine cannot hold.

    Raises:
        ConfigError: it needs more memory than the machine, or its GPU, has.
    """
    weights, hidden, rows = least_bytes(cfg)
    weights //= cfg.parallel.shard * cfg.parallel.tensor * cfg.parallel.pipeline
    hidden //= cfg.parallel.tensor * cfg.parallel.pipeline
    if device.type == "cpu":
        of_each, processes = (weights, hidden, rows), this_place().local_count
        weights, hidden, rows = (processes * size for size in of_each)
    here, there = memory_bytes(), "this machine"
    if device.type == "cuda":
        _require(rows + weights // 3, here, there, "train.batch_rows or the model's size")
        here, there = torch.cuda.get_device_properties(device).total_memory, "this GPU"
        rows = 0
    _, way = max(
        (weights, "model.hidden_size, model.num_layers or model.vocab_size"),
        (
            hidden,
            "train.micro_batch_rows or train.row_length"
            + (", or --train.recompute full" if cfg.train.recompute != "full" else ""),
        ),
        (rows, "train.batch_rows or train.row_length"),
    )
    _require(weights + hidden + rows, here, there, way)


def _require(needed: int, here: int, there: str, way: str) -> None:
    if here and needed > here:
        raise ConfigError(
            f"this run needs at least {needed / 1e9:,.0f} GB of memory, and {there} has "
            f"{here / 1e9:,.0f} GB; take a smaller {way}"
        )
