"""Bytes of plain, gzip and zstd files, in blocks of bounded size.

Compression is recognised by a file's first bytes, not by its name. Several gzip members or zstd
frames follow each other as one stream. Where a file is damaged or cut off, everything before the
damage is given first and `DamagedFileError` comes after it: the standard readers raise first and
lose what they had.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

__all__ = ["DamagedFileError", "is_packed", "read_blocks"]

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_BLOCK_BYTES = 1 << 18
_GZIP_STEP = 1 << 15
# 4 bytes of zstd can say "128 KiB of one byte": small steps bound what one of them unpacks to.
_ZSTD_STEP = 1 << 10
_ZSTD_WINDOW = 1 << 27  # what `zstd --long` uses; a larger window would need too much memory


class DamagedFileError(Exception):
    """A compressed file ends early or fails its checks; what came before it was good."""


def is_packed(head: bytes) -> bool:
    """Tell from a file's first four bytes whether it is compressed."""
    return head[:2] == _GZIP_MAGIC or head == _ZSTD_MAGIC


def read_blocks(file: BinaryIO) -> Iterator[bytes]:
    """Read a file's bytes, unpacked.

    Args:
        file: open at its start; need not be seekable.

    Yields:
        Non-empty blocks of at most 256 KiB.

    Raises:
        DamagedFileError: after all that could be unpacked.
    """
    head = _read(file, 4)
    if head[:2] == _GZIP_MAGIC:
        yield from _gunzip(file, head)
    elif head == _ZSTD_MAGIC:
        yield from _unzstd(file, head)
    else:
        if head:
            yield head
        while block := file.read(_BLOCK_BYTES):
            yield block


def _read(file: BinaryIO, size: int) -> bytes:
    """Read exactly `size` bytes unless the file ends: pipes give what they have."""
    out = b""
    while len(out) < size and (more := file.read(size - len(out))):
        out += more
    return out


def _gunzip(file: BinaryIO, head: bytes) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(wbits=31)
    data = head
    while True:
        while data:
            if unpacker.eof:  # another member, zeros that tar or a tape appends, or other bytes
                data = data.lstrip(b"\0")
                if not data:
                    break
                if len(data) < 2:
                    data += _read(file, 2 - len(data))
                if data[:2] != _GZIP_MAGIC:
                    raise DamagedFileError("there are other bytes after the gzip data")
                unpacker = zlib.decompressobj(wbits=31)
            good = unpacker.copy().decompress
            try:
                block = unpacker.decompress(data, _BLOCK_BYTES)
            except zlib.error as error:
                yield from _salvage(good, data)
                raise DamagedFileError(f"the gzip data is damaged ({_reason(error)})") from error
            if block:
                yield block
            data = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
        data = file.read(_GZIP_STEP)
        if not data:
            break
    # What is left inside the unpacker once its input is used up.
    while not unpacker.eof and (block := unpacker.decompress(b"", _BLOCK_BYTES)):
        yield block
    if not unpacker.eof:
        raise DamagedFileError("the gzip data is cut off")


def _salvage(decompress: Callable[[bytes], bytes], data: bytes) -> Iterator[bytes]:
    """Unpack byte by byte up to the damage."""
    for i in range(len(data)):
        try:
            block = decompress(data[i : i + 1])
        except zlib.error:
            return
        if block:
            yield block


def _reason(error: Exception) -> str:
    return str(error).rpartition(": ")[2] or type(error).__name__


def _unzstd(file: BinaryIO, head: bytes) -> Iterator[bytes]:
    import zstandard

    unpackers = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    unpacker = unpackers.decompressobj()
    stream = io.BufferedReader(_Prefixed(head, file), _BLOCK_BYTES)
    in_frame = False
    while data := stream.read1(_ZSTD_STEP):
        while data:
            if unpacker.eof:
                unpacker, in_frame = unpackers.decompressobj(), False
            try:
                block = unpacker.decompress(data)
            except (zstandard.ZstdError, MemoryError) as error:
                where = "" if in_frame else " or there are other bytes after it"
                raise DamagedFileError(f"the zstd data is damaged{where}") from error
            in_frame = True
            for start in range(0, len(block), _BLOCK_BYTES):
                yield block[start : start + _BLOCK_BYTES]
            data = unpacker.unused_data if unpacker.eof else b""
    if not unpacker.eof:
        raise DamagedFileError("the zstd data is cut off")


class _Prefixed(io.RawIOBase):
    """A file whose first bytes were already read."""

    def __init__(self, head: bytes, file: BinaryIO):
        self._head, self._file = head, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]  # BufferedReader gives a memoryview
        data = self._head or self._file.read(len(buffer))
        taken = data[: len(buffer)]
        buffer[: len(taken)] = taken
        self._head = data[len(taken) :] if self._head else b""
        return len(taken)
