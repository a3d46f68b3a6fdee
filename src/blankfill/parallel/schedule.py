"""The order in which a pipeline's stages pass micro-batches on, by `torch.distributed.pipelining`.

1f1b has one stage in each process, interleaved and zbv two. zbv does a backward pass in two halves:
first the gradient of what the stage was given, for which the stage before waits, and later that of
the weights, where the process would wait. Where blocks are compiled, or computed again as a whole,
a backward pass is one piece of work: there both halves are done at once.

Torch would make a buffer for every micro-batch of a step to receive into; here it is made when it
is to be filled, and dropped with the pass that reads it, so that there are no more of them than
micro-batches on their way.

Source: torch 2.13, `distributed/pipelining/{schedules,stage}.py`; Narayanan et al. 2021
(interleaved 1F1B); Qi et al. 2024 (ZB-V).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleInterleaved1F1B,
    ScheduleZBVZeroBubble,
)

from blankfill.config.stages import Schedule
from blankfill.parallel.stage import Passes, Stage

__all__ = ["Timetable"]

# It logs a page of its schedule for each error, which is told in a sentence elsewhere.
logging.getLogger("torch.distributed.pipelining.schedules").setLevel(logging.CRITICAL)


class _Info(Protocol):
    """What torch keeps of a tensor that a stage receives."""

    buffer: torch.Tensor | None
    is_root_arg: bool


class _Station(PipelineStage):
    """A stage whose buffers are there while they are needed.

    Args:
        stage: the stage.
        index: its number.
        count: of all stages.
        hidden: on the meta device, of what travels in one micro-batch.
        device: where this process computes.
        group: the processes of the pipeline.
        in_halves: whether a backward pass may be done in two halves.
    """

    def __init__(
        self, stage: Stage, index: int, count: int, hidden: torch.Tensor, device: torch.device,
        group: Any, *, in_halves: bool,
    ) -> None:  # fmt: skip
        self._hidden, self._room = hidden, torch.device("meta")
        super().__init__(
            stage, index, count, device, input_args=hidden, output_args=hidden, group=group,
            dw_builder=None if in_halves else _nothing_left,
        )  # fmt: skip

    def _setup_forward_recv_info(self, num_microbatches: int, has_backward: bool) -> None:
        self._without_memory(super()._setup_forward_recv_info, num_microbatches, has_backward)

    def _setup_backward_recv_info(self, num_microbatches: int) -> None:
        self._without_memory(super()._setup_backward_recv_info, num_microbatches)

    def _without_memory(self, set_up: Callable[..., None], *given: Any) -> None:
        """Let torch make its buffers where they take no memory."""
        device, self.device = self.device, self._room
        try:
            set_up(*given)
        finally:
            self.device = device

    def get_fwd_recv_ops(self, fwd_chunk_id: int) -> list[Any]:
        """Make room for what the stage before sends."""
        self._make_room(self.args_recv_info[fwd_chunk_id])
        return super().get_fwd_recv_ops(fwd_chunk_id)

    def get_bwd_recv_ops(self, bwd_chunk_id: int) -> list[Any]:
        """Make room for what the stage after sends."""
        if not self.is_last:
            self._make_room(self.grad_recv_info[bwd_chunk_id])
        return super().get_bwd_recv_ops(bwd_chunk_id)

    def forward_one_chunk(
        self, fwd_chunk_id: int, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None,
        save_forward_output: bool = True,
    ) -> Any:  # fmt: skip
        """Compute a pass by its number; what was received lives as long as it is needed."""
        made = super().forward_one_chunk(
            fwd_chunk_id, args, {"number": fwd_chunk_id}, save_forward_output
        )
        self._drop(self.args_recv_info[fwd_chunk_id])
        return made

    def backward_one_chunk(self, bwd_chunk_id: int, *given: Any, **options: Any) -> None:
        """Compute; the gradient that was received is not needed any more."""
        super().backward_one_chunk(bwd_chunk_id, *given, **options)
        if not self.is_last:
            self._drop(self.grad_recv_info[bwd_chunk_id])

    def _make_room(self, infos: Sequence[_Info]) -> None:
        for info in infos:
            if not info.is_root_arg:
                info.buffer = torch.empty_like(
                    self._hidden, device=self.device, requires_grad=False
                )

    def _drop(self, infos: Sequence[_Info]) -> None:
        for info in infos:
            info.buffer = None


class Timetable:
    """The schedule of a pipeline, and this process's stages in it.

    Args:
        kind: of schedule.
        stages: of this process, by number.
        count: of all stages.
        group: the processes of the pipeline.
        device: where this one computes.
        width: of hidden states.
        in_halves: whether backward passes can be done in two halves.
    """

    def __init__(
        self, kind: Schedule, stages: dict[int, Stage], count: int, group: Any,
        device: torch.device, *, width: int, in_halves: bool,
    ) -> None:  # fmt: skip
        self._kind, self._stages, self._count = kind, stages, count
        self._group, self._device, self._width = group, device, width
        self._in_halves = in_halves
        self._made: dict[tuple[int, tuple[int, ...]], Any] = {}

    def run(self, passes: Passes, num_positions: int) -> None:
        """Leave the gradients of a step in the weights of this process's stages.

        Args:
            passes: of the step; all are of one size.
            num_positions: of a row, of those that travel.

        Raises:
            Exception: what a pass raises, as it does.
        """
        count = len(passes.batches)
        size = (len(passes.batches[0].tokens), num_positions)
        if (count, size) not in self._made:
            self._made[count, size] = self._build(count, size)
        for stage in self._stages.values():
            stage.passes = passes
        try:
            # Stages look up what they are given; torch wants to see a target of each pass.
            self._made[count, size].step(target=torch.arange(count), return_outputs=False)
        except RuntimeError as error:
            # Torch wraps what a pass raises in a page about its arguments.
            raise error.__cause__ or error from None
        finally:
            for stage in self._stages.values():
                stage.passes = None

    def _build(self, num_passes: int, size: tuple[int, ...]) -> Any:
        """Make torch's schedule of so many passes; each number of them has one of its own."""
        stations = [
            _Station(
                stage, index, self._count, self._hidden(stage, size), self._device, self._group,
                in_halves=self._in_halves,
            )
            for index, stage in sorted(self._stages.items())
        ]  # fmt: skip
        if self._kind == "1f1b":
            return Schedule1F1B(stations[0], num_passes, loss_fn=_as_it_is, scale_grads=False)
        build = ScheduleInterleaved1F1B if self._kind == "interleaved" else ScheduleZBVZeroBubble
        return build([*stations], num_passes, loss_fn=_as_it_is, scale_grads=False)

    def _hidden(self, stage: Stage, size: tuple[int, ...]) -> torch.Tensor:
        return torch.empty(*size, self._width, dtype=stage.dtype, device="meta", requires_grad=True)


def _as_it_is(loss: torch.Tensor, _number: torch.Tensor) -> torch.Tensor:
    """Give the loss: the last stage has computed it."""
    return loss


def _nothing_left() -> Callable[[], None]:
    """Leave nothing for the second half of a backward pass."""
    return _do_nothing


def _do_nothing() -> None:
    pass
