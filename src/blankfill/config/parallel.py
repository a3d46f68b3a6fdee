"""How the processes of a run share its work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from blankfill.config.on_resume import BY_NAME
from blankfill.config.ranges import Range, check_numbers
from blankfill.errors import ConfigError

__all__ = ["ParallelConfig"]

MOST_PROCESSES = 2**20
"""Of a run; more than any machine has."""
LEAST_TIMEOUT_SECONDS = 10.0
"""A process that is merely kept from its core is silent for some seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParallelConfig:
    """The layout: `replicate` times `shard` processes, each with rows of its own."""

    replicate: Annotated[int, Range(1, MOST_PROCESSES)] = 1
    """Copies of the model, over which gradients are summed."""
    shard: Annotated[int, Range(1, MOST_PROCESSES)] = 1
    """Processes that hold a copy together: weights, gradients and moments are cut over them, and
    a block's weights are put together while it computes (FSDP2)."""
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
        return self.replicate * self.shard

    def require(self, num_processes: int) -> None:
        """Check that it is a layout of so many processes.

        Raises:
            ConfigError: it is not; the message names the layouts that are.
        """
        if num_processes == self.num_processes:
            return
        given = (
            f"parallel.replicate={self.replicate} times parallel.shard={self.shard} is "
            f"{self.num_processes}"
        )
        if num_processes == 1:
            raise ConfigError(
                f"{given}, and this is one process; start so many with torchrun "
                f"--nproc-per-node {self.num_processes} -m blankfill, or leave both out"
            )
        halves = [n for n in range(2, num_processes) if num_processes % n == 0]
        ways = [f"--parallel.shard {num_processes}", f"--parallel.replicate {num_processes}"]
        if halves:
            middle = halves[len(halves) // 2]
            ways.append(f"--parallel.replicate {num_processes // middle} --parallel.shard {middle}")
        raise ConfigError(
            f"{given}, and {num_processes} processes were started; take {', or '.join(ways)}"
        )
