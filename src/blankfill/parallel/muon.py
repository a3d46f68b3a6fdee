"""Muon over several processes: each matrix has one owner that makes its update orthogonal.

Momentum is kept in parts, like the parameter. The parts of an update travel to its owner, who has
the whole matrix for a moment, and those of the orthogonal one travel back: two all-to-all exchanges
among the processes that hold a copy of the model together. Copies share the matrices out among
them, and each tells the others its own. The products are those of one process, on the same whole
matrices.

Shapes: m rows and n columns of a matrix, of which this process keeps r and c.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist

from blankfill.optim.muon import orthogonalize
from blankfill.parallel.places import Place
from blankfill.parallel.ranks import REPLICATE, Ranks

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
    """Makes updates orthogonal, each by its owner; an `Orthogonalizer` of kept parts.

    Args:
        places: of each matrix, in the order of the updates, what each holder of a copy keeps.
        ranks: the processes.
    """

    def __init__(self, places: Sequence[Sequence[Place]], ranks: Ranks) -> None:
        self._places, self._ranks, self._holders = list(places), ranks, range(ranks.num_holders)
        shapes = [(of[0].shape[0], of[0].shape[1]) for of in places]
        self._owners = [
            divmod(owner, ranks.num_holders) for owner in owners_of(shapes, ranks.num_peers)
        ]

    def __call__(
        self, updates: Iterator[torch.Tensor], dtype: torch.dtype
    ) -> Iterator[tuple[torch.Tensor, int]]:
        """Give the kept part of each orthogonal update, `[r, c]` in `dtype`."""
        kept = list(updates)
        assert len(kept) == len(self._places), "every matrix has a gradient in every step"
        wholes = self._collect(kept)
        made = {k: orthogonalize(matrix, dtype) for k, matrix in wholes.items()}
        pieces = self._return(made, kept, dtype)
        self._tell_copies(pieces, kept, dtype)
        for k, places in enumerate(self._places):
            yield pieces[k], max(places[0].shape)

    def _of(self, replica: int, holder: int | None = None) -> list[int]:
        """List the matrices that a copy, or one process of it, owns."""
        return [k for k, (r, h) in enumerate(self._owners) if r == replica and holder in (None, h)]

    def _collect(self, kept: Sequence[torch.Tensor]) -> dict[int, torch.Tensor]:
        """Send kept parts to their owners; give the whole matrices that this process owns."""
        replica, holder = self._ranks.replica, self._ranks.holder
        sent = [[kept[k] for k in self._of(replica, to)] for to in self._holders]
        mine = self._of(replica, holder)
        sizes = [[self._places[k][source].numel for k in mine] for source in self._holders]
        received = self._exchange(sent, [sum(of_one) for of_one in sizes], kept[0])
        wholes = {k: kept[0].new_empty(self._places[k][0].shape) for k in mine}
        for source, flat in enumerate(received):
            for k, piece in zip(mine, flat.split(sizes[source]), strict=True):
                place = self._places[k][source]
                wholes[k][place.index] = piece.view(place.sizes)
        return wholes

    def _return(
        self, made: dict[int, torch.Tensor], kept: Sequence[torch.Tensor], dtype: torch.dtype
    ) -> dict[int, torch.Tensor]:
        """Send orthogonal parts back to where they are kept; give those of this process."""
        replica = self._ranks.replica
        sent = [[made[k][self._places[k][to].index] for k in made] for to in self._holders]
        owned = [self._of(replica, source) for source in self._holders]
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
            group=self._ranks.holders,
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
                copies = self._ranks.mesh.get_group(REPLICATE)
                dist.broadcast(flat.view(torch.uint8), group_src=replica, group=copies)
            for k, piece in zip(owned, flat.split(sizes), strict=True):
                pieces[k] = piece.view(kept[k].shape)
