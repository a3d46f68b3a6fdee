"""The header of a safetensors file (format of safetensors 0.5), for what writes one by itself.

Eight bytes with the header's length, little-endian; the header, JSON with dtype, shape and byte
range of every tensor; then the tensors, little-endian, without a gap.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

__all__ = ["DTYPES", "safetensors_header"]

DTYPES: Final = {
    "torch.float64": "F64", "torch.float32": "F32", "torch.float16": "F16",
    "torch.bfloat16": "BF16", "torch.int64": "I64", "torch.int32": "I32", "torch.int16": "I16",
    "torch.int8": "I8", "torch.uint8": "U8", "torch.bool": "BOOL",
}  # fmt: skip
"""How safetensors names each torch dtype, by the dtype's own name."""


def safetensors_header(
    tensors: Iterable[tuple[str, str, Iterable[int], int]], metadata: dict[str, str] | None = None
) -> bytes:
    """Build what stands before the tensors.

    Args:
        tensors: name, dtype as in `DTYPES`, shape and bytes of each, in the order of the file.
        metadata: free text beside them.
    """
    entries: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, dtype, shape, num_bytes in tensors:
        start, end = end, end + num_bytes
        entries[name] = {
            "dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [start, end],
        }  # fmt: skip
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight, as the library's do
    return len(text).to_bytes(8, "little") + text
