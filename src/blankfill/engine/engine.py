"""The engine under the training loop: the model and all arithmetic on it.

The loop knows rows, steps and what is due. Devices, precision, the loss scale, averaged weights
and, where there are several, processes are the engine's. `local.py` is the engine of one process;
another engine has the same methods.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from blankfill.config.train import AttentionKind
from blankfill.engine.transfer import TensorBatch, read_together
from blankfill.errors import CheckpointError
from blankfill.model.glm import GLM
from blankfill.objective.batch import Batch, Float32
from blankfill.processes import Processes
from blankfill.runs import Checkpoint, Part
from blankfill.runs.save import NewCheckpoint

__all__ = ["Engine", "Portion", "StepNumbers", "UnreadNumbers", "misfit"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Portion:
    """The rows of one micro-batch."""

    first: int
    """Number of its first row in the stream."""
    num_rows: int
    """Rows that count."""
    size: int
    """Rows that are computed; those after the first `num_rows` have weight 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepNumbers:
    """What a step's forward and backward passes gave, before any update."""

    loss_nats: float
    """Weighted mean loss of the step's targets, those of all processes."""
    grad_norm: float
    """Global gradient norm before clipping."""
    nlls: Sequence[Float32]
    """`[n]` nats of the targets of each micro-batch of this process, row-major."""
    own_loss_nats: float
    """What this process's targets have added to the loss."""
    own_gradient_is_finite: bool = True
    """Whether the gradient that came back to this process's rows is finite, where that is seen."""
    overflowed: bool = False
    """Whether the step is lost to the loss scale of float16, which has been lowered, alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnreadNumbers:
    """The same while they are on the device, which is not waited for until they are read."""

    norm: torch.Tensor
    """`[]` global gradient norm before clipping."""
    losses: Sequence[torch.Tensor]
    """`[]` part of each micro-batch of this process in the step's loss."""
    nlls: Sequence[torch.Tensor]
    """`[n]` nats of the targets of each micro-batch of this process, row-major."""
    loss_of_all: torch.Tensor | None = None
    """`[]` the step's loss, where there are other processes."""
    own_gradients_are_finite: Sequence[torch.Tensor] = ()
    """`[]` of each micro-batch of this process, whether the gradient that came back to its rows is
    finite; where there are other processes."""

    def is_spoiled(self) -> torch.Tensor:
        """Tell on the device whether loss or norm is not finite: `[]` float32, 1 where it is so."""
        losses = self.losses if self.loss_of_all is None else [self.loss_of_all]
        numbers = torch.stack([self.norm.float(), *(loss.float() for loss in losses)])
        return (~torch.isfinite(numbers)).any().float()

    def read(self) -> StepNumbers:
        """Wait for the device, once, and give the numbers."""
        groups = [
            [self.norm], self.losses, self.nlls, self.own_gradients_are_finite,
            [] if self.loss_of_all is None else [self.loss_of_all],
        ]  # fmt: skip
        read = iter(read_together([number for group in groups for number in group]))
        (norm,), losses, nlls, finite, of_all = ([next(read) for _ in group] for group in groups)
        own = sum(float(loss) for loss in losses)
        return StepNumbers(
            loss_nats=float(of_all[0]) if of_all else own, grad_norm=float(norm), nlls=nlls,
            own_loss_nats=own, own_gradient_is_finite=all(map(bool, finite)),
        )  # fmt: skip


class Engine(Protocol):
    """What a training loop asks for."""

    @property
    def model(self) -> GLM:
        """The model that is trained."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of its matrix products."""
        ...

    @property
    def attention(self) -> AttentionKind:
        """How its attention is computed."""
        ...

    @property
    def processes(self) -> Processes:
        """The processes of the run, of which this is one."""
        ...

    @property
    def leads(self) -> bool:
        """Whether this process writes the run's files and speaks for it; one does."""
        ...

    def once(self, decide: Callable[[], T]) -> T:
        """Let the leading process find something out, and tell it to all.

        Args:
            decide: is called in the leading process alone; its result can be pickled.

        Raises:
            BlankfillError: what `decide` raised, in every process.
        """
        ...

    def gather(self, items: Sequence[T]) -> list[T]:
        """Give all processes what each of them has, in the order of their rows."""
        ...

    def has_largest(self, value: float) -> bool:
        """Tell whether a number is the largest of those that the processes give; it is so in one
        process, the first of several that have it. What is not a number is larger than any."""
        ...

    def sum_over_data(self, values: Sequence[float]) -> list[float]:
        """Add up what each process that reads rows of its own has of some numbers."""
        ...

    def any_of(self, flags: Sequence[bool]) -> list[bool]:
        """Tell of each of some things whether it is so in any process."""
        ...

    def deal(self, first: int, num_rows: int) -> list[Portion]:
        """Give the micro-batches of this process in a step of the rows `[first, first + num_rows)`.

        Each process has as many as any other, and rows of their own.
        """
        ...

    @property
    def compiled(self) -> bool:
        """Whether its blocks are compiled."""
        ...

    def transfer(self, batch: Batch, part: Portion) -> TensorBatch:
        """Copy a batch to where the model computes; may be called from another thread.

        Args:
            batch: all rows of the portion.
            part: which they are; `source` of the result has only those that count.
        """
        ...

    def forward_backward(
        self, batches: Sequence[TensorBatch], total_weight: float, *, step: int
    ) -> StepNumbers | UnreadNumbers:
        """Compute the gradient of a step, and keep it.

        Where the numbers are given unread, `step` leaves everything as it is if loss or norm is not
        finite, without the host knowing.

        Args:
            batches: the micro-batches of this process.
            total_weight: of the targets of all processes.
            step: 0-based optimizer step; dropout and the embedding's share of the gradient follow
                from it.

        Raises:
            DataError: the step has no targets.
        """
        ...

    def clip(self, max_norm: float) -> None:
        """Scale the gradient down to a global norm of at most this; 0 leaves it as it is."""
        ...

    def step(self, lr: float) -> None:
        """Move the weights, and their average where one is kept; drop the gradient."""
        ...

    def drop_gradient(self) -> None:
        """Forget the gradient of a step that is not applied."""
        ...

    def bad_weights(self) -> list[str]:
        """Name the weights that are not finite, with how many of their values, and where there are
        several processes with those that keep them."""
        ...

    def gradient_norms(self) -> dict[str, float]:
        """Give the gradient norm of each layer."""
        ...

    def evaluation(self) -> AbstractContextManager[GLM]:
        """Lend the model in evaluation mode; training mode comes back."""
        ...

    def metrics(self) -> dict[str, float]:
        """Give what the engine has to say in a line of metrics."""
        ...

    def tensors(self) -> dict[Part, dict[str, torch.Tensor]]:
        """Give what this process keeps of the tensors of a checkpoint, by part and name; a later
        step changes them."""
        ...

    def write(self, new: NewCheckpoint, parts: dict[Part, dict[str, torch.Tensor]]) -> None:
        """Write what `tensors` gave, or a copy of it, as a checkpoint; may run on a thread.

        Every process calls it, for one checkpoint after the other.

        Raises:
            CheckpointError: a disk does not take it; older checkpoints are untouched.
        """
        ...

    def loss_scale(self) -> tuple[float, ...] | None:
        """Give the state of the loss scale, where there is one, for a checkpoint."""
        ...

    def load(self, checkpoint: Checkpoint) -> None:
        """Take up what `tensors` and `loss_scale` gave.

        Raises:
            CheckpointError: the checkpoint does not fit the model.
        """
        ...

    def load_weights(self, folder: Path) -> None:
        """Start from the weights in a checkpoint's folder, with everything else fresh.

        Raises:
            CheckpointError: a file cannot be read or does not fit the model.
        """
        ...


def misfit(folder: Path, error: Exception) -> CheckpointError:
    """Say that a checkpoint's tensors are not those of a run's model or optimizer, and the cure.

    Args:
        folder: of the checkpoint.
        error: what did not fit.
    """
    return CheckpointError(
        f"{folder} does not fit this model ({error}); resume with the configuration that "
        "the run was started with"
    )
