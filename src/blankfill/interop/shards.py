"""Files of weights as tables of tensors that are read one at a time.

Opening a file reads names, shapes and places, no weights. A file of `torch.save` is opened with
`torch.load(weights_only=True, mmap=True)`, which knows tensors and plain containers and refuses
everything else. The mapped storages are never read; only their place in the archive is noted. A
tensor is later read with an ordinary `read`, so the process holds one tensor at a time. Bookkeeping
that training saves with the weights (random states, arguments) becomes an inert `_Ignored`.

A safetensors file is opened by its library, which checks the header against the file.
"""

from __future__ import annotations

import math
import pickle
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import torch

from blankfill.disk.pointer import is_pointer, pointer_sentence
from blankfill.errors import ConversionError
from blankfill.runs.tensors import DTYPES, read_header

__all__ = ["StoredTensor", "joined", "open_shard"]

_DTYPES: Final[dict[str, torch.dtype]] = {
    short: getattr(torch, name) for name, short in DTYPES.items()
}
_WRAPPERS = ("module", "model", "state_dict")
"""Keys under which training code puts the weights of a model (DeepSpeed, SAT, Lightning)."""
_BOOKKEEPING = ("numpy", "argparse", "deepspeed", "megatron", "apex", "sat", "SwissArmyTransformer")
"""Packages whose objects are saved with the weights of published checkpoints."""
_AGAIN = "download or copy it again"


@dataclass(frozen=True, slots=True)
class _Record:
    """One storage of a `torch.save` archive."""

    start: int
    num_bytes: int
    crc: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTensor:
    """A tensor in a file."""

    path: Path
    """The file."""
    name: str
    """Its name there."""
    dtype: torch.dtype
    """Its type there."""
    shape: tuple[int, ...]
    """Its shape."""
    stride: tuple[int, ...]
    """Steps between neighbours along each dimension, in elements."""
    offset: int
    """Byte of the file at which its first element starts."""
    record: _Record | None = None
    """The storage it lies in, where the file has checksums."""
    held: torch.Tensor | None = None
    """Its values, where the file's format can only be read whole (torch before 1.6)."""
    pieces: tuple[tuple[tuple[int, int], StoredTensor], ...] = ()
    """What several files hold of it, each with its first row and column; none where one file holds
    it."""

    def read(self) -> torch.Tensor:
        """Read the values.

        Raises:
            ConversionError: the file ends too early, or its checksum says that it was damaged.
        """
        if self.held is not None:
            return self.held
        if self.pieces:
            whole = torch.empty(self.shape, dtype=self.dtype)
            for begin, piece in self.pieces:
                spans = zip(begin, piece.shape, strict=False)  # a vector has no columns
                whole[tuple(slice(at, at + n) for at, n in spans)] = piece.read()
            return whole
        if math.prod(self.shape) == 0:
            return torch.empty(self.shape, dtype=self.dtype)
        length = 1 + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        flat = torch.empty(length, dtype=self.dtype)
        self._fill(flat.view(torch.uint8).numpy().data)
        return flat.as_strided(self.shape, self.stride).contiguous()

    def _fill(self, buffer: memoryview) -> None:
        done = 0
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.offset)
            while done < len(buffer):
                count = file.readinto(buffer[done:])
                if not count:
                    raise ConversionError(
                        f"{self.path} ends inside the tensor {self.name}: it is cut off; {_AGAIN}"
                    )
                done += count
        record = self.record
        whole = record is not None and (record.start, record.num_bytes) == (self.offset, done)
        # torch writes 0 where checksums were switched off.
        if record is not None and whole and record.crc and zlib.crc32(buffer) != record.crc:
            raise ConversionError(
                f"{self.path} is damaged: the tensor {self.name} does not have its checksum; "
                f"{_AGAIN}"
            )


def joined(
    shape: tuple[int, ...], pieces: Sequence[tuple[tuple[int, int], StoredTensor]]
) -> StoredTensor:
    """Give the tensor that several files hold some rows and columns of.

    Args:
        shape: of the whole tensor.
        pieces: what each of them has, with its first row and column.
    """
    first = pieces[0][1]
    return first if len(pieces) == 1 else replace(first, shape=shape, pieces=tuple(pieces))


def open_shard(path: Path) -> dict[str, StoredTensor]:
    """Read what tensors a file of `torch.save` or safetensors holds, and where.

    Raises:
        ConversionError: the file is damaged, is of neither kind, or wants to run code.
    """
    if not path.is_file():
        raise ConversionError(f"{path} is missing; {_AGAIN}")
    with path.open("rb") as file:
        start = file.read(64)
    if is_pointer(start):
        raise ConversionError(pointer_sentence(path))
    if start[:2] in (b"PK", b"\x80\x02"):
        return _open_torch(path, archive=start[:2] == b"PK")
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        return _open_safetensors(path)
    raise ConversionError(
        f"{path} is no file of torch.save or safetensors, or its start is damaged; {_AGAIN}"
    )


def _open_safetensors(path: Path) -> dict[str, StoredTensor]:
    try:
        header = read_header(path)
    except (OSError, ValueError) as error:
        raise ConversionError(
            f"{path} is cut off, damaged or no safetensors file ({error}); {_AGAIN}"
        ) from error
    tensors: dict[str, StoredTensor] = {}
    for name, entry in header.tensors.items():
        if entry.dtype not in _DTYPES:
            raise ConversionError(
                f"{path} holds {name} as {entry.dtype}, which blankfill does not read; "
                "save it as float32, float16 or bfloat16"
            )
        tensors[name] = StoredTensor(
            path=path, name=name, dtype=_DTYPES[entry.dtype], shape=entry.shape,
            stride=_contiguous(entry.shape), offset=entry.start,
        )  # fmt: skip
    return tensors


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


class _Ignored:
    """Takes the place of an object that is not needed; takes any arguments and does nothing."""

    def __new__(cls, *_args: object, **_kwargs: object) -> _Ignored:
        return object.__new__(cls)

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        """Take anything."""

    def __setstate__(self, _state: object) -> None:
        """Keep nothing."""


def _open_torch(path: Path, *, archive: bool) -> dict[str, StoredTensor]:
    if archive and not zipfile.is_zipfile(path):
        raise ConversionError(f"{path} is cut off: its table of contents is missing; {_AGAIN}")
    names = _check_globals(path) if archive else _USUAL
    ignored: list[Any] = [(_Ignored, name) for name in names]
    mapped: dict[int, int] = {}

    def stay(storage: Any, _location: str) -> Any:
        mapped[storage.data_ptr()] = storage.nbytes()
        return storage

    try:
        with torch.serialization.safe_globals(ignored):
            loaded: object = torch.load(path, map_location=stay, weights_only=True, mmap=archive)
    except pickle.UnpicklingError as error:
        raise _refused(path, str(error).split("\n", 1)[0]) from error
    except Exception as error:  # torch reports a damaged file with many types of exceptions
        reason = str(error).split("\n", 1)[0]
        raise ConversionError(f"{path} cannot be read ({reason}); {_AGAIN}") from error
    state = _state_dict(path, loaded)
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    if not archive:
        return {name: _held(path, name, value) for name, value in tensors.items()}
    places = _places(path, mapped)
    stored: dict[str, StoredTensor] = {}
    for name, value in tensors.items():
        record = places[value.untyped_storage().data_ptr()]
        stored[name] = StoredTensor(
            path=path, name=name, dtype=value.dtype, shape=tuple(value.shape),
            stride=tuple(value.stride()), record=record,
            offset=record.start + int(value.storage_offset()) * value.dtype.itemsize,
        )  # fmt: skip
    return stored


_USUAL = (
    "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.ndarray",
    "numpy.dtype", "argparse.Namespace",
)  # fmt: skip


def _check_globals(path: Path) -> list[str]:
    """List the classes other than tensors that the pickle names, if all are bookkeeping."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception as error:  # an opcode it does not know, or no pickle inside the archive
        raise ConversionError(f"{path} is no file of torch.save ({error}); {_AGAIN}") from error
    for name in sorted(names):
        if name.split(".")[0] not in _BOOKKEEPING:
            raise _refused(path, name)
    return names


def _refused(path: Path, what: str) -> ConversionError:
    return ConversionError(
        f"{path} holds more than weights and would run code when unpickled ({what}); it was not "
        "opened: take the safetensors files, or have the state dict saved alone"
    )


def _state_dict(path: Path, loaded: object) -> Mapping[str, object]:
    """Find the weights: the dictionary itself, or the one under `module`."""
    while isinstance(loaded, Mapping):
        content = cast("Mapping[str, object]", loaded)
        inner = [content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inner:
            return content
        loaded = inner[0]
    raise ConversionError(
        f"{path} holds a {type(loaded).__name__} and not a dictionary of tensors; save the "
        "model's state dict"
    )


def _held(path: Path, name: str, value: torch.Tensor) -> StoredTensor:
    return StoredTensor(
        path=path, name=name, dtype=value.dtype, shape=tuple(value.shape),
        stride=tuple(value.stride()), offset=0, held=value.detach(),
    )  # fmt: skip


def _places(path: Path, mapped: dict[int, int]) -> dict[int, _Record]:
    """Find the record of the archive that each mapped storage is.

    The archive is mapped as a whole and every storage in it is loaded, so that in the order of
    their addresses the storages are the records in the order in which they lie in the file.

    Args:
        path: the archive.
        mapped: address and size of every storage that was loaded.
    """
    records = _records(path)
    addresses = sorted(address for address, size in mapped.items() if size)
    places = dict(zip(addresses, records, strict=False))
    base = addresses[0] - records[0].start if addresses and records else 0
    fits = len(addresses) == len(records) and all(
        (address - base, mapped[address]) == (record.start, record.num_bytes)
        for address, record in places.items()
    )
    if not fits:
        raise ConversionError(f"{path} is damaged: its tensors are not its records; {_AGAIN}")
    return places | {address: _Record(0, 0, 0) for address, size in mapped.items() if not size}


def _records(path: Path) -> list[_Record]:
    """List the storages of a `torch.save` archive in the order in which they lie in the file."""
    found: list[_Record] = []
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for entry in archive.infolist():
            if "/data/" not in entry.filename or not entry.file_size:
                continue
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ConversionError(f"{path} was compressed anew; unpack it and zip it as torch "
                                      "does, without compression")  # fmt: skip
            file.seek(entry.header_offset + 26)
            lengths = file.read(4)
            name, extra = lengths[:2], lengths[2:]
            start = entry.header_offset + 30
            start += int.from_bytes(name, "little") + int.from_bytes(extra, "little")
            found.append(_Record(start, entry.file_size, entry.CRC))
    return sorted(found, key=lambda record: record.start)
