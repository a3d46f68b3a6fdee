"""What was drawn for many documents: flat arrays with offsets, to be taken apart and joined.

Ragged data is stored flat: the spans of document i are `first[i] : first[i + 1]`.

Shapes: n documents (or pieces), S spans of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from blankfill.objective.batch import Bool, End, Int64, UInt8

__all__ = [
    "Drawn",
    "Placed",
    "gather",
    "join",
    "join_drawn",
    "offsets",
    "ranks",
    "sums",
    "take_groups",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """What was drawn for n documents, before short spans are placed. Needs lengths, no tokens."""

    numbers: Int64
    """`[n]` number of each document, the address of its draws."""
    num_tokens: Int64
    """`[n]`."""
    kinds: UInt8
    """`[n]` what is cut out."""
    drawn_kinds: UInt8
    """`[n]` the kind that was drawn; another than `kinds` where the document cannot take it."""
    frames: UInt8
    """`[n]` tokens of the frame around each text: none, an opening one, or a closing one too."""
    first: Int64
    """`[n + 1]` offsets of the documents' spans."""
    lengths: Int64
    """`[S]` tokens of each span, short ones in the order in which they were drawn."""
    starts: Int64
    """`[S]` first token of each span in its document; -1 where it is yet to be placed."""
    ends: UInt8
    """`[n]` the `End` of each document's spans."""

    @property
    def example_lengths(self) -> Int64:
        """`[n]` positions of each example: every token, its frame's, and two for each span."""
        return self.num_tokens + self.frames + 2 * np.diff(self.first) - (self.ends == End.NONE)

    def take(self, selection: Int64) -> Drawn:
        """Return some of the documents, in the given order."""
        first, spans = take_groups(self.first, selection)
        return Drawn(
            numbers=self.numbers[selection], num_tokens=self.num_tokens[selection],
            kinds=self.kinds[selection], drawn_kinds=self.drawn_kinds[selection],
            frames=self.frames[selection], first=first, lengths=self.lengths[spans],
            starts=self.starts[spans], ends=self.ends[selection],
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """The blanks of n documents, ready to be built."""

    drawn: Drawn
    """Kinds, ends and offsets."""
    spans: Int64
    """`[S, 2]` half-open token ranges, sorted within each document."""
    order: Int64
    """`[S]` for each document the numbers of its spans in the order of Part B."""
    shifts: Int64
    """`[n]` offset of each example's text positions."""
    pinned: Bool
    """`[n]` which pairs keep their whole answer at the mask's position (`pair_positions`)."""
    dropped: Bool | None
    """`[inputs of Part B]` which of them `dblock` replaces; None where none is."""

    @property
    def num_inputs(self) -> Int64:
        """`[n]` inputs of each example's Part B."""
        drawn = self.drawn
        part_a = drawn.num_tokens + drawn.frames + np.diff(drawn.first)
        return drawn.example_lengths - part_a + sums(drawn.lengths, drawn.first)

    def take(self, selection: Int64) -> Placed:
        """Return some of the documents, in the given order."""
        _, spans = take_groups(self.drawn.first, selection)
        dropped = self.dropped
        if dropped is not None:
            dropped = dropped[take_groups(offsets(self.num_inputs), selection)[1]]
        return Placed(
            drawn=self.drawn.take(selection), spans=self.spans[spans], order=self.order[spans],
            shifts=self.shifts[selection], pinned=self.pinned[selection], dropped=dropped,
        )  # fmt: skip


def join_drawn(parts: Sequence[Drawn]) -> Drawn:
    """Put the documents of several draws one after another."""
    if len(parts) == 1:
        return parts[0]
    return Drawn(
        numbers=np.concatenate([part.numbers for part in parts]),
        num_tokens=np.concatenate([part.num_tokens for part in parts]),
        kinds=np.concatenate([part.kinds for part in parts]),
        drawn_kinds=np.concatenate([part.drawn_kinds for part in parts]),
        frames=np.concatenate([part.frames for part in parts]),
        first=offsets(np.concatenate([np.diff(part.first) for part in parts])),
        lengths=np.concatenate([part.lengths for part in parts]),
        starts=np.concatenate([part.starts for part in parts]),
        ends=np.concatenate([part.ends for part in parts]),
    )


def join(parts: Sequence[Placed]) -> Placed:
    """Put the placed documents of several calls one after another."""
    if len(parts) == 1:
        return parts[0]
    joined = Placed(
        drawn=join_drawn([part.drawn for part in parts]),
        spans=np.concatenate([part.spans for part in parts]),
        order=np.concatenate([part.order for part in parts]),
        shifts=np.concatenate([part.shifts for part in parts]),
        pinned=np.concatenate([part.pinned for part in parts]),
        dropped=None,
    )
    if all(part.dropped is None for part in parts):
        return joined
    dropped = [
        np.zeros(int(part.num_inputs.sum()), bool) if part.dropped is None else part.dropped
        for part in parts
    ]
    return replace(joined, dropped=np.concatenate(dropped))


def take_groups(first: Int64, selection: Int64) -> tuple[Int64, Int64]:
    """Find the entries of some groups: their new offsets, and the index of each entry."""
    counts = np.diff(first)[selection]
    new = offsets(counts)
    return new, np.repeat(first[:-1][selection], counts) + ranks(new)


def ranks(first: Int64) -> Int64:
    """Number the entries of each group from 0: offsets `[n + 1]` to `[first[-1]]`."""
    return np.arange(first[-1]) - np.repeat(first[:-1], np.diff(first))


def offsets(counts: npt.NDArray[np.integer]) -> Int64:
    """Turn `[n]` sizes of groups into their `[n + 1]` offsets."""
    first = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=first[1:])
    return first


def sums(values: npt.NDArray[np.generic], first: Int64) -> Int64:
    """Sum each group; empty groups sum to 0."""
    total = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=total[1:])
    return total[first[1:]] - total[first[:-1]]


def gather(source: npt.NDArray[Any], starts: Int64, sizes: Int64) -> npt.NDArray[Any]:
    """Copy stretches `[starts, starts + sizes)` of an array one after another."""
    ends = np.cumsum(sizes)
    index = np.repeat(starts - ends + sizes, sizes)
    index += np.arange(len(index))
    return source.take(index)
