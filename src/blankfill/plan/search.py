"""Which layouts there are, which of them fit, and which is fastest.

Candidates are timed, which is quick, and then looked at from the fastest on: whether each fits is
asked until enough have been found.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from blankfill.config.layout import LayoutConfig
from blankfill.config.train import RecomputeKind, TrainConfig
from blankfill.errors import ConfigError
from blankfill.plan.compute import is_fused
from blankfill.plan.hardware import GPUS, Cluster
from blankfill.plan.layout import Layout, Schedule, require_possible
from blankfill.plan.memory import Memory, Moments, fullest_rank
from blankfill.plan.network import Network
from blankfill.plan.practice import Practice
from blankfill.plan.step import Costs, costs_of

__all__ = ["Answer", "Found", "Task", "candidates", "search", "why_nowhere"]

MOST_CHUNKS: Final = 4
"""Stages of one rank under interleaved; more send more than they spare."""
MOST_POSITIONS: Final = 2**15
"""Of a micro-batch that is searched; products are as fast as can be before."""
LISTED: Final = 10
"""Layouts that a plan shows."""
LISTED_FAILING: Final = 5
"""Faster layouts that do not fit, which it shows."""
MOST_NODES: Final = 2**17


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What is to be planned."""

    name: str
    """Of the preset."""
    network: Network
    practice: Practice
    cluster: Cluster
    train: TrainConfig
    """Rows of a step, and how they grow."""
    moments: Moments
    """Of the optimizer."""
    wishes: LayoutConfig
    """What of the layout is given."""
    micro_batch_rows: int | None = None
    """Rows of a micro-batch, where they are given."""
    recompute: RecomputeKind | None = None
    """What is computed again, where it is given."""
    most_chunks: int = MOST_CHUNKS
    """Most stages of a rank under interleaved."""

    @property
    def least_rows(self) -> int:
        """Rows of the smallest step."""
        return self.train.ramp_from_rows or self.train.batch_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """One layout with its figures."""

    layout: Layout
    costs: Costs
    memory: Memory
    seconds: float
    """Of a full step."""

    def spare(self, cluster: Cluster) -> float:
        """Give the bytes of a GPU that are left; below 0 where it does not fit."""
        return cluster.gpu.memory_bytes - self.memory.total


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a search found."""

    fitting: list[Found]
    """At most `LISTED` that fit, the fastest first."""
    failing: list[Found]
    """At most `LISTED_FAILING` that would be faster than all of those and do not fit, one for each
    tensor and pipeline, the nearest first."""
    leanest: Memory | None
    """Where none fits, what the leanest needs."""


def search(task: Task) -> Answer:
    """Find the fastest layouts that fit, and faster ones that do not.

    Layouts that differ in schedule, recomputation or micro-batch alone count as one, the best of
    them.

    Raises:
        ConfigError: no layout is possible; the message says why.
    """
    costs = [
        costs_of(task.network, task.practice, task.cluster, layout) for layout in candidates(task)
    ]
    rows = task.train.batch_rows
    timed = sorted(
        ((each.step(rows).total, place, each) for place, each in enumerate(costs)),
        key=lambda one: one[:2],
    )
    fitting: dict[tuple[int, ...], Found] = {}
    failing: dict[tuple[int, int], Found] = {}
    for seconds, _, each in timed:
        axes = _axes(each.layout)
        if axes in fitting:
            continue
        found = Found(layout=each.layout, costs=each, seconds=seconds, memory=_memory(task, each))
        if found.spare(task.cluster) >= 0:
            fitting[axes] = found
            if len(fitting) == LISTED:
                break
        elif not fitting:
            cut = each.layout.tensor, each.layout.pipeline
            nearest = failing.setdefault(cut, found)
            if found.memory.total < nearest.memory.total:
                failing[cut] = found
    nearest = sorted(failing.values(), key=lambda found: found.memory.total)
    return Answer(
        fitting=list(fitting.values()), failing=nearest[:LISTED_FAILING],
        leanest=None if fitting else nearest[0].memory,
    )  # fmt: skip


def why_nowhere(task: Task, leanest: Memory) -> str:
    """Say by how much the leanest layout does not fit, and what would."""
    gpu = task.cluster.gpu
    kind, size = max(leanest.kinds().items(), key=lambda one: one[1])
    ways = [*_more_nodes(task), *_larger_gpus(task)]
    fields = dataclasses.fields(task.wishes)
    wished = [f"parallel.{f.name}" for f in fields if getattr(task.wishes, f.name)]
    wished += ["train.recompute"] * (task.recompute is not None)
    if wished:
        ways.append(f"other {', '.join(wished)}")
    if not ways:
        ways = ["a smaller model, or train.row_length"]
    return (
        f"{task.name} fits into no layout of {task.cluster.nodes:,} x "
        f"{task.cluster.gpus_per_node} {gpu.name}: the leanest needs {leanest.total / 1e9:,.1f} GB "
        f"of a GPU's {gpu.memory_bytes / 1e9:,.0f} GB, "
        f"{(leanest.total - gpu.memory_bytes) / 1e9:,.1f} GB too much ({kind}: "
        f"{size / 1e9:,.1f} GB); take {', or '.join(ways)}"
    )


def candidates(task: Task) -> list[Layout]:
    """List every possible layout of the wishes.

    Raises:
        ConfigError: there is none.
    """
    found: list[Layout] = []
    refused: ConfigError | None = None
    for layout in _all(task):
        try:
            require_possible(layout, task.network, task.least_rows)
            if layout.schedule == "interleaved":
                require_possible(layout, task.network, task.train.batch_rows)
        except ConfigError as error:
            refused = refused or error
        else:
            found.append(layout)
    if found:
        return found
    if dataclasses.replace(task.wishes, weights=None) == LayoutConfig() and (
        task.micro_batch_rows is None
    ):
        raise ConfigError(
            f"{task.name} has steps of {task.least_rows:,} rows, too few for "
            f"{task.cluster.num_gpus:,} GPUs; take fewer --nodes or a larger train.batch_rows"
        )
    raise refused or ConfigError(_no_axes(task))


def _all(task: Task) -> Iterator[Layout]:
    """Give all combinations, the plainest first."""
    for tensor, pipeline, shard, replicate in _splits(task):
        rows = _micro_batches(task, replicate * shard)
        for schedule, chunks in _schedules(task, pipeline):
            for recompute, micro_batch in itertools.product(_recomputes(task), rows):
                yield Layout(
                    replicate=replicate, shard=shard, tensor=tensor, pipeline=pipeline,
                    schedule=schedule, chunks=chunks, recompute=recompute,
                    micro_batch_rows=micro_batch,
                )  # fmt: skip


def _splits(task: Task) -> Iterator[tuple[int, int, int, int]]:
    """Split the GPUs over tensor, pipeline, shard and replicate, as far as these are not given."""
    wishes, gpus = task.wishes, task.cluster.num_gpus
    tensors = [wishes.tensor] if wishes.tensor else [
        n for n in _divisors(gpus)
        if n <= task.cluster.gpus_per_node and task.cluster.gpus_per_node % n == 0
    ]  # fmt: skip
    for tensor in tensors:
        if gpus % tensor:
            continue
        left = gpus // tensor
        several = _divisors(left)
        if wishes.schedule not in (None, "1f1b") and len(several) > 1:
            several = several[1:]  # such a schedule is one of a pipeline
        for pipeline in [wishes.pipeline] if wishes.pipeline else several:
            if left % pipeline or (not wishes.pipeline and pipeline > task.network.num_layers):
                continue
            data = left // pipeline
            for shard in [wishes.shard] if wishes.shard else _divisors(data):
                if data % shard or wishes.replicate not in (None, data // shard):
                    continue
                yield tensor, pipeline, shard, data // shard


def _schedules(task: Task, pipeline: int) -> list[tuple[Schedule, int]]:
    """List schedules with the stages that each rank has under them."""
    wishes = task.wishes
    kinds: Sequence[Schedule] = [wishes.schedule] if wishes.schedule else [
        "1f1b", *(["interleaved", "zbv"] if pipeline > 1 else [])
    ]  # fmt: skip
    most = min(task.most_chunks, task.network.num_layers // pipeline) if pipeline > 1 else 2
    several: dict[Schedule, Sequence[int]] = {
        "1f1b": (1,), "zbv": (2,), "interleaved": range(2, max(2, most) + 1),
    }  # fmt: skip
    return [(kind, chunks) for kind in kinds for chunks in several[kind]]


def _recomputes(task: Task) -> Sequence[RecomputeKind]:
    if task.recompute:
        return (task.recompute,)
    # Fused attention keeps no attention weights, so there is nothing for selective to spare.
    fused = is_fused(task.network, task.practice)
    return ("none", "full") if fused else ("none", "selective", "full")


def _micro_batches(task: Task, num_data: int) -> list[int]:
    """List rows of a micro-batch: powers of two, and the preset's own."""
    if task.micro_batch_rows:
        return [task.micro_batch_rows]
    most = max(1, min(task.least_rows // num_data, MOST_POSITIONS // task.network.row_length))
    powers = [2**n for n in range(most.bit_length())]
    return [n for n in sorted({*powers, task.train.micro_batch_rows}) if n <= most] or [1]


@functools.cache
def _divisors(number: int) -> list[int]:
    low = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return sorted({*low, *(number // n for n in low)})


def _axes(layout: Layout) -> tuple[int, ...]:
    return layout.replicate, layout.shard, layout.tensor, layout.pipeline


def _memory(task: Task, costs: Costs) -> Memory:
    return fullest_rank(
        task.network, task.practice, costs.layout, task.train.batch_rows, costs.cut, task.moments
    )


def _no_axes(task: Task) -> str:
    """Say that what is given of the layout is no split of the GPUs."""
    given = {
        f"parallel.{name}": value
        for name in ("replicate", "shard", "tensor", "pipeline")
        if (value := getattr(task.wishes, name)) is not None
    }
    product = math.prod(given.values())
    named = " times ".join(f"{name}={value}" for name, value in given.items())
    gpus = task.cluster.num_gpus
    is_all = len(given) == 4
    return (
        f"{named}{f' is {product:,}' if len(given) > 1 else ''}, which "
        f"{'is not' if is_all else 'does not divide'} the {gpus:,} GPUs of "
        f"{task.cluster.nodes:,} nodes; leave one of them out, or take other --nodes"
    )


def _fits_on(task: Task, cluster: Cluster) -> bool:
    """Tell whether some layout fits, of those that recompute most and pass fewest rows."""
    lean = dataclasses.replace(
        task, cluster=cluster, micro_batch_rows=task.micro_batch_rows or 1,
        recompute=task.recompute or "full",
    )  # fmt: skip
    try:
        return bool(search(lean).fitting)
    except ConfigError:
        return False


def _more_nodes(task: Task) -> Iterator[str]:
    """Name the least number of machines, by doubling, that would do."""
    nodes = task.cluster.nodes * 2
    while nodes <= min(MOST_NODES, task.cluster.nodes * 256):
        if _fits_on(task, dataclasses.replace(task.cluster, nodes=nodes)):
            yield f"--nodes {nodes}"
            return
        nodes *= 2


def _larger_gpus(task: Task) -> Iterator[str]:
    """Name the smallest GPU of the table that would do."""
    own = task.cluster.gpu
    larger = (gpu for gpu in GPUS.values() if gpu.memory_bytes > own.memory_bytes)
    for gpu in sorted(larger, key=lambda gpu: gpu.memory_bytes):
        if _fits_on(task, dataclasses.replace(task.cluster, gpu=gpu)):
            yield f"--gpu {gpu.name}"
            return
