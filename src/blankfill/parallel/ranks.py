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

from blankfill.config.parallel import AXES, ParallelConfig
from blankfill.errors import BlankfillError, ConfigError
from blankfill.parallel.fault import place_of
from blankfill.parallel.pace import Pace
from blankfill.parallel.places import Place, kept_place
from blankfill.parallel.tensor import TensorGroup
from blankfill.processes import settle_speaker

if TYPE_CHECKING:
    from blankfill.parallel.pulse import Pulse

__all__ = ["Ranks"]

T = TypeVar("T")

CONTROL_TIMEOUT = timedelta(days=1)
"""For which small values are waited for: whether a process that keeps others waiting is lost, the
heartbeat tells, and not the time alone."""
PIPELINE, REPLICATE, SHARD, TENSOR = AXES
"""The mesh's axes; ranks along the middle two read rows of their own, those along the others the
same."""


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
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        self._control: Any = dist.new_group(backend="gloo", timeout=CONTROL_TIMEOUT)
        self._require_one_layout()  # before groups are made of it, which would wait for ever
        self.mesh: DeviceMesh = init_device_mesh(device.type, layout.sizes, mesh_dim_names=AXES)
        self.tensor = TensorGroup(
            self.mesh.get_group(TENSOR), self.rank % layout.tensor, layout.tensor
        )
        """Those that compute a block together."""
        self.holders: Any = (
            self.mesh.get_group(SHARD) if layout.tensor == 1
            else dist.new_subgroups(group_size=self.num_holders)[0]
        )  # fmt: skip
        """Those that hold a copy of a pipeline's part of the model together."""
        self.pipeline: Any = self.mesh.get_group(PIPELINE)
        """Those that have a copy's parts, one after the other."""
        self._peers: Any = (
            self._control if layout.pipeline == 1
            else dist.new_subgroups(
                group_size=self.num_peers, backend="gloo", timeout=CONTROL_TIMEOUT
            )[0]
        )  # fmt: skip
        """Those that have the same part of the model, or a part of it."""
        self.saving: Any = dist.new_group(backend="gloo", timeout=CONTROL_TIMEOUT)
        """The processes once more, for what goes on beside the steps."""

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    @property
    def replica(self) -> int:
        """Number of this process's copy of the model."""
        return self.peer // self.num_holders

    @property
    def holder(self) -> int:
        """Number of this process among those that hold its copy."""
        return self.rank % self.num_holders

    @property
    def num_holders(self) -> int:
        """Processes that hold a copy of the model together."""
        return self.layout.shard * self.layout.tensor

    @property
    def station(self) -> int:
        """Number of this process in its pipeline."""
        return self.rank // self.num_peers

    @property
    def peer(self) -> int:
        """Number of this process among those with its number in the pipelines."""
        return self.rank % self.num_peers

    @property
    def num_peers(self) -> int:
        """Processes with the same number in the pipelines, which are those of the first."""
        return self.count // self.layout.pipeline

    @property
    def reader(self) -> int:
        """Number of this process's rows among those of all; some processes have the same."""
        return self.reader_of(self.rank)

    def reader_of(self, rank: int) -> int:
        """Give that number of another process."""
        return rank % self.num_peers // self.layout.tensor

    @property
    def num_readers(self) -> int:
        """Shares of rows that there are."""
        return self.num_peers // self.layout.tensor

    @property
    def speaks_for_rows(self) -> bool:
        """Whether this process is the first of those that have its rows."""
        return self.tensor.rank == 0 and self.station == 0

    def kept_by_holders(self, shape: Sequence[int], cut: int | None) -> list[Place]:
        """Tell what each holder of a copy keeps of a tensor, in their order.

        Args:
            shape: of the whole tensor.
            cut: as `kept_place` takes it.
        """
        return [
            kept_place(
                shape, cut, tensor=(holder % self.layout.tensor, self.layout.tensor),
                shard=(holder // self.layout.tensor, self.layout.shard),
            )
            for holder in range(self.num_holders)
        ]  # fmt: skip

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
            settle_speaker(told[1], 0)
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

    def scatter(
        self, values: torch.Tensor | None, places: Sequence[Place], source: int
    ) -> torch.Tensor:
        """Give all with one number in the pipelines what each keeps of a tensor that one has.

        Args:
            values: float32 on the CPU, in the process that has it.
            places: what each holder of a copy keeps.
            source: that process among them.
        """
        received = torch.empty(max(place.numel for place in places))
        sent: list[torch.Tensor] | None = None
        if values is not None:
            of_holders = [torch.zeros_like(received) for _ in places]
            for place, room in zip(places, of_holders, strict=True):
                room[: place.numel] = values[place.index].reshape(-1)
            sent = of_holders * self.layout.replicate
        dist.scatter(received, sent, group_src=source, group=self._peers)
        mine = places[self.holder]
        return received[: mine.numel].view(mine.sizes)

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
        mine = " ".join(
            f"--parallel.{axis} {size}"
            for axis, size in zip(AXES, self.layout.sizes, strict=True)
            if size > 1 or axis in (REPLICATE, SHARD)
        )
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
        settle_speaker(error, 0)
        try:
            raise error
        finally:
            del error  # as `Alone` does
