"""Reading a part of a checkpoint, whatever files hold it: one rule for one process and for many.

A part (`model`, `optimizer`, `ema`) is one file or several, and a file holds tensors, or some rows
and columns of them. Then its header says at which row and column each tensor of it begins; a file
that says nothing begins at the first. Names, shapes and types are read from the headers, and
checked: what files hold of a tensor must be all of it, without a gap. Values are read file by file,
a piece at a time, into where they are to be, so that memory never holds a second copy of a model.
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
from typing import TYPE_CHECKING, Final, NoReturn

from blankfill.errors import CheckpointError
from blankfill.runs.tensors import BLOCK, DTYPES, OFFSETS, SHARDING, HeaderEntry, read_header

if TYPE_CHECKING:
    import torch

__all__ = [
    "Piece",
    "StoredBlock",
    "StoredWhole",
    "list_part",
    "load_part",
    "load_weights",
    "part_files",
    "read_pieces",
    "stored_types",
]

AskedOf = Callable[[str, Sequence[int]], "tuple[slice, ...] | None"]
"""Given a tensor's name and whole shape, tells what is wanted of it along its first dimensions, at
most two; None asks for all of it."""
_Found = tuple["StoredBlock", HeaderEntry]
"""Rows and columns in a file, and what its header says of them."""
_TYPES: Final = {short: name for name, short in DTYPES.items()}
_NUMBERED = re.compile(r"-(\d{5})-of-(\d{5})\.safetensors$", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredBlock:
    """Some rows and columns of a tensor in one file."""

    path: Path
    """The file."""
    start: int
    """Byte of the file at which they begin."""
    begin: tuple[int, int]
    """Row and column of the whole tensor at which they begin."""
    sizes: tuple[int, int]
    """Rows and columns that they are; 1 along a dimension that the tensor does not have."""

    def meet(self, asked: Sequence[slice]) -> bool:
        """Tell whether some of them are among the rows and columns that are asked for."""
        return all(
            first < of.stop and of.start < first + n
            for first, n, of in zip(self.begin, self.sizes, asked, strict=True)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredWhole:
    """A tensor in the files of a part."""

    dtype: torch.dtype
    """Its type there."""
    shape: tuple[int, ...]
    """Its shape, put together."""
    blocks: tuple[StoredBlock, ...]
    """Where its values are."""

    @property
    def column_shape(self) -> tuple[int, ...]:
        """What stands at each row and column: a number, unless there are more dimensions."""
        return self.shape[2:]

    @property
    def num_bytes(self) -> int:
        """Bytes of all rows on disk."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Values that were asked for, as one file holds them; valid until the next one is asked for."""

    name: str
    """The tensor's name."""
    place: tuple[slice, ...]
    """Where they belong among all that was asked for of it."""
    shape: tuple[int, ...]
    """Of all that was asked for of it."""
    dtype: torch.dtype
    """Their type in the file."""
    file: FileIO
    """The file, which stands at the first row of them."""
    stored: tuple[int, ...]
    """Shape of a row there."""
    columns: slice
    """Those of such a row that are asked for."""

    def copy_to(self, target: torch.Tensor) -> None:
        """Read the values into where they belong, at most a block of them beside it.

        Args:
            target: of all that was asked for of the tensor, of any dtype, on any device.

        Raises:
            CheckpointError: the file ends too early.
        """
        rows = target.detach()[self.place] if self.shape else target.detach()
        if not rows.is_contiguous() or (self.stored and rows.shape[1:] != self.stored):
            self._copy_columns(rows)
            return
        flat, straight = rows.view(-1), rows.dtype == self.dtype and rows.device.type == "cpu"
        step = max(1, flat.numel() if straight else BLOCK // self.dtype.itemsize)
        for start in range(0, flat.numel(), step):
            values = flat[start : start + step]
            if straight:
                self._fill(values)
            else:
                values.copy_(self._read(values.numel()))

    def _copy_columns(self, rows: torch.Tensor) -> None:
        """Read whole rows of the file, a block at a time, and take the columns."""
        width = math.prod(self.stored)
        step = max(1, BLOCK // (self.dtype.itemsize * max(1, width)))
        for start in range(0, len(rows) if rows.numel() else 0, step):
            some = rows[start : start + step]
            read = self._read(len(some) * width).view(len(some), *self.stored)
            some.copy_(read[:, self.columns])

    def _read(self, count: int) -> torch.Tensor:
        import torch

        values = torch.empty(count, dtype=self.dtype)
        self._fill(values)
        return values

    def _fill(self, values: torch.Tensor) -> None:
        import torch

        buffer = values.view(torch.uint8).numpy().data
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
    """Tell the type and shape of every tensor of a part, and where it is; no value is read.

    Raises:
        CheckpointError: a file is missing or damaged, or the files do not belong together.
    """
    found: dict[str, list[_Found]] = {}
    for path in part_files(folder, part):
        try:
            header = read_header(path)
            begins = _begins(header.said)
        except (OSError, LookupError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read ({error})") from error
        for name, entry in header.tensors.items():
            block = StoredBlock(
                path=path, start=entry.start, begin=begins.get(name, (0, 0)),
                sizes=_two(entry.shape),
            )  # fmt: skip
            found.setdefault(name, []).append((block, entry))
    return {name: _together(folder, name, pieces) for name, pieces in found.items()}


def stored_types(folder: Path, part: str = "model") -> dict[str, torch.dtype]:
    """Tell the type on disk of every tensor of a part, by name, without reading the tensors.

    Raises:
        CheckpointError: as `list_part`.
    """
    return {name: tensor.dtype for name, tensor in list_part(folder, part).items()}


def read_pieces(folder: Path, part: str, asked_of: AskedOf | None = None) -> Iterator[Piece]:
    """Read what is wanted of each tensor of a part, file by file.

    Args:
        folder: the checkpoint's.
        part: such as `model`.
        asked_of: which rows and columns; all where not given. What it raises is raised before a
            value is read.

    Raises:
        CheckpointError: as `list_part`, or there is no such part.
    """
    tensors = list_part(folder, part)
    files = part_files(folder, part)
    if not files:
        raise CheckpointError(f"{folder} has no file of its {part}; restore it, or take another")
    pieces: dict[Path, list[tuple[str, list[slice], StoredBlock]]] = {path: [] for path in files}
    for name, tensor in tensors.items():
        asked = [slice(0, n) for n in _two(tensor.shape)]
        for dim, of in enumerate((asked_of and asked_of(name, tensor.shape)) or ()):
            asked[dim] = of
        touched = [block for block in tensor.blocks if block.meet(asked)]
        for block in touched or tensor.blocks[:1]:  # nothing asked for is a piece without values
            pieces[block.path].append((name, asked, block))
    for path in files:
        with _reading(path) as file:
            for name, asked, block in pieces[path]:
                yield _piece(name, tensors[name], asked, block, file)


def _piece(
    name: str, tensor: StoredWhole, asked: Sequence[slice], block: StoredBlock, file: FileIO
) -> Piece:
    """Go to the first row of what is asked for of a block, and say how the values lie there."""
    common: list[slice] = []
    for of, first, n in zip(asked, block.begin, block.sizes, strict=True):
        start = max(of.start, first)
        common.append(slice(start, max(start, min(of.stop, first + n))))
    rank = len(tensor.shape)
    stored = (block.sizes[1], *tensor.column_shape)[: max(rank - 1, 0)]
    row_bytes = math.prod(stored) * tensor.dtype.itemsize
    file.seek(block.start + (common[0].start - block.begin[0]) * row_bytes)
    place = tuple(
        slice(is_in.start - of.start, is_in.stop - of.start)
        for is_in, of in zip(common, asked, strict=True)
    )
    wanted = (*(of.stop - of.start for of in asked), *tensor.column_shape)
    first_column = block.begin[1]
    return Piece(
        name=name, file=file, dtype=tensor.dtype, place=place[:rank], shape=wanted[:rank],
        stored=stored,
        columns=slice(common[1].start - first_column, common[1].stop - first_column),
    )  # fmt: skip


def load_part(folder: Path, part: str, asked_of: AskedOf | None = None) -> dict[str, torch.Tensor]:
    """Read what is wanted of each tensor of a part, in the order of their names.

    Args:
        folder: the checkpoint's.
        part: such as `optimizer`.
        asked_of: as `read_pieces` takes it.

    Raises:
        CheckpointError: as `read_pieces`.
    """
    import torch

    made: dict[str, torch.Tensor] = {}
    for piece in read_pieces(folder, part, asked_of):
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


def _begins(said: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Tell at which row and column each tensor of a file begins, from what its header says.

    Raises:
        ValueError, LookupError, TypeError: it says something else.
    """
    entries = dict(json.loads(said.get(SHARDING, "{}")))
    begins = {name: entry[OFFSETS] for name, entry in entries.items()}
    if cut := [name for name, offsets in begins.items() if any(offsets[2:])]:
        raise ValueError(f"{cut[0]} is cut along a third dimension; blankfill reads two")
    return {
        name: (int(offsets[0]) if offsets else 0, int(offsets[1]) if offsets[1:] else 0)
        for name, offsets in begins.items()
    }


def _two(shape: Sequence[int]) -> tuple[int, int]:
    """Count the rows and columns of a tensor; 1 along a dimension that it does not have."""
    return (shape[0] if shape else 1, shape[1] if shape[1:] else 1)


def _together(folder: Path, name: str, found: list[_Found]) -> StoredWhole:
    """Put what files say of a tensor together: bands of columns, each of which has all rows.

    Raises:
        CheckpointError: they have a gap, overlap, or are of different types or shapes.
    """
    import torch

    def refuse(block: StoredBlock, where: str) -> NoReturn:
        raise CheckpointError(
            f"{block.path} does not go on with {name} where the files before it end, at {where}: "
            f"they are of different checkpoints; restore {folder}, or take another"
        )

    found.sort(key=lambda one: (one[0].begin[::-1], one[0].sizes[::-1]))
    entry, bands = found[0][1], dict[tuple[int, int], int]()  # rows of the columns first, count
    for block, its in found:
        row, column = block.begin
        height = bands.setdefault((column, block.sizes[1]), 0)
        if row != height or (its.dtype, its.shape[2:]) != (entry.dtype, entry.shape[2:]):
            refuse(block, f"row {height}")
        bands[column, block.sizes[1]] += block.sizes[0]
    right, height = 0, next(iter(bands.values()))
    for (column, width), rows in bands.items():
        if column != right or rows != height:
            refuse(found[-1][0], f"column {right}")
        right += width
    whole = (height, right, *entry.shape[2:])
    return StoredWhole(
        dtype=getattr(torch, _TYPES[entry.dtype]), blocks=tuple(block for block, _ in found),
        shape=whole[: len(entry.shape)],
    )  # fmt: skip
