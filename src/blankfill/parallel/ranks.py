"""The processes of a run, joined: who leads, what all of them know, and how they are laid out.

What is decided from numbers of the device goes over the mesh's own backend (NCCL, or gloo on CPUs);
small values of the host go over a gloo group of their own, so that nothing waits for a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from blankfill.config.parallel import ParallelConfig
from blankfill.config.train import DeviceKind
from blankfill.engine.device import choose_device
from blankfill.errors import BlankfillError, ConfigError, ProcessLostError
from blankfill.processes import this_place

__all__ = ["Ranks", "joined"]

T = TypeVar("T")

OLDEST_TORCH = (2, 13)
"""Before it a weight that two groups of FSDP2 share was not trained on the last rank
(pytorch#176076)."""
REPLICATE, SHARD = "replicate", "shard"
"""The mesh's axes; every rank along either reads rows of its own."""


class Ranks:
    """The processes of a run.

    Args:
        layout: of the processes, of which torch knows.
        device: where this one computes.

    Raises:
        ConfigError: so many processes are not laid out so.
    """

    def __init__(self, layout: ParallelConfig, device: torch.device) -> None:
        layout.require(dist.get_world_size())
        self.layout, self.device = layout, device
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        self.mesh: DeviceMesh = init_device_mesh(
            device.type, (layout.replicate, layout.shard), mesh_dim_names=(REPLICATE, SHARD)
        )
        self._control: Any = dist.new_group(backend="gloo")

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    @property
    def replica(self) -> int:
        """Number of this process's copy of the model."""
        return self.rank // self.layout.shard

    @property
    def part(self) -> int:
        """Number of this process among those that hold its copy."""
        return self.rank % self.layout.shard

    def once(self, decide: Callable[[], T]) -> T:
        """Let the leading process find something out, and tell it to all.

        Raises:
            BlankfillError, OSError: what `decide` raised, in every process.
        """
        told: list[Any] = [None, None]
        if self.leads:
            try:
                told[0] = decide()
            except (BlankfillError, OSError) as error:
                told[1] = error
        dist.broadcast_object_list(told, src=0, group=self._control)
        if told[1] is not None:
            raise told[1]
        return told[0]

    def gather(self, items: Sequence[T]) -> list[T]:
        """Give all processes what each of them has, in the order of their ranks."""
        of_each: list[Any] = [None] * self.count
        dist.all_gather_object(of_each, list(items), group=self._control)
        return [item for one in of_each for item in one]

    def sum(self, values: Sequence[float]) -> list[float]:
        """Add up what each process has of some numbers; all get the same bits."""
        total = torch.tensor(list(values), dtype=torch.float64)
        dist.all_reduce(total, group=self._control)
        return total.tolist()


@contextmanager
def joined(layout: ParallelConfig, wanted: DeviceKind) -> Generator[Ranks]:
    """Meet the other processes that `torchrun` started, until the block ends.

    Args:
        layout: of the processes.
        wanted: device; of several GPUs of a machine each process has one.

    Raises:
        ConfigError: they cannot be reached, there is no device for this one, or torch is too old.
        ProcessLostError: another process has ended.
    """
    _require_torch()
    device = _own_device(choose_device(wanted))
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend)
    except (dist.DistError, ValueError) as error:
        first = str(error).strip().split("\n")[0]
        raise ConfigError(
            f"the other processes cannot be reached ({first}); start them with torchrun, with the "
            "same --rdzv-endpoint on every machine"
        ) from error
    try:
        yield Ranks(layout, device)
    except RuntimeError as error:
        if not _says_lost(error):
            raise
        raise ProcessLostError(
            "another process of this run has ended or cannot be reached; its own message says why"
        ) from error
    finally:
        dist.destroy_process_group()


def _require_torch() -> None:
    """Check that this torch trains every weight.

    Raises:
        ConfigError: it is older than the first that does.
    """
    major, minor = (int(word) for word in torch.__version__.split(".")[:2])
    if (major, minor) < OLDEST_TORCH:
        raise ConfigError(
            f"several processes need torch {OLDEST_TORCH[0]}.{OLDEST_TORCH[1]} or newer, and this "
            f"is {torch.__version__}; install it, or train in one process"
        )


def _own_device(device: torch.device) -> torch.device:
    """Give this process the GPU of its number on this machine.

    Raises:
        ConfigError: there are fewer.
    """
    if device.type != "cuda":
        return device
    number, there = this_place().local_rank, torch.cuda.device_count()
    if number >= there:
        raise ConfigError(
            f"process {number + 1} of this machine has no GPU: there are {there}; take "
            f"--nproc-per-node {there}"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def _says_lost(error: RuntimeError) -> bool:
    """Tell whether an error is of the connection to another process."""
    signs = ("gloo/transport", "Connection closed", "Connection reset", "Broken pipe")
    return isinstance(error, dist.DistError) or any(sign in str(error) for sign in signs)
