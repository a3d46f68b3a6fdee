"""What kind of data bytes are, by how they begin: text, JSON, a table, or something not read.

The kind is found from the unpacked content, because a name can be misleading: an archive of texts
is called `texts.tar.gz`, and a PDF may be called `a.txt`. Sources of the signatures: file(1)'s
magic, and the formats' own documents.
"""

from __future__ import annotations

import re
from typing import Literal

from blankfill.disk.pointer import is_pointer
from blankfill.text.compressed import DamagedFileError, read_blocks

__all__ = [
    "HEAD_BYTES",
    "blank_length",
    "foreign_kind",
    "kind_of_file",
    "looks_like_json",
    "table_kind",
]

HEAD_BYTES = 8192
"""Bytes of a file that are examined for its kind; git looks for NUL bytes in as many."""

_UNPACK = "unpack it and name the folder"
_CONVERT = "convert it to text"
# Start, what it is, the way out.
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a ZIP archive or an office document", f"unzip it, or {_CONVERT}"),
    (b"PK\x05\x06", "a ZIP archive", "it is empty"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", f"{_UNPACK}: 7z x"),
    (b"Rar!\x1a\x07", "a RAR archive", f"{_UNPACK}: unrar x"),
    (b"\xfd7zXZ\0", "xz data that was packed twice", "unpack it once: unxz"),
    (b"\x04\x22\x4d\x18", "lz4 data", "unpack it: unlz4"),
    (b"\x1f\x9d", "compress data", "unpack it: uncompress"),
    (b"\x1f\x8b", "gzip data that was packed twice", "unpack it once: gunzip"),
    (b"\x28\xb5\x2f\xfd", "zstd data that was packed twice", "unpack it once: unzstd"),
    (b"!<arch>\n", "an ar archive", f"{_UNPACK}: ar x"),
    (b"%PDF-", "a PDF document", f"{_CONVERT}: pdftotext"),
    (b"{\\rtf", "an RTF document", _CONVERT),
    (b"\xd0\xcf\x11\xe0", "an office document", _CONVERT),
    (b"\x89PNG", "a picture", ""),
    (b"\xff\xd8\xff", "a picture", ""),
    (b"GIF8", "a picture", ""),
    (b"\x7fELF", "a program", ""),
    (b"SQLite format 3\0", "an SQLite database", "export its text"),
    (b"\x93NUMPY", "a NumPy array", ""),
    (b"\x89HDF\r\n", "HDF5 data", "export its text"),
    (b"Obj\x01", "Avro data", "export it as JSON lines or Parquet"),
    (b"FEA1", "a Feather file of version 1", "write it as version 2, or as Parquet"),
)
_BZIP2 = re.compile(rb"BZh[1-9]1AY&SY")  # the whole signature: "BZh" alone can begin a word
_TAR_MAGIC, _TAR_PLACE = b"ustar", 257
_BLANK = re.compile(
    # White space of Unicode and byte order marks.
    rb"(?:[\t-\r\x1c-\x20]++|\xef\xbb\xbf|\xc2[\x85\xa0]|\xe1\x9a\x80"
    rb"|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f|\xe3\x80\x80)*+"
)
_ARRAY = re.compile(rb"\[\s*(?:[{\"\]]|\[\s*[{\"\[\]]|$)")


def blank_length(data: bytes | bytearray) -> int:
    """Count the bytes of white space and byte order marks at the start."""
    found = _BLANK.match(data)
    return found.end() if found else 0


def looks_like_json(start: bytes) -> bool:
    """Tell JSON from text by its first bytes that are not blank."""
    return start[:1] == b"{" or _ARRAY.match(start) is not None


def table_kind(head: bytes) -> Literal["", "parquet", "arrow file", "arrow stream"]:
    """Tell the tables that are read: Parquet and Arrow's two formats.

    An Arrow stream starts with the mark that a message follows and the message's length, a file
    with a name (Arrow columnar format, "Serialization and Interprocess Communication").
    """
    if head[:4] == b"PAR1":
        return "parquet"
    if head[:6] == b"ARROW1":
        return "arrow file"
    if head[:4] == b"\xff\xff\xff\xff" and len(head) >= 8:
        return "arrow stream"
    return ""


def foreign_kind(head: bytes) -> str:
    """Name what is no text and no table, with the way out; "" where it may be text."""
    start = head[blank_length(head) :]
    for magic, name, cure in _SIGNATURES:
        if start.startswith(magic) or head.startswith(magic):
            return f"{name} ({cure})" if cure else name
    if is_pointer(start):
        return "a Git LFS pointer (the data itself is missing: git lfs pull)"
    if _BZIP2.match(head):
        return "bzip2 data that was packed twice (unpack it once: bunzip2)"
    if head[_TAR_PLACE:].startswith(_TAR_MAGIC):
        return f"a tar archive ({_UNPACK}: tar xf)"
    return ""


def kind_of_file(path: str) -> str:
    """Name what a file of an unknown suffix is; "" where that cannot be told."""
    head = b""
    try:
        with open(path, "rb") as file:
            for block in read_blocks(file):
                head += block
                if len(head) >= HEAD_BYTES:
                    break
    except (OSError, DamagedFileError):
        pass
    return foreign_kind(head)
