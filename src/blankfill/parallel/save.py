"""Checkpoints of several processes: each writes what it keeps, the leading one commits.

Torch's distributed checkpoint (DCP) plans who writes what, so that parts of tensors which several
processes hold are written once and the disks have about as much to do, carries the plan and the
answers between the processes, and tells all of them what any has met. How files are written,
hashed, read back and named is ours, and the same as in one process: the folder has a temporary name
until every process has answered for its files, and a process that dies before leaves the last
checkpoint alone.

    all        plan: the parts of tensors that are here
    leading    makes the folder; shares out what is held twice
    all        write a file for each part, flush it, read it back
    leading    state.json, then the folder's name
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import torch
import torch.distributed as dist
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
)
from torch.distributed.checkpoint.planner import (
    SavePlan,
    SavePlanner,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from blankfill.errors import CheckpointError, for_people
from blankfill.parallel.places import Place
from blankfill.parallel.ranks import Ranks
from blankfill.runs import Part
from blankfill.runs.save import NewCheckpoint, read_back, stored_parts
from blankfill.runs.tensors import SavedFile, TensorSpec, TensorWriter

__all__ = ["save_together"]

T = TypeVar("T")
Tensors = Mapping[str, torch.Tensor]


PlaceOf = Callable[[str], Place | None]
"""Tells where what is kept of a name belongs; None of what every process has whole."""


def save_together(
    new: NewCheckpoint, parts: Mapping[Part, Tensors], place_of: PlaceOf, ranks: Ranks
) -> None:
    """Write a checkpoint; every process calls this with what it keeps.

    Args:
        new: the checkpoint.
        parts: what it keeps by part and name, on any device.
        place_of: where that belongs.
        ranks: the processes.

    Raises:
        CheckpointError: a disk does not take it, in all processes; older checkpoints are untouched.
    """
    kept = {f"{part}/{name}": x for part, tensors in parts.items() for name, x in tensors.items()}
    files = _Files(new, stored_parts(parts), ranks)
    try:
        dcp.save(kept, storage_writer=files, planner=_Kept(place_of), process_group=ranks.saving)
    except CheckpointException as failed:
        files.discard()
        _refuse(new, {rank: error for rank, (error, _) in failed.failures.items()}, ranks)
    except BaseException:
        files.discard()
        raise


def _refuse(
    new: NewCheckpoint, met: Mapping[int, BaseException], ranks: Ranks
) -> NoReturn:  # fmt: skip
    """Raise what some processes have met while they saved, in all processes and by their names.

    Raises:
        CheckpointError: it is the user's to put right.
        BaseException: what this process has met, where it is a bug of ours; in the others a
            `DistError`, as where the connection to it is lost: it says so itself.
    """
    for rank, error in sorted(met.items()):
        if isinstance(error, CheckpointError):  # names the process
            ranks.refuse(error)
        if (said := for_people(error)) is not None:
            ranks.refuse(
                CheckpointError(
                    f"the checkpoint of step {new.step} could not be written by "
                    f"{ranks.place_of(rank)}: {said}"
                )
            )
    rank, error = min(met.items())
    if rank == ranks.rank:
        raise error
    raise dist.DistError(f"{ranks.place_of(rank)} has met an error: {error!r}")


class _Kept(dcp.DefaultSavePlanner):
    """Plans plain tensors of which each process keeps a part; what several keep one of them writes.

    Args:
        place_of: where parts belong.
    """

    def __init__(self, place_of: PlaceOf) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self._place_of = place_of

    def create_local_plan(self) -> SavePlan:
        """List what this process keeps."""
        items = (self._item(key, kept) for key, kept in sorted(self.state_dict.items()))
        self.plan = SavePlan([item for item in items if item is not None])
        return self.plan

    def lookup_object(self, index: MetadataIndex) -> Any:
        """Give the values of an item of the plan."""
        return self.state_dict[index.fqn]

    def _item(self, key: str, part: torch.Tensor) -> WriteItem | None:
        place = self._place_of(key.partition("/")[2])
        whole = part.shape if place is None else torch.Size(place.shape)
        if place is not None and not part.numel() and whole.numel():
            return None  # this process keeps none of it
        begin = torch.Size([0] * part.ndim if place is None else place.begin)
        return WriteItem(
            index=MetadataIndex(key, begin), type=WriteItemType.SHARD,
            tensor_data=TensorWriteData(
                chunk=ChunkStorageMetadata(offsets=begin, sizes=part.shape),
                properties=TensorProperties.create_from_tensor(part), size=whole,
            ),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class _Share:
    """What the leading process tells another one."""

    folder: Path
    """The checkpoint's folder, under its temporary name."""
    number: int
    """Of its files, counted from 1."""


class _Files(dcp.StorageWriter):
    """Writes the files of this process, and commits them all where it leads.

    Args:
        new: the checkpoint.
        parts: that have files.
        ranks: the processes.
    """

    def __init__(self, new: NewCheckpoint, parts: Sequence[Part], ranks: Ranks) -> None:
        self._new, self._parts, self._ranks = new, parts, ranks

    def reset(self, checkpoint_id: str | PathLike[str] | None = None) -> None:
        """Do nothing: one object writes one checkpoint."""

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | PathLike[str]) -> bool:
        """Accept none: the checkpoint is known from the beginning."""
        return False

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Do nothing: who leads is known."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Leave a process's plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Make the folder, and tell every process of it."""
        folder = self._told(self._new.begin)
        return [
            replace(plan, storage_data=_Share(folder=folder, number=number))
            for number, plan in enumerate(plans, 1)
        ]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write a file for each part, flush it and read it back."""
        share = cast("_Share", plan.storage_data)
        if not share.folder.is_dir():
            raise CheckpointError(
                f"{self._here()} does not see the folder {share.folder} that process 0 has made; "
                "put the run's folder on a disk that all machines share"
            )
        files = self._told(lambda: self._write(share, plan.items, planner))
        done: Future[list[WriteResult]] = Future()
        done.set_result([
            WriteResult(index=MetadataIndex(name), size_in_bytes=file.bytes, storage_data=file)
            for name, file in files.items()
        ])  # fmt: skip
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Commit the files of all processes."""
        files = {one.index.fqn: cast("SavedFile", one.storage_data) for of in results for one in of}
        self._told(lambda: self._new.commit(files))

    def discard(self) -> None:
        """Remove what was written, where this process leads."""
        if self._ranks.leads:
            self._new.discard()

    def _write(
        self, share: _Share, items: Sequence[WriteItem], planner: SavePlanner
    ) -> dict[str, SavedFile]:
        files: dict[str, SavedFile] = {}
        for part in self._parts:
            mine = [item for item in items if item.index.fqn.startswith(f"{part}/")]
            specs = [_spec(item) for item in mine]
            with TensorWriter(
                share.folder, part, specs, shard=(share.number, self._ranks.count)
            ) as writer:
                for item, spec in zip(mine, specs, strict=True):
                    writer.write(spec.name, cast("torch.Tensor", planner.resolve_data(item)))
            files |= writer.files
        read_back(share.folder, files)
        return files

    def _told(self, do: Callable[[], T]) -> T:
        """Do something to the disk; what it refuses is told by this process's name."""
        try:
            return do()
        except OSError as error:
            raise self._new.refused(error, f"by {self._here()}") from error

    def _here(self) -> str:
        return self._ranks.place_of(self._ranks.rank)


def _spec(item: WriteItem) -> TensorSpec:
    """Say what a file's header says of an item of the plan."""
    data = item.tensor_data
    assert data is not None
    return TensorSpec(
        name=item.index.fqn.partition("/")[2], dtype=data.properties.dtype,
        shape=tuple(data.chunk.sizes), begin=tuple(data.chunk.offsets) or None,
    )  # fmt: skip
