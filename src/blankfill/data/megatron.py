"""Megatron's indexed datasets: `PREFIX.bin` holds the ids, `PREFIX.idx` where each begins.

Megatron's `.bin` is ids one after another, little-endian, as a store's `tokens.bin` is; so all that
Megatron lacks of a store is the index. It is (facts of `IndexedDataset`, Megatron-LM,
`megatron/core/datasets/indexed_dataset.py`), little-endian, without padding:

    9 bytes     MMIDIDX and two NULs
    uint64      version, 1
    uint8       type of an id: 1 uint8, 2 int8, 3 int16, 4 int32, 5 int64, 8 uint16 (6 and 7 floats)
    uint64      n, sequences
    uint64      m, documents and 1
    int32[n]    ids of each sequence
    int64[n]    byte in the .bin where each begins
    int64[m]    sequence with which each document begins, and n
    int8[n]     a mode of each sequence, in multimodal sets only

A store's document is one sequence. Ids of 4 bytes are int32 there: none is as large as 2^31.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from blankfill.atomic import new_file
from blankfill.data.manifest import MEGATRON_INDEX
from blankfill.data.shard import Shard
from blankfill.data.store import TokenStore
from blankfill.disk.pointer import is_pointer, pointer_sentence
from blankfill.disk.publish import refused_by_disk
from blankfill.errors import DataError

__all__ = ["MegatronPair", "open_pair", "write_index"]

_MAGIC = b"MMIDIDX\0\0"
_HEAD = struct.Struct("<9sQBQQ")
_TYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
_CODES = {"<u2": 8, "<u4": 4}
_LONGEST = 2**31 - 1


def write_index(store: TokenStore) -> list[Path]:
    """Write `tokens.idx` beside the `tokens.bin` of each shard of a store.

    Returns:
        Each path without its suffix, as Megatron takes it.

    Raises:
        DataError: a document is too long for Megatron's index, or the store lies elsewhere.
        OutputError: the folder cannot be written.
    """
    if store.address is not None:
        raise DataError(
            f"{store.address} lies elsewhere, and an index stands beside the ids; copy the store "
            "to this machine and name that folder"
        )
    return [
        _write_index(store.path / entry.name, store.shard(k), entry.dtype)
        for k, entry in enumerate(store.entries)
    ]


def _write_index(folder: Path, shard: Shard, dtype: str) -> Path:
    lengths = np.diff(shard.offsets)
    if len(lengths) and int(lengths.max()) > _LONGEST:
        raise DataError(
            f"document {int(lengths.argmax())} of {folder} has {int(lengths.max()):,} tokens, "
            "more than an index of Megatron can say (2^31 - 1)"
        )
    count = len(lengths)
    places = np.asarray(shard.offsets[:-1]) * np.dtype(dtype).itemsize
    index = b"".join(
        [
            _HEAD.pack(_MAGIC, 1, _CODES[dtype], count, count + 1),
            lengths.astype("<i4").tobytes(),
            places.astype("<i8").tobytes(),
            np.arange(count + 1, dtype="<i8").tobytes(),
        ]
    )
    with refused_by_disk(folder), new_file(folder / MEGATRON_INDEX) as temporary:
        temporary.write_bytes(index)
    return folder / Path(MEGATRON_INDEX).stem


class MegatronPair(NamedTuple):
    """An indexed dataset of Megatron, mapped."""

    path: Path
    """Of both files, without a suffix."""
    data: npt.NDArray[np.uint8]
    """The bytes of the .bin."""
    dtype: str
    """Type of an id."""
    lengths: npt.NDArray[np.int32]
    """`[n]` ids of each sequence."""
    places: npt.NDArray[np.int64]
    """`[n]` byte where each begins."""
    documents: npt.NDArray[np.int64]
    """`[m]` sequence with which each document begins, and n."""

    @property
    def num_documents(self) -> int:
        """Documents."""
        return len(self.documents) - 1

    def read(self) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the ids of each document, its sequences joined."""
        for first, end in zip(
            self.documents[:-1].tolist(), self.documents[1:].tolist(), strict=True
        ):
            parts = [
                self.data[place : place + size * np.dtype(self.dtype).itemsize].view(self.dtype)
                for place, size in zip(
                    self.places[first:end].tolist(), self.lengths[first:end].tolist(), strict=True
                )
            ]
            yield np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)


def open_pair(path: str | Path) -> MegatronPair:
    """Open an indexed dataset.

    Args:
        path: of either file, or of both without a suffix.

    Raises:
        DataError: a file is missing, is no such file, or the two do not belong together.
    """
    path = Path(path)
    if path.suffix in (".bin", ".idx"):
        path = path.with_suffix("")
    index, data = (path.with_name(path.name + suffix) for suffix in (".idx", ".bin"))
    for file in (index, data):
        if not file.is_file():
            raise DataError(
                f"there is no {file}; a dataset of Megatron is two files, {path.name}.bin and "
                f"{path.name}.idx"
            )
        if is_pointer(file):
            raise DataError(pointer_sentence(file))
    try:
        return _checked(MegatronPair(path, _map(data), *_read_index(index)))
    except ValueError as error:
        raise DataError(f"{index} cannot be used: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from error


def _map(path: Path) -> npt.NDArray[np.uint8]:
    if not path.stat().st_size:
        return np.zeros(0, np.uint8)  # an empty file cannot be mapped
    return np.memmap(path, np.uint8, "r").view(np.ndarray)


def _read_index(path: Path) -> tuple[str, Any, Any, Any]:
    data = _map(path)
    if len(data) < _HEAD.size or data[: len(_MAGIC)].tobytes() != _MAGIC:
        raise ValueError("it is not an index of Megatron")
    _, version, code, n, m = _HEAD.unpack(data[: _HEAD.size].tobytes())
    if version != 1:
        raise ValueError(f"its version is {version}, and 1 is known")
    if code not in _TYPES:
        raise ValueError(f"its type of an id is {code}, which is none of whole numbers")
    size = _HEAD.size + 12 * n + 8 * m
    if len(data) not in (size, size + n):
        raise ValueError(
            f"it has {len(data):,} bytes, and {n:,} sequences in {m - 1:,} documents take {size:,}"
        )
    lengths, places = _HEAD.size + 4 * n, _HEAD.size + 12 * n
    return (
        _TYPES[code],
        np.frombuffer(data[_HEAD.size : lengths].tobytes(), "<i4"),
        np.frombuffer(data[lengths:places].tobytes(), "<i8"),
        np.frombuffer(data[places:size].tobytes(), "<i8"),
    )


def _checked(pair: MegatronPair) -> MegatronPair:
    documents, n = pair.documents, len(pair.lengths)
    if (
        not len(documents)
        or documents[0] != 0
        or documents[-1] != n
        or (np.diff(documents) < 0).any()
    ):
        raise ValueError("its documents are not made of its sequences, in order")
    if not n:
        return pair
    width = np.dtype(pair.dtype).itemsize
    ends = pair.places + pair.lengths.astype(np.int64) * width
    if pair.lengths.min() < 0 or pair.places.min() < 0 or (pair.places % width).any():
        raise ValueError("it places sequences where none can be")
    if int(ends.max()) > len(pair.data):
        raise ValueError(
            f"its sequences end at byte {int(ends.max()):,}, and {pair.path.name}.bin has "
            f"{len(pair.data):,}: it is cut off, or another's"
        )
    return pair
