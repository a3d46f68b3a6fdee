"""A pipeline's step, pass by pass: which rank does what when.

Each rank takes its passes in the order of its schedule, each as soon as what it needs has arrived.
This is what a plan's picture shows, and what the formula of the bubble is tested with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from blankfill.plan.layout import Layout, stages_of

__all__ = ["Pass", "StageTimes", "draw_up"]

Kind = Literal["forward", "backward", "weights"]


class _Work(NamedTuple):
    """One pass that is to be done."""

    kind: Kind
    stage: int
    micro_batch: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Pass:
    """One pass of one micro-batch on one rank."""

    rank: int
    kind: Kind
    """weights: what zbv puts off of the backward pass."""
    stage: int
    micro_batch: int
    start: float
    end: float


@dataclass(frozen=True, kw_only=True, slots=True)
class StageTimes:
    """Seconds of one micro-batch in one stage."""

    forward: float
    backward: float
    """All of it."""
    weights: float
    """Of the backward pass, gradients of weights."""


def draw_up(
    layout: Layout, stages: Sequence[StageTimes], num_micro_batches: int, hop: float = 0.0
) -> list[Pass]:
    """Work out every pass of a step.

    Args:
        layout: the layout.
        stages: the times of each stage.
        num_micro_batches: of the step.
        hop: seconds from the end of a pass to its result's arrival in the next stage.
    """
    line = _Line(layout, stages, hop)
    if layout.schedule == "zbv":
        line.fill(num_micro_batches)
    else:
        line.follow([_order(layout, rank, num_micro_batches) for rank in range(layout.pipeline)])
    return line.passes


def _order(layout: Layout, rank: int, count: int) -> list[_Work]:
    """List a rank's passes: forward ones to warm up, then one of each in turn, then the rest.

    interleaved takes `pipeline` micro-batches through one of its stages, then through the next
    (Narayanan et al. 2021, figure 4).
    """
    p, chunks = layout.pipeline, layout.chunks
    stages = stages_of(layout, rank)
    warm_up = p - rank - 1 if chunks == 1 else 2 * (p - rank - 1) + (chunks - 1) * p
    if chunks == 1:
        places = [(0, n) for n in range(count)]
    else:
        places = [
            (k // p % chunks, k // (p * chunks) * p + k % p) for k in range(count * chunks)
        ]  # fmt: skip
    forward = [_Work("forward", stages[chunk], n) for chunk, n in places]
    backward = [_Work("backward", stages[chunks - 1 - chunk], n) for chunk, n in places]
    warm_up = min(warm_up, len(forward))
    turns = [work for pair in zip(forward[warm_up:], backward, strict=False) for work in pair]
    return [*forward[:warm_up], *turns, *backward[len(forward) - warm_up :]]


class _Line:
    """Ranks at work."""

    def __init__(self, layout: Layout, stages: Sequence[StageTimes], hop: float) -> None:
        self.layout, self.stages, self.hop = layout, stages, hop
        self.passes: list[Pass] = []
        self.ends: dict[_Work, float] = {}
        self.free = [0.0] * layout.pipeline

    def arrival(self, work: _Work) -> float | None:
        """Tell when all that a pass needs is there; None while it is not known."""
        kind, stage, n = work
        if kind == "weights":
            return self.ends.get(_Work("backward", stage, n))
        needs = _Work("forward", stage - 1, n)
        if kind == "backward":
            last = stage == len(self.stages) - 1
            needs = _Work("forward", stage, n) if last else _Work("backward", stage + 1, n)
        elif stage == 0:
            return 0.0
        end = self.ends.get(needs)
        if end is None:
            return None
        return end + self.hop * (needs.stage != stage)

    def take(self, rank: int, work: _Work, at: float) -> None:
        """Do a pass, not before a moment."""
        start = max(self.free[rank], at)
        times = self.stages[work.stage]
        lasts = times.forward
        if work.kind == "weights":
            lasts = times.weights
        elif work.kind == "backward":
            put_off = times.weights if self.layout.schedule == "zbv" else 0.0
            lasts = times.backward - put_off
        self.free[rank] = self.ends[work] = start + lasts
        self.passes.append(Pass(
            rank=rank, kind=work.kind, stage=work.stage, micro_batch=work.micro_batch, start=start,
            end=start + lasts,
        ))  # fmt: skip

    def follow(self, orders: Sequence[list[_Work]]) -> None:
        """Do every rank's passes in its order."""
        next_of = [0] * len(orders)
        while any(at < len(order) for at, order in zip(next_of, orders, strict=True)):
            moved = False
            for rank, order in enumerate(orders):
                while next_of[rank] < len(order):
                    at = self.arrival(order[next_of[rank]])
                    if at is None:
                        break
                    self.take(rank, order[next_of[rank]], at)
                    next_of[rank] += 1
                    moved = True
            assert moved, "the orders of the ranks wait for each other"

    def fill(self, count: int) -> None:
        """Do all passes of zbv: backward before forward, gradients of weights where a rank waits.

        A rank holds at most twice as many of its stages' micro-batches as there are ranks, and of
        its first stage's so many fewer that they can come back through its second.
        """
        p = self.layout.pipeline
        todo = [
            [_Work(kind, stage, n) for kind in ("backward", "forward") for n in range(count)
             for stage in reversed(stages_of(self.layout, rank))]
            for rank in range(p)
        ]  # fmt: skip
        put_off: list[list[_Work]] = [[] for _ in range(p)]
        held: list[list[int]] = [[0, 0] for _ in range(p)]
        while any(todo) or any(put_off):
            at, rank, work = float("inf"), -1, _Work("forward", 0, -1)
            for one in sorted(range(p), key=self.free.__getitem__):
                if self.free[one] >= at:
                    break  # nothing of later ranks begins before
                chosen = self._next(one, todo[one], put_off[one], held[one])
                if chosen is not None and chosen[1] < at:
                    rank, (work, at) = one, chosen
            self.take(rank, work, at)
            if work.kind == "weights":
                put_off[rank].remove(work)
                held[rank][work.stage >= p] -= 1
                continue
            todo[rank].remove(work)
            if work.kind == "forward":
                held[rank][work.stage >= p] += 1
            else:
                put_off[rank].append(_Work("weights", work.stage, work.micro_batch))

    def _next(
        self, rank: int, todo: list[_Work], put_off: list[_Work], held: list[int]
    ) -> tuple[_Work, float] | None:
        """Choose what a rank does next, and when it can; None while it waits for other ranks."""
        now = self.free[rank]
        p = self.layout.pipeline
        full = sum(held) >= 2 * p, held[0] >= 2 * p - 1 - rank or sum(held) >= 2 * p
        may = [work for work in todo if work.kind != "forward" or not full[work.stage < p]]
        arrivals = [(work, at) for work in may if (at := self.arrival(work)) is not None]
        ready = [work for work, at in arrivals if at <= now]
        if ready:
            return ready[0], now
        if put_off:
            return put_off[0], now
        if arrivals:
            return min(arrivals, key=lambda one: one[1])
        return None
