"""The stages of a pipeline: which a process has, how blocks are cut into them, what cannot be cut.

Arithmetic alone; a plan and a run go by the same.
"""

from __future__ import annotations

import functools
import math
from typing import Final, Literal

from blankfill.errors import ConfigError

__all__ = [
    "CHUNKS", "Schedule", "cut_blocks", "require_micro_batches", "require_stages", "stages_of",
]  # fmt: skip

Schedule = Literal["1f1b", "interleaved", "zbv"]
"""The order of a pipeline's passes."""
CHUNKS: Final[dict[Schedule, int]] = {"1f1b": 1, "interleaved": 2, "zbv": 2}
"""Stages of each process in a run."""


def stages_of(schedule: Schedule, pipeline: int, rank: int, chunks: int) -> tuple[int, ...]:
    """List the stages of a pipeline rank; zbv's go down the ranks and come back."""
    if schedule == "zbv":
        return (rank, 2 * pipeline - 1 - rank)
    return tuple(rank + chunk * pipeline for chunk in range(chunks))


def require_stages(schedule: Schedule, pipeline: int, chunks: int, num_layers: int) -> None:
    """Check that there are as many blocks as stages.

    Args:
        schedule: the order of passes.
        pipeline: processes of the pipeline.
        chunks: stages of each.
        num_layers: blocks.

    Raises:
        ConfigError: there are not, or a schedule is given without a pipeline.
    """
    if schedule != "1f1b" and pipeline == 1:
        raise ConfigError(
            f"parallel.schedule={schedule} needs a pipeline, and parallel.pipeline is 1; "
            "take parallel.pipeline=2 or more, or leave the schedule out"
        )
    if pipeline > 1 and pipeline * chunks > num_layers:
        most = num_layers // chunks
        way = f"take parallel.pipeline={most} or less" if most > 1 else "take no pipeline"
        each = f" of {chunks} stages each under {schedule}" if chunks > 1 else ""
        raise ConfigError(
            f"parallel.pipeline={pipeline}{each} is more stages than model.num_layers="
            f"{num_layers}; {way}"
        )


def require_micro_batches(
    schedule: Schedule, pipeline: int, *, rows: int, num_data: int, micro_batch_rows: int
) -> None:
    """Check that a step has as many micro-batches as its pipeline needs.

    Args:
        schedule: the order of passes.
        pipeline: processes of the pipeline.
        rows: of the step.
        num_data: processes that have rows of their own, one of each pipeline.
        micro_batch_rows: most rows of one micro-batch.

    Raises:
        ConfigError: it has not.
    """
    if pipeline == 1:
        return
    count = math.ceil(rows / (num_data * micro_batch_rows))
    if count < pipeline:
        raise ConfigError(
            f"parallel.pipeline={pipeline} needs at least {pipeline} micro-batches, and {rows:,} "
            f"rows on {num_data} data ranks are {count}; take fewer stages, a smaller "
            "train.micro_batch_rows or a larger train.batch_rows"
        )
    if schedule == "interleaved" and count % pipeline:
        raise ConfigError(
            f"parallel.schedule=interleaved needs micro-batches in multiples of "
            f"parallel.pipeline={pipeline}, and a step has {count}; take 1f1b, or other "
            "train.batch_rows"
        )


@functools.cache
def cut_blocks(
    num_layers: int, num_stages: int, head: float, embedding: float = 0.0
) -> tuple[int, ...]:
    """Deal blocks to stages so that the slowest is as fast as can be.

    The last stage has the head besides, the first the embedding. Where blocks do not divide, later
    stages have more: earlier ones hold more micro-batches at once, and the first the embedding.

    Args:
        num_layers: blocks, at least as many as stages.
        num_stages: stages.
        head: time of the head, in blocks.
        embedding: time of the embedding, in blocks.

    Returns:
        Blocks of each stage, at least one.
    """
    if num_stages == 1:
        return (num_layers,)
    others = num_stages - 1
    firsts = range(1, num_layers - others + 1) if embedding else (0,)

    def slowest(first: int, last: int) -> float:
        """Give the time of the slowest stage; of equal ones where `first` is 0."""
        if not first:
            return max(math.ceil((num_layers - last) / others), last + head)
        rest, between = num_layers - first - last, others - 1
        if rest < between or (rest and not between):
            return math.inf
        middle = math.ceil(rest / between) if between else 0
        return max(first + embedding, middle, last + head)

    _, _, _, first, last = min(
        # Of equal cuts the one that is most even without the last.
        (slowest(first, last), -last, abs(first - (num_layers - last) // others), first, last)
        for first in firsts
        for last in range(1, num_layers - others + 1)
    )
    if not first:
        return (*_evenly(num_layers - last, others), last)
    return (first, *_evenly(num_layers - first - last, others - 1), last)


def _evenly(num_blocks: int, num_stages: int) -> tuple[int, ...]:
    """Deal blocks evenly; where they do not divide, later stages have one more."""
    if not num_stages:
        return ()
    each, more = divmod(num_blocks, num_stages)
    return tuple(each + (stage >= num_stages - more) for stage in range(num_stages))
