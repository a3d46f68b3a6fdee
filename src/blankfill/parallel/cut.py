"""Where a model is cut into the stages of a pipeline: by how long each part of it takes in a step.

A block takes its products' time in every pass, the head that of its targets; and each weight's
gradient, moments and value are read and written once in a step, which is most of what the embedding
takes. So the head and the embedding weigh as much as their time and their weights do.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Final

import numpy as np

from blankfill.config.run import RunConfig
from blankfill.config.stages import cut_blocks
from blankfill.metrics.flops import count_parameters, forward_flops

__all__ = ["blocks_of_stages"]

TARGETS: Final = 3
"""One position of so many is a target, about, in the rows of the published objectives."""
OPERATIONS_PER_UPDATE: Final = 1000
"""Operations in whose time a weight is updated by AdamW: 28 bytes are read and written, while a
device computes 10 (a core of a CPU) to 130 (an H100 in bfloat16) operations a byte."""
PASSES: Final = 3
"""Forward passes that a forward and a backward pass take the time of."""


def blocks_of_stages(cfg: RunConfig, num_stages: int, num_readers: int) -> list[tuple[int, int]]:
    """Give of each stage its first block and the one after its last.

    Args:
        cfg: the run.
        num_stages: of each pipeline.
        num_readers: pipelines that share the rows of a step.
    """
    rows = cfg.train.batch_rows / num_readers
    cut = cut_blocks(cfg.model.num_layers, num_stages, *_times_in_blocks(cfg, rows))
    return list(pairwise(accumulate(cut, initial=0)))


def _times_in_blocks(cfg: RunConfig, rows: float) -> tuple[float, float]:
    """Give the time of the head in a step of so many rows, and the embedding's, in blocks."""
    length = cfg.train.row_length
    targets = length // TARGETS
    example = np.array([[0, 0, length - targets, length]])

    def operations(num_layers: int) -> int:
        of = replace(cfg.model, num_layers=num_layers)
        return forward_flops(of, example, targets, (1, length)).model

    of_block = operations(2) - operations(1)
    of_head = operations(1) - of_block  # less what the last block spares for it
    counts = count_parameters(cfg.model)
    table = cfg.model.vocab_size * cfg.model.hidden_size
    in_block = (counts["attention"] + counts["feed_forward"]) / cfg.model.num_layers
    in_embedding = table + counts.get("positions", 0)

    def time(operations: float, weights: float) -> float:
        return PASSES * operations * rows + OPERATIONS_PER_UPDATE * weights

    block = time(of_block, in_block)
    return time(of_head, table) / block, time(0, in_embedding) / block
