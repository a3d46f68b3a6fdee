"""What the objective produces: one example, and a batch of packed rows.

Shapes: T length of an example or a row, B rows, K examples in a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

__all__ = [
    "IGNORE_INDEX",
    "PADDING_SEGMENT",
    "Batch",
    "Bool",
    "End",
    "Example",
    "Float32",
    "Int32",
    "Int64",
    "Kind",
    "UInt8",
]

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]

IGNORE_INDEX = -100
"""Target of a position that predicts nothing (torch's default `ignore_index`)."""
PADDING_SEGMENT = -1
"""Segment id of padding; padding sees padding of its own row and nothing else."""


class Kind(IntEnum):
    """What was cut out of a document."""

    SHORT = 0
    """Spans of a few tokens, each replaced by `[MASK]`."""
    SENTENCE = 1
    """Whole sentences, each replaced by `[sMASK]`."""
    DOCUMENT = 2
    """One long span, replaced by `[gMASK]`."""
    CAUSAL = 3
    """The whole text, replaced by `[gMASK]`; the prefix is empty."""
    PAIR = 4
    """An instruction's answer."""


class End(IntEnum):
    """What the targets of a span end in."""

    NONE = 0
    """Nothing: the text continues after the last target."""
    EOP = 1
    """The end of a span."""
    EOS = 2
    """The end of a document."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One document with its blanks: Part A, then Part B."""

    tokens: Int32
    """`[T]` input ids."""
    targets: Int32
    """`[T]` the id each position predicts; `IGNORE_INDEX` on Part A."""
    positions: Int32
    """`[2, T]` position in the text, position inside the span."""
    is_part_b: Bool
    """`[T]` false on Part A, then true."""
    weights: Float32
    """`[T]` loss weight of each target; 0 where there is none."""
    kind: Kind
    """What was cut out."""
    end: End
    """What each span's targets end in."""
    spans: Int32
    """`[S, 2]` half-open token ranges of the document that were cut out, sorted."""
    order: Int32
    """`[S]` the order in which Part B generates the spans."""

    @property
    def part_b_start(self) -> int:
        """Length of Part A."""
        return int(np.count_nonzero(~self.is_part_b))


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """B rows of T positions that hold K examples, none seeing another."""

    tokens: Int32
    """`[B, T]` input ids, `pad` after the last example."""
    targets: Int32
    """`[B, T]` target ids; `IGNORE_INDEX` on Part A and padding."""
    positions: Int32
    """`[B, 2, T]` both position ids; 0 on padding."""
    segment_ids: Int32
    """`[B, T]` number of the example inside its row; `PADDING_SEGMENT` on padding."""
    is_part_b: Bool
    """`[B, T]` true on Part B; false on padding."""
    weights: Float32
    """`[B, T]` loss weight of each target; 0 where there is none."""
    blocks: Int32
    """`[K, 4]` of each example: row, first position, first position of Part B, end."""
    kinds: UInt8
    """`[K]` the `Kind` of each example."""
    languages: UInt8
    """`[K]` language code of each example's document (`text.language`)."""
    documents: Int64
    """`[K]` index of each example's document in its store."""
    sources: Int32
    """`[K]` index of the store that each example came from."""

    @property
    def num_targets(self) -> int:
        """Positions that predict something."""
        return int(np.count_nonzero(self.targets != IGNORE_INDEX))
