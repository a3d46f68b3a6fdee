"""Muon over several processes: each matrix has one owner that makes its update orthogonal.

Momentum is kept by rows, like the parameter. The rows of an update travel to its owner, who has the
whole matrix for a moment, and the orthogonal rows travel back: two all-to-all exchanges among the
processes that hold a copy of the model together. Copies share the matrices out among them, and each
tells the others its own. The products are those of one process, on the same whole matrices.

Shapes: m rows of a matrix, of which this process keeps r; n columns.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist

from blankfill.optim.muon import orthogonalize
from blankfill.parallel.ranks import REPLICATE, SHARD, Ranks
from blankfill.parallel.rows import kept_rows

__all__ = ["OwnedMatrices", "owners_of"]

Shape = tuple[int, int]


def owners_of(shapes: Sequence[Shape], count: int) -> list[int]:
    """Give each matrix to the rank that has least to do so far, the largest ones first."""
    owners = [0] * len(shapes)
    load = [(0, rank) for rank in range(count)]
    work = [min(shape) ** 2 * max(shape) for shape in shapes]
    for k in sorted(range(len(shapes)), key=lambda k: (-work[k], k)):
        done, rank = heapq.heappop(load)
        owners[k] = rank
        heapq.heappush(load, (done + work[k], rank))
    return owners


class OwnedMatrices:
    """Makes updates orthogonal, each by its owner; an `Orthogonalizer` of kept rows.

    Args:
        shapes: `[m, n]` of the whole matrices, in the order of the updates.
        ranks: the processes.
    """

    def __init__(self, shapes: Sequence[Shape], ranks: Ranks) -> None:
        self._shapes, self._ranks, self._parts = list(shapes), ranks, ranks.layout.shard
        self._owners = [
            divmod(owner, self._parts) for owner in owners_of(self._shapes, ranks.count)
        ]

    def __call__(
        self, updates: Iterator[torch.Tensor], dtype: torch.dtype
    ) -> Iterator[tuple[torch.Tensor, int]]:
        """Give the kept rows of each orthogonal update, `[r, n]` in `dtype`."""
        kept = list(updates)
        assert len(kept) == len(self._shapes), "every matrix has a gradient in every step"
        wholes = self._collect(kept)
        made = {k: orthogonalize(matrix, dtype) for k, matrix in wholes.items()}
        pieces = self._return(made, kept, dtype)
        self._tell_copies(pieces, kept, dtype)
        for k, shape in enumerate(self._shapes):
            yield pieces[k], max(shape)

    def _of(self, replica: int, part: int | None = None) -> list[int]:
        """List the matrices that a copy, or one process of it, owns."""
        return [k for k, (r, p) in enumerate(self._owners) if r == replica and part in (None, p)]

    def _num_rows(self, k: int, part: int) -> int:
        rows = kept_rows(self._shapes[k][0], part, self._parts)
        return rows.stop - rows.start

    def _collect(self, kept: Sequence[torch.Tensor]) -> dict[int, torch.Tensor]:
        """Send kept rows to their owners; give the whole matrices that this process owns."""
        replica, part = self._ranks.replica, self._ranks.part
        sent = [[kept[k] for k in self._of(replica, to)] for to in range(self._parts)]
        mine = self._of(replica, part)
        sizes = [
            sum(self._num_rows(k, source) * self._shapes[k][1] for k in mine)
            for source in range(self._parts)
        ]
        received = self._exchange(sent, sizes, kept[0])
        rows: dict[int, list[torch.Tensor]] = {k: [] for k in mine}
        for source, flat in enumerate(received):
            heights = [self._num_rows(k, source) for k in mine]
            widths = [self._shapes[k][1] for k in mine]
            cut = flat.split([h * w for h, w in zip(heights, widths, strict=True)])
            for k, height, piece in zip(mine, heights, cut, strict=True):
                rows[k].append(piece.view(height, self._shapes[k][1]))
        return {k: torch.cat(pieces) for k, pieces in rows.items()}

    def _return(
        self, made: dict[int, torch.Tensor], kept: Sequence[torch.Tensor], dtype: torch.dtype
    ) -> dict[int, torch.Tensor]:
        """Send orthogonal rows back to where they are kept; give those of this process."""
        replica = self._ranks.replica
        sent = [
            [made[k][kept_rows(self._shapes[k][0], to, self._parts)] for k in made]
            for to in range(self._parts)
        ]
        owned = [self._of(replica, source) for source in range(self._parts)]
        sizes = [sum(kept[k].numel() for k in of_source) for of_source in owned]
        received = self._exchange(sent, sizes, kept[0].to(dtype))
        pieces: dict[int, torch.Tensor] = {}
        for of_source, flat in zip(owned, received, strict=True):
            cut = flat.split([kept[k].numel() for k in of_source])
            pieces |= {k: x.view(kept[k].shape) for k, x in zip(of_source, cut, strict=True)}
        return pieces

    def _exchange(
        self, sent: Sequence[Sequence[torch.Tensor]], sizes: Sequence[int], like: torch.Tensor
    ) -> list[torch.Tensor]:
        """Send lists of tensors to the processes of this copy; receive one flat tensor of each."""
        flat = [torch.cat([like.new_empty(0), *(x.reshape(-1) for x in to_one)]) for to_one in sent]
        received = like.new_empty(sum(sizes))
        # As bytes: not every backend sends every dtype.
        width = like.dtype.itemsize
        dist.all_to_all_single(
            received.view(torch.uint8), torch.cat(flat).view(torch.uint8),
            [size * width for size in sizes], [x.numel() * width for x in flat],
            group=self._group(SHARD),
        )  # fmt: skip
        return list(received.split(list(sizes)))

    def _tell_copies(
        self, pieces: dict[int, torch.Tensor], kept: Sequence[torch.Tensor], dtype: torch.dtype
    ) -> None:
        """Take over the rows of the matrices that other copies own; tell them this one's."""
        if self._ranks.layout.replicate == 1:
            return
        for replica in range(self._ranks.layout.replicate):
            owned = self._of(replica)
            sizes = [kept[k].numel() for k in owned]
            if replica == self._ranks.replica:
                flat = torch.cat([pieces[k].reshape(-1) for k in owned] or [kept[0].new_empty(0)])
            else:
                flat = kept[0].new_empty(sum(sizes), dtype=dtype)
            if sum(sizes):
                dist.broadcast(
                    flat.view(torch.uint8), group_src=replica, group=self._group(REPLICATE)
                )
            for k, piece in zip(owned, flat.split(sizes), strict=True):
                pieces[k] = piece.view(kept[k].shape)

    def _group(self, axis: str) -> Any:
        return self._ranks.mesh.get_group(axis)
