"""How the processes of a run share its work."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal

from blankfill.config.model import ModelConfig
from blankfill.config.on_resume import BY_NAME
from blankfill.config.ranges import Range, check_numbers
from blankfill.config.stages import CHUNKS, Schedule, require_micro_batches, require_stages
from blankfill.config.train import TrainConfig
from blankfill.errors import ConfigError

__all__ = ["AXES", "ParallelConfig"]

AXES: Final = ("pipeline", "replicate", "shard", "tensor")
"""What processes differ in, outermost first: neighbours by number differ in the last."""
MOST_PROCESSES = 2**20
"""Of a run; more than any machine has."""
LEAST_TIMEOUT_SECONDS = 10.0
"""A process that is merely kept from its core is silent for some seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParallelConfig:
    """The layout: `pipeline` times `replicate` times `shard` times `tensor` processes; those that
    differ in the first or the last alone compute the same rows together."""

    replicate: Annotated[int, Range(1, MOST_PROCESSES)] = 1
    """Copies of the model, over which gradients are summed."""
    shard: Annotated[int, Range(1, MOST_PROCESSES)] = 1
    """Processes that hold a copy together: weights, gradients and moments are cut over them, and
    a block's weights are put together while it computes (FSDP2)."""
    tensor: Annotated[int, Range(1, MOST_PROCESSES)] = 1
    """Processes that compute each block together, each with some of its heads, of its feed-forward
    units and of the vocabulary, and that share out positions between them. It must divide
    model.num_heads, model.ffn_size, model.vocab_size and train.row_length."""
    pipeline: Annotated[int, Range(1, MOST_PROCESSES)] = 1
    """Processes that the blocks are dealt to, in stages, through which micro-batches pass one after
    the other; each step needs at least so many of them."""
    schedule: Schedule = "1f1b"
    """Order of a pipeline's passes. 1f1b: one stage in each process; interleaved: two, so that it
    waits half as long; zbv: two as well, and gradients of weights are computed where a process
    would wait."""
    timeout_seconds: Annotated[float, Range(LEAST_TIMEOUT_SECONDS, 86_400)] = 60.0
    """Seconds within which all processes end, and one says why, when one of them is killed or
    hangs; at the start they wait five times as long for one another. One that gives no sign for
    half of it is lost: give it more where a single micro-batch takes so much longer on one process
    than on the others."""

    weights: Annotated[Literal["float32", "bfloat16"], BY_NAME] = "float32"
    """What a block's weights are while it computes. float32: as they are kept, and products are
    cast to `train.precision`. bfloat16: they are sent and used in bfloat16, half the bytes, and so
    are the hidden states; what is kept, moments and the sums of gradients stay float32. One
    process, which sends nothing, casts products to bfloat16."""

    def __post_init__(self) -> None:
        check_numbers(self, "parallel")

    @property
    def num_processes(self) -> int:
        """Processes that it takes."""
        return math.prod(self.sizes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Processes along each of `AXES`."""
        return tuple(getattr(self, axis) for axis in AXES)

    def require(self, num_processes: int) -> None:
        """Check that it is a layout of so many processes.

        Raises:
            ConfigError: it is not; the message names the layouts that are.
        """
        if num_processes == self.num_processes:
            return
        factors = [f"parallel.replicate={self.replicate}", f"parallel.shard={self.shard}"]
        factors += [f"parallel.{axis}={size}" for axis, size in self._together]
        given = f"{' times '.join(factors)} is {self.num_processes}"
        if num_processes == 1:
            raise ConfigError(
                f"{given}, and this is one process; start so many with torchrun "
                f"--nproc-per-node {self.num_processes} -m blankfill, or leave "
                f"{'them' if self._together else 'both'} out"
            )
        raise ConfigError(
            f"{given}, and {num_processes} processes were started; take "
            f"{', or '.join(self._ways(num_processes))}"
        )

    def _ways(self, num_processes: int) -> list[str]:
        """Name layouts of so many processes, which keep what they can of this one's axes along
        which rows are the same."""
        rest, kept = num_processes, ""
        for axis, size in self._together:
            if rest % size == 0:
                rest, kept = rest // size, f"{kept} --parallel.{axis} {size}"
        if rest == 1:
            return [kept.strip()]
        halves = [n for n in range(2, rest) if rest % n == 0]
        ways = [f"--parallel.shard {rest}", f"--parallel.replicate {rest}"]
        if halves:
            middle = halves[len(halves) // 2]
            ways.append(f"--parallel.replicate {rest // middle} --parallel.shard {middle}")
        return [way + kept for way in ways]

    @property
    def _together(self) -> list[tuple[str, int]]:
        """The axes along which processes have the same rows, where there are several."""
        sizes = (("tensor", self.tensor), ("pipeline", self.pipeline))
        return [(axis, size) for axis, size in sizes if size > 1]

    def require_stages(self, model: ModelConfig, train: TrainConfig) -> None:
        """Check that blocks can be dealt to a pipeline, and that its steps are long enough.

        Raises:
            ConfigError: they cannot, or are not; the message names what would do.
        """
        require_stages(self.schedule, self.pipeline, CHUNKS[self.schedule], model.num_layers)
        first, most = train.ramp_from_rows or train.batch_rows, train.micro_batch_rows
        for rows in range(first, train.batch_rows + 1, most):
            require_micro_batches(
                self.schedule, self.pipeline, rows=rows,
                num_data=self.replicate * self.shard, micro_batch_rows=most,
            )  # fmt: skip

    def require_parts(self, model: ModelConfig, row_length: int) -> None:
        """Check that what `tensor` processes share out can be cut into so many equal parts.

        Raises:
            ConfigError: it cannot; the message names numbers that would do.
        """
        sizes = {
            "model.num_heads": model.num_heads, "model.ffn_size": model.ffn_size,
            "model.vocab_size": model.vocab_size, "train.row_length": row_length,
        }  # fmt: skip
        for name, size in sizes.items():
            if size % self.tensor == 0:
                continue
            fits = [n for n in range(1, self.tensor) if all(s % n == 0 for s in sizes.values())]
            down = size - size % self.tensor
            others = [n for n in (down, down + self.tensor) if n]
            if name == "model.num_heads":
                others = [n for n in others if _can_have(model, n)]
            ways = [f"--parallel.tensor {' or '.join(map(str, fits))}"]
            if others:
                ways.append(f"{name} {' or '.join(map(str, others))}")
            raise ConfigError(
                f"parallel.tensor={self.tensor} does not divide {name}={size}; take "
                f"{', or '.join(ways)}"
            )


def _can_have(model: ModelConfig, num_heads: int) -> bool:
    """Tell whether a model could have so many heads."""
    try:
        replace(model, num_heads=num_heads)
    except ConfigError:
        return False
    return True
