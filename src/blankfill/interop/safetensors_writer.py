"""Write safetensors files one tensor at a time, so that memory holds one tensor and not a model.

Shapes and dtypes are known before any weight is read, so the header goes first and the tensors
follow in its order.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import torch

from blankfill.checkpoint.safetensors_header import DTYPES, safetensors_header

__all__ = ["DTYPE_NAMES", "SafetensorsWriter", "TensorSpec"]

DTYPE_NAMES: Final[dict[torch.dtype, str]] = {
    getattr(torch, name.removeprefix("torch.")): short for name, short in DTYPES.items()
}
"""How safetensors names the dtypes that checkpoints hold."""

CHUNK_BYTES = 32 * 1024 * 1024
"""Most bytes that are converted and hashed at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """What the header says about one tensor."""

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


class SafetensorsWriter:
    """A safetensors file that is being written.

        with SafetensorsWriter(path, specs) as writer:
            for spec in specs:
                writer.write(spec.name, tensor)
        writer.sha256                       # of the whole file

    Leaving the block without having written every tensor is an error of the caller.
    """

    def __init__(
        self, path: Path, specs: Sequence[TensorSpec], metadata: dict[str, str] | None = None
    ) -> None:
        """Open the file and write its header.

        Args:
            path: the file; replaced where it exists.
            specs: the tensors, in the order in which they will be written.
            metadata: free text beside them.
        """
        self.path = path
        self.sha256 = ""
        self.num_bytes = 0
        self._hash = hashlib.sha256()
        self._waiting = {spec.name: spec for spec in specs}
        assert len(self._waiting) == len(specs), "two tensors of one name"
        self._file: IO[bytes] = path.open("wb")
        tensors = ((spec.name, str(spec.dtype), spec.shape, spec.num_bytes) for spec in specs)
        self._put(safetensors_header(tensors, {"format": "pt", **(metadata or {})}))

    def __enter__(self) -> SafetensorsWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self._file.flush()
            os.fsync(self._file.fileno())  # it is on the disk before its folder gets its name
        finally:
            with suppress(OSError):  # a full disk refuses what is left a second time
                self._file.close()
        self.sha256 = self._hash.hexdigest()
        assert kind is not None or not self._waiting, f"not written: {list(self._waiting)[:3]}"

    def write(self, name: str, tensor: torch.Tensor) -> str:
        """Write the next tensor, converted to its dtype on disk a stretch of rows at a time.

        Args:
            name: the first name of `specs` that was not written yet.
            tensor: its values, of any dtype.

        Returns:
            SHA-256 of its bytes on disk.
        """
        expected = next(iter(self._waiting.values()))
        assert (expected.name, expected.shape) == (name, tuple(tensor.shape)), (expected, name)
        del self._waiting[name]
        digest = hashlib.sha256()
        flat = tensor.detach().contiguous().reshape(-1)
        step = CHUNK_BYTES // expected.dtype.itemsize
        for start in range(0, flat.numel(), step):
            part = flat[start : start + step].to(expected.dtype)
            data = part.view(torch.uint8).numpy().data
            digest.update(data)
            self._put(data)
        return digest.hexdigest()

    def _put(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self._file.write(data)
        self.num_bytes += len(data)
