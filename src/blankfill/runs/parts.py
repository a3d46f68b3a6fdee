"""Reading a part of a checkpoint, whatever files hold it: one rule for one process and for many.

A part (`model`, `optimizer`, `ema`) is one file or several, and a file holds tensors, or rows of
them. Where it holds rows, its header says at which row each tensor of it begins; a file that says
nothing begins at row 0. Names, shapes and types are read from the headers, and checked: the rows of
a tensor must follow each other without a gap. Values are read file by file, a piece at a time, into
where they are to be, so that memory never holds a second copy of a model.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blankfill.errors import CheckpointError
from blankfill.runs.tensors import BLOCK, DTYPES, OFFSETS, SHARDING, HeaderEntry, read_header

if TYPE_CHECKING:
    import torch

__all__ = [
    "Piece",
    "StoredRows",
    "StoredWhole",
    "list_part",
    "load_part",
    "load_weights",
    "part_files",
    "read_pieces",
    "stored_types",
]

RowsOf = Callable[[str, Sequence[int]], "slice | None"]
"""Given a tensor's name and whole shape, tells which rows along its first dimension are wanted;
None asks for all of it."""
_Found = tuple["StoredRows", HeaderEntry]
"""Rows in a file, and what its header says of them."""
_TYPES: Final = {short: name for name, short in DTYPES.items()}
_NUMBERED = re.compile(r"-(\d{5})-of-(\d{5})\.safetensors$", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredRows:
    """Rows of a tensor in one file."""

    path: Path
    """The file."""
    start: int
    """Byte of the file at which they begin."""
    first: int
    """Row of the whole tensor that the first one is."""
    count: int
    """How many there are; 1 of a number, which has no rows."""

    def meet(self, asked: slice) -> bool:
        """Tell whether some of them are among the rows of the whole tensor that are asked for."""
        return self.first < asked.stop and asked.start < self.first + self.count


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredWhole:
    """A tensor in the files of a part."""

    dtype: torch.dtype
    """Its type there."""
    shape: tuple[int, ...]
    """Its shape, put together."""
    rows: tuple[StoredRows, ...]
    """Where its rows are, in order."""

    @property
    def row_bytes(self) -> int:
        """Bytes of a row on disk."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Rows that were asked for, as one file holds them; valid until the next one is asked for."""

    name: str
    """The tensor's name."""
    place: slice
    """Where they belong among all rows that were asked for of it."""
    shape: tuple[int, ...]
    """Of all that was asked for of it."""
    dtype: torch.dtype
    """Their type in the file."""
    file: FileIO
    """The file, which stands at their first byte."""

    def copy_to(self, target: torch.Tensor) -> None:
        """Read the values into the rows that they belong to, at most a block of them beside it.

        Args:
            target: of all that was asked for of the tensor, of any dtype, on any device.

        Raises:
            CheckpointError: the file ends too early.
        """
        import torch

        rows = target.detach()[self.place] if self.shape else target.detach()
        flat, straight = rows.view(-1), rows.dtype == self.dtype and rows.device.type == "cpu"
        step = max(1, flat.numel() if straight else BLOCK // self.dtype.itemsize)
        for start in range(0, flat.numel(), step):
            values = flat[start : start + step]
            if not straight:
                values = torch.empty(values.numel(), dtype=self.dtype)
            self._fill(values.view(torch.uint8).numpy().data)
            if not straight:
                flat[start : start + step].copy_(values)

    def _fill(self, buffer: memoryview) -> None:
        while buffer:
            count = self.file.readinto(buffer)
            if not count:
                raise CheckpointError(f"{self.file.name} ends inside {self.name}: it is cut off")
            buffer = buffer[count:]


def part_files(folder: Path, part: str = "model") -> list[Path]:
    """List the files that hold a part, in order; none where it is not there.

    Raises:
        CheckpointError: some of them are missing.
    """
    whole = folder / f"{part}.safetensors"
    if whole.is_file():
        return [whole]
    found = sorted(folder.glob(f"{part}-*-of-*.safetensors"))
    numbered = [match for path in found if (match := _NUMBERED.search(path.name))]
    if not numbered:
        return []
    count = int(numbered[0][2])
    wanted = [folder / f"{part}-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    if odd := sorted(set(wanted) ^ set(found)):
        said = "lacks" if odd[0] in wanted else "holds files of two checkpoints:"
        raise CheckpointError(
            f"{folder} {said} {odd[0].name}; restore it, or take another checkpoint"
        )
    return wanted


def list_part(folder: Path, part: str = "model") -> dict[str, StoredWhole]:
    """Tell the type and shape of every tensor of a part, and where its rows are; no value is read.

    Raises:
        CheckpointError: a file is missing or damaged, or the files do not belong together.
    """
    found: dict[str, list[_Found]] = {}
    for path in part_files(folder, part):
        try:
            header = read_header(path)
            begins = _first_rows(header.said)
        except (OSError, LookupError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read ({error})") from error
        for name, entry in header.tensors.items():
            rows = StoredRows(
                path=path, start=entry.start, first=begins.get(name, 0), count=_height(entry.shape)
            )
            found.setdefault(name, []).append((rows, entry))
    return {name: _together(folder, name, pieces) for name, pieces in found.items()}


def stored_types(folder: Path, part: str = "model") -> dict[str, torch.dtype]:
    """Tell the type on disk of every tensor of a part, by name, without reading the tensors.

    Raises:
        CheckpointError: as `list_part`.
    """
    return {name: tensor.dtype for name, tensor in list_part(folder, part).items()}


def read_pieces(folder: Path, part: str, rows_of: RowsOf | None = None) -> Iterator[Piece]:
    """Read the wanted rows of each tensor of a part, file by file.

    Args:
        folder: the checkpoint's.
        part: such as `model`.
        rows_of: which rows; all where not given. What it raises is raised before a value is read.

    Raises:
        CheckpointError: as `list_part`, or there is no such part.
    """
    tensors = list_part(folder, part)
    files = part_files(folder, part)
    if not files:
        raise CheckpointError(f"{folder} has no file of its {part}; restore it, or take another")
    pieces: dict[Path, list[tuple[str, slice, StoredRows]]] = {path: [] for path in files}
    for name, tensor in tensors.items():
        asked = rows_of and rows_of(name, tensor.shape)
        asked = asked or slice(0, _height(tensor.shape))
        touched = [rows for rows in tensor.rows if rows.meet(asked)]
        for rows in touched or tensor.rows[:1]:  # nothing asked for is a piece without rows
            pieces[rows.path].append((name, asked, rows))
    for path in files:
        with _reading(path) as file:
            for name, asked, rows in pieces[path]:
                tensor = tensors[name]
                start = max(asked.start, rows.first)
                stop = max(start, min(asked.stop, rows.first + rows.count))
                file.seek(rows.start + (start - rows.first) * tensor.row_bytes)
                yield Piece(
                    name=name, file=file, dtype=tensor.dtype,
                    place=slice(start - asked.start, stop - asked.start),
                    shape=(asked.stop - asked.start, *tensor.shape[1:]) if tensor.shape else (),
                )  # fmt: skip


def load_part(folder: Path, part: str, rows_of: RowsOf | None = None) -> dict[str, torch.Tensor]:
    """Read the wanted rows of each tensor of a part, in the order of their names.

    Args:
        folder: the checkpoint's.
        part: such as `optimizer`.
        rows_of: as `read_pieces` takes it.

    Raises:
        CheckpointError: as `read_pieces`.
    """
    import torch

    made: dict[str, torch.Tensor] = {}
    for piece in read_pieces(folder, part, rows_of):
        if piece.name not in made:
            made[piece.name] = torch.empty(piece.shape, dtype=piece.dtype)
        piece.copy_to(made[piece.name])
    return dict(sorted(made.items()))  # not in the order of files, which differs by rank


def load_weights(model: torch.nn.Module, folder: Path, part: str = "model") -> None:
    """Copy a checkpoint's weights into a model, a piece at a time, whatever their dtype.

    Args:
        model: on a real device.
        folder: the checkpoint's.
        part: `model`, or `ema` for the moving average.

    Raises:
        CheckpointError: a file is damaged, or its tensors are not those of the model.
    """
    targets = model.state_dict()
    left = dict.fromkeys(targets)

    def require(name: str, shape: Sequence[int]) -> None:
        target = targets.get(name)
        if target is None or tuple(target.shape) != tuple(shape):
            held = "is not in" if target is None else f"is {list(target.shape)} in"
            raise CheckpointError(
                f"{folder} holds {name} {list(shape)} in its {part}, which {held} the model of its "
                "run.json; restore the file that was changed"
            )

    for piece in read_pieces(folder, part, require):
        piece.copy_to(targets[piece.name])
        left.pop(piece.name, None)
    if left:
        raise CheckpointError(f"{folder} lacks the tensor {next(iter(left))}; restore its files")


@contextmanager
def _reading(path: Path) -> Generator[FileIO]:
    """Open a file whose bytes are read straight to where they are to be.

    Raises:
        CheckpointError: it cannot be opened.
    """
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from error
    with file:
        yield file


def _first_rows(said: Mapping[str, str]) -> dict[str, int]:
    """Tell at which row each tensor of a file begins, from what its header says.

    Raises:
        ValueError, LookupError, TypeError: it says something else.
    """
    entries = dict(json.loads(said.get(SHARDING, "{}")))
    begins = {name: entry[OFFSETS] for name, entry in entries.items()}
    if cut := [name for name, offsets in begins.items() if any(offsets[1:])]:
        raise ValueError(f"{cut[0]} is cut along its columns, and blankfill reads rows")
    return {name: int(offsets[0]) if offsets else 0 for name, offsets in begins.items()}


def _height(shape: Sequence[int]) -> int:
    """Count the rows of a tensor; a number is one."""
    return shape[0] if shape else 1


def _together(folder: Path, name: str, found: list[_Found]) -> StoredWhole:
    """Put what files say of a tensor's rows together.

    Raises:
        CheckpointError: they have a gap, overlap, or are of different types or widths.
    """
    import torch

    found.sort(key=lambda one: (one[0].first, one[0].count))
    entry = found[0][1]
    height = 0
    for rows, its in found:
        if rows.first != height or (its.dtype, its.shape[1:]) != (entry.dtype, entry.shape[1:]):
            raise CheckpointError(
                f"{rows.path} does not go on with {name} where the files before it end, at row "
                f"{height}: they are of different checkpoints; restore {folder}, or take another"
            )
        height += rows.count
    return StoredWhole(
        dtype=getattr(torch, _TYPES[entry.dtype]), rows=tuple(rows for rows, _ in found),
        shape=(height, *entry.shape[1:]) if entry.shape else (),
    )  # fmt: skip
