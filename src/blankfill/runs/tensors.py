"""Tensors in safetensors files: one way to write them, one way to read them.

A part of a checkpoint (`model`, `optimizer`, `ema`) is one file, or several where it is large or
where several processes wrote it:

    model.safetensors
    model-00001-of-00003.safetensors, ...

Format (safetensors 0.5): eight bytes with the header's length, little-endian; the header, JSON with
dtype, shape and byte range of every tensor; then the tensors, little-endian, without a gap. A file
that holds parts of its tensors says in the header where each begins, in the words of
torch.distributed.checkpoint, whose `HuggingFaceStorageReader` reads them as well. `parts.py` reads
either kind.

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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

from blankfill.disk.names import readable_name
from blankfill.errors import CheckpointError

if TYPE_CHECKING:
    import torch

__all__ = [
    "DTYPES",
    "OFFSETS",
    "SHARDING",
    "Digest",
    "Header",
    "HeaderEntry",
    "SavedFile",
    "TensorSpec",
    "TensorWriter",
    "load_tensors",
    "read_header",
    "read_tensors",
    "write_tensors",
]

DTYPES: Final = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64",
    "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
"""How safetensors names each dtype of torch, by the dtype's own name."""
SHARDING, OFFSETS = "DCP_SHARDING_INFO", "saved_offsets"
"""Where a header says at which row and column each tensor begins (torch
`checkpoint/_hf_utils.py`)."""
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
    begin: tuple[int, ...] | None = None
    """Where these values begin in a larger tensor, along each dimension; None where it is whole."""

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
        shard: tuple[int, int] | None = None,
    ) -> None:
        """Open the first file and write its header.

        Args:
            folder: where to; a file of the same name is replaced.
            part: what the files are called by, such as `model`.
            specs: the tensors, in the order in which they will be written.
            max_file_bytes: most bytes of tensors in a file; a tensor that is larger has a file of
                its own. One file where not given.
            shard: which of how many writers of the part this is, counted from 1; each writes one
                file. The only one where not given.
        """
        self.files: dict[str, SavedFile] = {}
        """Size and SHA-256 of the files that are finished, by name."""
        self.places: dict[str, str] = {}
        """The file of each tensor, by the tensor's name."""
        self._folder = folder
        groups = _in_files(specs, max_file_bytes)
        names = _file_names(part, len(groups))
        if shard is not None:
            names = [_file_names(part, shard[1])[shard[0] - 1]]
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


@dataclass(frozen=True, kw_only=True, slots=True)
class HeaderEntry:
    """What a file's header says of one tensor."""

    dtype: str
    """Its type, as safetensors names it."""
    shape: tuple[int, ...]
    """Its shape."""
    start: int
    """Byte of the file at which its values begin; they follow each other without a gap."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What stands before the tensors of a file."""

    tensors: dict[str, HeaderEntry]
    """The tensors by name."""
    said: dict[str, str]
    """What the file says of itself beside them."""


def read_header(path: Path) -> Header:
    """Read a file's header, and compare it with the length of the file.

    Raises:
        OSError, ValueError: it cannot be read, or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with readable_name(path) as name, safe_open(name, framework="pt"):
            pass  # the library has checked the header against the length of the file
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        found: dict[str, Any] = json.loads(file.read(length), object_pairs_hook=_unique)
    said = found.pop("__metadata__", {})
    tensors = {
        name: HeaderEntry(
            dtype=entry["dtype"], shape=tuple(entry["shape"]),
            start=8 + length + entry["data_offsets"][0],
        )
        for name, entry in found.items()
    }  # fmt: skip
    return Header(tensors=tensors, said=said)


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


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read all tensors of a file.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    return dict(read_tensors(path))


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
    said = {"format": "pt"}
    entries: dict[str, object] = {"__metadata__": said}
    if any(spec.begin is not None for spec in specs):
        offsets = {
            spec.name: {OFFSETS: list(spec.begin or [0] * len(spec.shape))} for spec in specs
        }
        said |= {SHARDING: json.dumps(offsets, separators=(",", ":")), "DCP_VERSION": "1.0"}
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


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it holds {next(n for n in names if names.count(n) > 1)} twice")
    return found
