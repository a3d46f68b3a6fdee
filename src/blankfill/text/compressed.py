"""Bytes of plain, gzip, bzip2, xz and zstd files, in blocks of bounded size.

Compression is recognised by a file's first bytes, not by its name. Several gzip members, bzip2 or
xz streams or zstd frames follow each other as one stream. Where a file is damaged or cut off,
everything before the damage is given first and `DamagedFileError` comes after it: the standard
readers raise first and lose what they had.
"""

from __future__ import annotations

import bz2
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Literal

__all__ = ["MAGIC_BYTES", "DamagedFileError", "is_packed", "read_blocks"]

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_XZ_MAGIC = b"\xfd7zXZ\0"
# "BZh" alone can begin a word; the first block, or the end of an empty file, follows.
_BZIP2_MAGIC = re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)", re.DOTALL)
MAGIC_BYTES = 10
"""Bytes that tell whether a file is compressed."""
_XZ_MEMORY = 1 << 30  # what `xz -9` makes needs 65 MiB; larger dictionaries up to this
_BLOCK_BYTES = 1 << 18
_GZIP_STEP = 1 << 15
# 4 bytes of zstd can say "128 KiB of one byte": small steps bound what one of them unpacks to, and
# of bzip2 and xz what is lost before damage.
_SMALL_STEP = 1 << 10
_ZSTD_WINDOW = 1 << 27  # what `zstd --long` uses; a larger window would need too much memory


class DamagedFileError(Exception):
    """A compressed file ends early or fails its checks; what came before it was good."""


def is_packed(head: bytes) -> bool:
    """Tell from a file's first `MAGIC_BYTES` bytes whether it is compressed."""
    return bool(head.startswith((_GZIP_MAGIC, _ZSTD_MAGIC, _XZ_MAGIC)) or _BZIP2_MAGIC.match(head))


def read_blocks(file: BinaryIO) -> Iterator[bytes]:
    """Read a file's bytes, unpacked.

    Args:
        file: open at its start; need not be seekable.

    Yields:
        Non-empty blocks of at most 256 KiB.

    Raises:
        DamagedFileError: after all that could be unpacked.
    """
    head = _read(file, MAGIC_BYTES)
    if head.startswith(_GZIP_MAGIC):
        yield from _gunzip(file, head)
    elif head.startswith(_ZSTD_MAGIC):
        yield from _unzstd(file, head)
    elif head.startswith(_XZ_MAGIC):
        yield from _unpack(file, head, "xz")
    elif _BZIP2_MAGIC.match(head):
        yield from _unpack(file, head, "bzip2")
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


def _unpack(file: BinaryIO, head: bytes, kind: Literal["bzip2", "xz"]) -> Iterator[bytes]:
    """Unpack the formats whose unpackers hold the input that they cannot use yet."""
    unpacker = _new_unpacker(kind)
    data = head
    while data or (data := file.read(_SMALL_STEP)):
        if unpacker.eof:  # another stream, zeros between streams, or other bytes
            data = data.lstrip(b"\0") if kind == "xz" else data
            if not data:
                continue
            data += _read(file, MAGIC_BYTES - len(data))
            if not is_packed(data):
                raise DamagedFileError(f"there are other bytes after the {kind} data")
            unpacker = _new_unpacker(kind)
        try:
            block = unpacker.decompress(data, _BLOCK_BYTES)
            while True:
                if block:
                    yield block
                if unpacker.eof or unpacker.needs_input:
                    break
                block = unpacker.decompress(b"", _BLOCK_BYTES)
        except (OSError, EOFError, lzma.LZMAError, MemoryError) as error:
            raise DamagedFileError(f"the {kind} data is damaged") from error
        data = unpacker.unused_data if unpacker.eof else b""
    if not unpacker.eof:
        raise DamagedFileError(f"the {kind} data is cut off")


def _new_unpacker(kind: Literal["bzip2", "xz"]) -> bz2.BZ2Decompressor | lzma.LZMADecompressor:
    if kind == "bzip2":
        return bz2.BZ2Decompressor()
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


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
    while data := stream.read1(_SMALL_STEP):
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
