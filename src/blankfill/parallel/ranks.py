"""The processes of a run, joined: who leads, what all of them know, and how they are laid out.

What is decided from numbers of the device goes over the mesh's own backend (NCCL, or gloo on CPUs);
small values of the host go over a gloo group of their own, so that nothing waits for a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from blankfill.config.parallel import ParallelConfig
from blankfill.errors import BlankfillError, ConfigError
from blankfill.parallel.fault import place_of
from blankfill.parallel.pace import Pace
from blankfill.parallel.rows import kept_rows

if TYPE_CHECKING:
    from blankfill.parallel.pulse import Pulse

__all__ = ["Ranks"]

T = TypeVar("T")

CONTROL_TIMEOUT = timedelta(days=1)
"""For which small values are waited for: whether a process that keeps others waiting is lost, the
heartbeat tells, and not the time alone."""
REPLICATE, SHARD = "replicate", "shard"
"""The mesh's axes; every rank along either reads rows of its own."""


class Ranks:
    """The processes of a run.

    Args:
        layout: of the processes, of which torch knows.
        device: where this one computes.
        pulse: this process's heartbeat; without one nobody notices that a process hangs.

    Raises:
        ConfigError: so many processes are not laid out so, or not all of them are told the same.
    """

    def __init__(
        self, layout: ParallelConfig, device: torch.device, pulse: Pulse | None = None
    ) -> None:
        layout.require(dist.get_world_size())
        self.layout, self.device, self.pulse = layout, device, pulse
        self.pace = Pace(self, pulse.lookout) if pulse is not None else None
        """Step time by process."""
        self.told: Exception | None = None
        """What `once` raised last, which all processes know."""
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        self._control: Any = dist.new_group(backend="gloo", timeout=CONTROL_TIMEOUT)
        self._require_one_layout()  # before groups are made of it, which would wait for ever
        self.mesh: DeviceMesh = init_device_mesh(
            device.type, (layout.replicate, layout.shard), mesh_dim_names=(REPLICATE, SHARD)
        )
        self.saving: Any = dist.new_group(backend="gloo", timeout=CONTROL_TIMEOUT)
        """The processes once more, for what goes on beside the steps."""

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
            self.told = told[1]
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

    def scatter_rows(
        self, values: torch.Tensor | None, shape: Sequence[int], source: int
    ) -> torch.Tensor:
        """Give every process the rows that it keeps of a tensor that one of them has.

        Args:
            values: float32 on the CPU, in the process that has it.
            shape: of the whole tensor.
            source: rank of that process.
        """
        parts = self.layout.shard
        received = torch.empty(-(-shape[0] // parts), *shape[1:])
        sent: list[torch.Tensor] | None = None
        if values is not None:
            of_parts = [received.new_zeros(received.shape) for _ in range(parts)]
            for part, room in enumerate(of_parts):
                rows = values[kept_rows(shape[0], part, parts)]
                room[: len(rows)] = rows
            sent = of_parts * self.layout.replicate
        dist.scatter(received, sent, src=source, group=self._control)
        rows = kept_rows(shape[0], self.part, parts)
        return received[: rows.stop - rows.start]

    def sum_on_device(self, values: torch.Tensor) -> torch.Tensor:
        """Add up what each process has of some numbers, without reading them; all get the same
        bits. They are overwritten."""
        dist.all_reduce(values)
        return values

    # -- the heartbeat ----------------------------------------------------------------------------

    def begin_step(self, step: int) -> None:
        """Note that the passes of a step begin."""
        if self.pulse is not None and self.pace is not None:
            self.pulse.begin_step(step)
            self.pace.count()

    def mark(self, *, in_step: bool) -> None:
        """Note that a step gets further, or that its update is done."""
        if self.pulse is not None:
            self.pulse.lookout.mark(in_step=in_step)

    def pause(self) -> None:
        """Note that something else than a step begins."""
        if self.pulse is not None:
            self.pulse.lookout.pause()

    def step_times(self) -> dict[str, float]:
        """Compare how long the processes work in a step; nothing where that is not known."""
        if self.pulse is None or self.pace is None:
            return {}
        return self.pace.read((self.pulse.step or 0) + 1)

    def place_of(self, rank: int) -> str:
        """Name a process, with its machine where that is known."""
        return self.places_of([rank])

    def places_of(self, ranks: Sequence[int]) -> str:
        """Name processes, with their machines where those are known."""
        if len(ranks) == self.count > 1:
            return f"all {self.count} processes"
        if self.pulse is None:
            return place_of(ranks, [], self.count)
        return place_of(ranks, [self.pulse.guests[rank].host for rank in ranks], self.count)

    def who(self, is_so: bool) -> str:
        """Name the processes for which something is so; nothing where it is so for none."""
        ranks = self.gather([self.rank] if is_so else [])
        return self.places_of(ranks) if ranks else ""

    def _require_one_layout(self) -> None:
        """Check that all processes are laid out alike.

        Raises:
            ConfigError: one is told another layout.
        """
        mine = f"--parallel.replicate {self.layout.replicate} --parallel.shard {self.layout.shard}"
        of_each = self.gather([mine])
        other = next((rank for rank, one in enumerate(of_each) if one != of_each[0]), None)
        if other is not None:
            self.refuse(
                ConfigError(
                    f"{self.place_of(other)} has {of_each[other]}, process 0 has {of_each[0]}; "
                    "start all with one command"
                )
            )

    def refuse(self, error: BlankfillError) -> NoReturn:
        """Raise what every process has found alike, so that one says it for all."""
        self.told = error
        raise error
