"""Tensors in safetensors files: one way to write them, one way to read them.

A part of a checkpoint (`model`, `optimizer`, `ema`) is one file, or several where it is large:

    model.safetensors
    model-00001-of-00003.safetensors, ...

Format (safetensors 0.5): eight bytes with the header's length, little-endian; the header, JSON with
dtype, shape and byte range of every tensor; then the tensors, little-endian, without a gap.

Shapes and dtypes are known before any value, so the header goes first and the tensors follow one at
a time: memory holds one tensor and not a model. The library would take all of them at once, copy
them, and keep Python from doing anything else meanwhile, which a run that saves beside its steps
would feel.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Protocol

from blankfill.disk.names import readable_name
from blankfill.errors import CheckpointError

if TYPE_CHECKING:
    import torch

__all__ = [
    "DTYPES",
    "Digest",
    "SavedFile",
    "TensorSpec",
    "TensorWriter",
    "load_tensors",
    "load_weights",
    "part_files",
    "read_rows",
    "read_tensors",
    "stored_types",
    "write_tensors",
]

DTYPES: Final = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64",
    "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
"""How safetensors names each dtype of torch, by the dtype's own name."""
BLOCK = 4 << 20
"""Bytes that are converted, hashed and written at a time."""


class Digest(Protocol):
    """What `hashlib` makes: it takes bytes as they come."""

    def update(self, data: memoryview, /) -> object:
        """Take further bytes."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """What a file's header says about one tensor."""

    name: str
    """Its name."""
    dtype: torch.dtype
    """Its type on disk."""
    shape: tuple[int, ...]
    """Its shape."""

    @property
    def num_bytes(self) -> int:
        """Bytes that it takes on disk."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedFile:
    """A file as it was written."""

    bytes: int
    """Its size."""
    sha256: str
    """SHA-256 of its content."""


class TensorWriter:
    """Writes the tensors of one part, one after the other, into one file or several.

        with TensorWriter(folder, "model", specs) as writer:
            for spec in specs:
                writer.write(spec.name, tensor)
        writer.files                        # by name: size and SHA-256

    Leaving the block without an exception and without having written every tensor is a mistake of
    the caller. Each file is on the disk, not only in the system's memory, when the next is begun.
    """

    def __init__(
        self,
        folder: Path,
        part: str,
        specs: Sequence[TensorSpec],
        *,
        max_file_bytes: int | None = None,
    ) -> None:
        """Open the first file and write its header.

        Args:
            folder: where to; a file of the same name is replaced.
            part: what the files are called by, such as `model`.
            specs: the tensors, in the order in which they will be written.
            max_file_bytes: most bytes of tensors in a file; a tensor that is larger has a file of
                its own. One file where not given.
        """
        self.files: dict[str, SavedFile] = {}
        """Size and SHA-256 of the files that are finished, by name."""
        self.places: dict[str, str] = {}
        """The file of each tensor, by the tensor's name."""
        self._folder = folder
        groups = _in_files(specs, max_file_bytes)
        names = _file_names(part, len(groups))
        self._coming = deque(zip(names, groups, strict=True))
        for name, group in self._coming:
            self.places |= {spec.name: name for spec in group}
        assert len(self.places) == len(specs), "two tensors of one name"
        self._open()

    def __enter__(self) -> TensorWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            assert not self._waiting, f"not written: {self._waiting[0]}"
            assert not self._coming, f"not written: {self._coming[0][0]}"
            self._finish()
        else:
            with suppress(OSError):  # a full disk refuses what is left a second time
                self._file.close()

    def write(self, name: str, tensor: torch.Tensor, digest: Digest | None = None) -> None:
        """Write the next tensor, converted to its dtype on disk a stretch at a time.

        Args:
            name: the first name of `specs` that was not written yet.
            tensor: its values, of any dtype, on any device.
            digest: takes the bytes of this tensor, as they are on disk.
        """
        import torch

        if not self._waiting:
            self._finish()
            self._open()
        spec = self._waiting.popleft()
        assert (spec.name, spec.shape) == (name, tuple(tensor.shape)), (spec, name)
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        step = max(1, BLOCK // max(spec.dtype.itemsize, flat.dtype.itemsize))
        for start in range(0, flat.numel(), step):
            values = flat[start : start + step].to(spec.dtype)
            data = values.view(torch.uint8).numpy().data  # the tensor's own memory, no copy
            if digest is not None:
                digest.update(data)
            self._put(data)

    def _open(self) -> None:
        self._name, group = self._coming.popleft()
        self._waiting = deque(group)
        self._hash, self._num_bytes = hashlib.sha256(), 0
        self._file: IO[bytes] = (self._folder / self._name).open("wb", buffering=0)
        self._put(memoryview(_header(group)))

    def _put(self, data: memoryview) -> None:
        self._hash.update(data)
        self._num_bytes += len(data)
        while data:  # the system may take less than it was given
            data = data[self._file.write(data) :]

    def _finish(self) -> None:
        try:
            os.fsync(self._file.fileno())
        finally:
            self._file.close()
        self.files[self._name] = SavedFile(bytes=self._num_bytes, sha256=self._hash.hexdigest())


def write_tensors(
    folder: Path,
    part: str,
    tensors: Mapping[str, torch.Tensor],
    *,
    max_file_bytes: int | None = None,
) -> TensorWriter:
    """Write tensors that are in memory, in the order in which they are given.

    Args:
        folder: where to.
        part: what the files are called by, such as `model`.
        tensors: by name; each keeps its dtype.
        max_file_bytes: as `TensorWriter` takes it.

    Returns:
        The writer, which knows the files and the place of every tensor.
    """
    specs = [
        TensorSpec(name=name, dtype=tensor.dtype, shape=tuple(tensor.shape))
        for name, tensor in tensors.items()
    ]
    with TensorWriter(folder, part, specs, max_file_bytes=max_file_bytes) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)
    return writer


def part_files(folder: Path, part: str = "model") -> list[Path]:
    """List the files that hold a part, in order; none where it is not there."""
    whole = folder / f"{part}.safetensors"
    return [whole] if whole.is_file() else sorted(folder.glob(f"{part}-*-of-*.safetensors"))


def read_tensors(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Read a file's tensors one at a time; each is backed by the file until it is copied.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with readable_name(path) as name, safe_open(name, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118, it is no dictionary
                yield key, file.get_tensor(key)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from error


def stored_types(folder: Path, part: str = "model") -> dict[str, torch.dtype]:
    """Tell the type on disk of every tensor of a part, by name, without reading the tensors.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    return {
        name: tensor.dtype
        for path in part_files(folder, part)
        for name, tensor in read_tensors(path)  # the file is mapped: no value is touched
    }


def read_rows(
    folder: Path, part: str, rows_of: Callable[[str, Sequence[int]], slice | None]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Read some rows of each tensor of a part, one tensor at a time.

    Args:
        folder: the checkpoint's.
        part: such as `model`.
        rows_of: given a tensor's name and shape, tells the rows along its first dimension; None
            asks for all of it.

    Raises:
        CheckpointError: a file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    for path in part_files(folder, part):
        try:
            with readable_name(path) as name, safe_open(name, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118, it is no dictionary
                    place = file.get_slice(key)
                    rows = rows_of(key, place.get_shape())
                    yield key, file.get_tensor(key) if rows is None else place[rows]
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read ({error})") from error


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read all tensors of a file.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    return dict(read_tensors(path))


def load_weights(model: torch.nn.Module, folder: Path, part: str = "model") -> None:
    """Copy a checkpoint's weights into a model, one tensor at a time, whatever their dtype.

    Args:
        model: on a real device.
        folder: the checkpoint's.
        part: `model`, or `ema` for the moving average.

    Raises:
        CheckpointError: a file is damaged, or its tensors are not those of the model.
    """
    import torch

    targets = model.state_dict()
    left = dict.fromkeys(targets)
    for path in part_files(folder, part):
        for name, values in read_tensors(path):
            target = targets.get(name)
            if target is None or target.shape != values.shape:
                held = "is not in" if target is None else f"is {list(target.shape)} in"
                raise CheckpointError(
                    f"{path} holds {name} {list(values.shape)}, which {held} the model of its "
                    "run.json; restore the file that was changed"
                )
            with torch.no_grad():
                target.copy_(values)
            left.pop(name)
    if left:
        raise CheckpointError(f"{folder} lacks the tensor {next(iter(left))}; restore its files")


def _in_files(specs: Sequence[TensorSpec], max_file_bytes: int | None) -> list[list[TensorSpec]]:
    """Cut the tensors into stretches that each fill at most one file."""
    if max_file_bytes is None:
        return [list(specs)]
    groups: list[list[TensorSpec]] = [[]]
    size = 0
    for spec in specs:
        if groups[-1] and size + spec.num_bytes > max_file_bytes:
            groups.append([])
            size = 0
        groups[-1].append(spec)
        size += spec.num_bytes
    return groups


def _file_names(part: str, count: int) -> list[str]:
    if count == 1:
        return [f"{part}.safetensors"]
    return [f"{part}-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]


def _header(specs: Sequence[TensorSpec]) -> bytes:
    """Build what stands before the tensors."""
    # transformers asks for the format by this name.
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for spec in specs:
        start, end = end, end + spec.num_bytes
        entries[spec.name] = {
            "dtype": DTYPES[str(spec.dtype).removeprefix("torch.")], "shape": list(spec.shape),
            "data_offsets": [start, end],
        }  # fmt: skip
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight, as the library's do
    return len(text).to_bytes(8, "little") + text
