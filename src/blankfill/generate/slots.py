"""Keys and values of texts in the middle of being filled, in slots that are always dense.

A text has a prefix, its Part A, encoded once and never changed, and any number of rows: what has
been written of Part B, by one fill, candidate or beam each. Prefixes lie in one table and rows in
another, each row with a length of its own. A slot that is freed is taken by the last one, so that
what is in use is always a slice from the first slot on: attention reads it where it lies, and a
row that is finished costs nothing.

A query of a row sees all of its prefix and the positions of its own row up to itself. The scores
of both parts go through one softmax, which is what merging them by their log-sum-exp gives; so the
keys of a prefix are neither copied nor read once for each of the rows that share it.

Shapes: L layers, N heads, H head size, Q queries of all rows, n rows, T most queries of a row,
P prefixes, R most rows of a prefix, A and S longest prefix and row.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch

from blankfill.model.attention import attend, wide
from blankfill.model.masks import Mask

__all__ = ["PrefixWriter", "RowReader", "Table"]

POSITION_STEP = 32
"""Positions by which a table grows at least."""
Places = tuple[int | torch.Tensor, int | torch.Tensor]
"""Slots and positions of some keys, `[Q]` each; of one as numbers."""


class Table:
    """Keys and values of slots of different lengths, for every layer.

    Args:
        num_layers: blocks of the model.
    """

    def __init__(self, num_layers: int) -> None:
        self._num_layers = num_layers
        self._room = (0, 0)
        self._keys: list[torch.Tensor] = []  # of each layer [slots, N, positions, H]
        self._values: list[torch.Tensor] = []
        self.lengths: list[int] = []
        """Positions of each slot in use."""

    def add(self, length: int = 0) -> int:
        """Take the next slot, for so many positions; give its number."""
        self.lengths.append(length)
        self.reserve(len(self.lengths), length)
        return len(self.lengths) - 1

    def remove(self, slot: int) -> int:
        """Free a slot; give the one whose content stands there now, which was the last."""
        last = len(self.lengths) - 1
        if slot != last:
            self.copy([slot], [last])
            self.lengths[slot] = self.lengths[last]
        self.lengths.pop()
        return last

    def copy(self, slots: Sequence[int], sources: Sequence[int]) -> None:
        """Give slots the keys and values of others; a source may be among them."""
        end = max(self.lengths[source] for source in sources)
        for data in (*self._keys, *self._values):
            used = data[:, :, :end]
            used[list(slots)] = used[list(sources)]

    def reserve(self, slots: int, positions: int) -> None:
        """Have room for so many slots of so many positions."""
        have_slots, have_positions = self._room
        if slots <= have_slots and positions <= have_positions:
            return
        if slots > have_slots:
            slots = max(slots, have_slots + have_slots // 2)
        if positions > have_positions:
            positions = max(positions + POSITION_STEP, have_positions + have_positions // 2)
        self._room = (max(slots, have_slots), max(positions, have_positions))
        self._keys = [self._grown(data) for data in self._keys]
        self._values = [self._grown(data) for data in self._values]

    def write(self, layer: int, places: Places, k: torch.Tensor, v: torch.Tensor) -> None:
        """Store keys and values of one layer.

        Args:
            layer: number of the block.
            places: slot and position of each.
            k: `[Q, N, H]`.
            v: `[Q, N, H]`.
        """
        if not self._keys:
            shape = (self._room[0], k.shape[1], self._room[1], k.shape[2])
            self._keys = [k.new_zeros(shape) for _ in range(self._num_layers)]
            self._values = [k.new_zeros(shape) for _ in range(self._num_layers)]
        slots, at = places
        self._keys[layer][slots, :, at] = k
        self._values[layer][slots, :, at] = v

    def read(
        self, layer: int, slots: slice | torch.Tensor, length: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Give keys and values of slots, `[n * N, length, H]` each; of a slice where they lie."""
        keys, values = self._keys[layer], self._values[layer]
        return keys[slots, :, :length].flatten(0, 1), values[slots, :, :length].flatten(0, 1)

    def _grown(self, data: torch.Tensor) -> torch.Tensor:
        slots, heads, positions, size = data.shape
        grown = data.new_zeros(self._room[0], heads, self._room[1], size)
        grown[:slots, :, :positions] = data
        return grown


def _places(slots: Sequence[int], at: Sequence[int], device: torch.device) -> Places:
    """Name places of a table; a single one by numbers, which spares an index its cost."""
    if len(slots) == 1:
        return slots[0], at[0]
    both = torch.tensor([slots, at], device=device)
    return both[0], both[1]


class PrefixWriter:
    """Stores the keys and values of whole Parts A, laid end to end in one row.

    Args:
        table: where they are stored.
        slots: of each Part A, whose lengths the table knows.
        device: where the model is.
    """

    def __init__(self, table: Table, slots: Sequence[int], device: torch.device) -> None:
        self._table = table
        of_token = [slot for slot in slots for _ in range(table.lengths[slot])]
        at = [k for slot in slots for k in range(table.lengths[slot])]
        self._places = _places(of_token, at, device)

    def attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Mask | None,
        scale: float,
    ) -> torch.Tensor:  # fmt: skip
        """Store; attend by the mask, as in training."""
        assert mask is not None
        self._table.write(layer, self._places, k[0], v[0])
        return attend(q, k, v, mask, 0.0, scale)


class RowReader:
    """The next queries of some rows: where their keys go, and what they see.

    The queries lie end to end, row by row. Where all rows have as many, they are read as they lie;
    else, and where rows share prefixes, they are spread to the cells of a grid. So rows of one
    reader should have about as many queries, and prefixes about as many rows (`engine.waves`).

    Args:
        prefixes: table of prefixes.
        rows: table of rows.
        slots: the rows, by their slot in ascending order.
        prefix_slots: of each row its prefix.
        counts: of each row how many queries come; their places are made by this call.
        device: where the model is.
    """

    def __init__(
        self,
        prefixes: Table,
        rows: Table,
        slots: Sequence[int],
        prefix_slots: Sequence[int],
        counts: Sequence[int],
        device: torch.device,
    ) -> None:
        self._tables, self._device = (prefixes, rows), device
        n, most = len(slots), max(counts)
        before = [rows.lengths[slot] for slot in slots]
        for slot, count in zip(slots, counts, strict=True):
            rows.lengths[slot] += count
        ends = [rows.lengths[slot] for slot in slots]
        rows.reserve(len(rows.lengths), max(ends))
        self._length = (max(prefixes.lengths[p] for p in prefix_slots), max(ends))
        of_query = [slot for slot, count in zip(slots, counts, strict=True) for _ in range(count)]
        at = [b + k for b, count in zip(before, counts, strict=True) for k in range(count)]
        self._places = _places(of_query, at, device)
        self._shape = (n, most)
        first = [0, *accumulate(counts)]
        cells = [first[i] + min(t, c - 1) for i, c in enumerate(counts) for t in range(most)]
        self._cells, self._of_cell = self._spread(
            cells, [i * most + t for i, c in enumerate(counts) for t in range(c)]
        )
        self._rows = self._place(slots)
        self._group(prefix_slots)
        self._hidden = self._mask([prefixes.lengths[p] for p in prefix_slots], ends, at, cells)

    def attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Mask | None,
        scale: float,
    ) -> torch.Tensor:  # fmt: skip
        """Store; attend to prefix and own row. The mask is this object's own."""
        del mask
        prefixes, rows = self._tables
        rows.write(layer, self._places, k[0], v[0])
        pk, pv = prefixes.read(layer, self._prefixes, self._length[0])  # [P * N, A, H]
        rk, rv = rows.read(layer, self._rows, self._length[1])  # [n * N, S, H]
        n, most = self._shape
        q = _take(q[0], self._cells)  # [n * T, N, H]
        if most == 1:
            q = q.reshape(-1, 1, q.shape[-1])
        else:
            q = q.unflatten(0, (n, most)).transpose(1, 2).flatten(0, 1)  # [n * N, T, H]
        of_prefix = self._per_row(self._per_prefix(q).bmm(pk.mT))  # [n * N, T, A]
        scores = torch.cat([of_prefix, q.bmm(rk.mT)], dim=-1).to(wide(q)) * scale
        if self._hidden is not None:
            scores.unflatten(0, (n, -1)).masked_fill_(self._hidden, float("-inf"))
        weights = scores.softmax(dim=-1).to(v.dtype).split(self._length, dim=-1)
        out = self._per_row(self._per_prefix(weights[0]).bmm(pv)) + weights[1].bmm(rv)
        if most == 1:
            return out.view(1, n, -1, out.shape[-1])
        out = out.unflatten(0, (n, -1)).transpose(1, 2).flatten(0, 1)  # [n * T, N, H]
        return _take(out, self._of_cell).unsqueeze(0)

    def _group(self, prefix_slots: Sequence[int]) -> None:
        """Lay rows out by their prefix, in a grid of P times R."""
        used = sorted(set(prefix_slots))
        members = {
            prefix: [i for i, p in enumerate(prefix_slots) if p == prefix] for prefix in used
        }
        most = max(map(len, members.values()))
        cells = [members[p][min(r, len(members[p]) - 1)] for p in used for r in range(most)]
        cell_of = {i: c * most + r for c, p in enumerate(used) for r, i in enumerate(members[p])}
        self._grid = (len(used), most)
        self._grid_rows, self._of_grid = self._spread(
            cells, [cell_of[i] for i in range(len(prefix_slots))]
        )
        self._prefixes = self._place(used)

    def _per_prefix(self, x: torch.Tensor) -> torch.Tensor:
        """`[n * N, T, X]` to `[P * N, R * T, X]`."""
        if self._grid[1] == 1 and self._grid_rows is None:
            return x
        x = _take(x.unflatten(0, (self._shape[0], -1)), self._grid_rows)  # [P * R, N, T, X]
        return x.unflatten(0, self._grid).transpose(1, 2).flatten(2, 3).flatten(0, 1)

    def _per_row(self, x: torch.Tensor) -> torch.Tensor:
        """`[P * N, R * T, X]` to `[n * N, T, X]`."""
        num_prefixes, most = self._grid
        if most == 1 and self._of_grid is None:
            return x
        x = x.unflatten(0, (num_prefixes, -1)).unflatten(2, (most, -1))  # [P, N, R, T, X]
        return _take(x.transpose(1, 2).flatten(0, 1), self._of_grid).flatten(0, 1)

    def _mask(
        self, prefix_lengths: Sequence[int], ends: Sequence[int], at: Sequence[int],
        cells: Sequence[int],
    ) -> torch.Tensor | None:  # fmt: skip
        """Say which keys each query does not see, `[n, 1, T, A + S]`; None where it sees all."""
        if self._shape[1] == 1 and len(set(prefix_lengths)) == 1 and len(set(ends)) == 1:
            return None
        longest, own = self._length
        key = torch.arange(longest + own, device=self._device)
        length = torch.tensor(prefix_lengths, device=self._device)[:, None, None, None]
        last = torch.tensor([longest + at[cell] for cell in cells], device=self._device)
        last = last.view(*self._shape)[:, None, :, None]
        return (key >= length) & ((key < longest) | (key > last))

    def _place(self, slots: Sequence[int]) -> slice | torch.Tensor:
        """Name slots: as a slice where they follow each other."""
        if list(slots) == list(range(slots[0], slots[0] + len(slots))):
            return slice(slots[0], slots[0] + len(slots))
        return torch.tensor(slots, device=self._device)

    def _spread(
        self, cells: list[int], back: list[int]
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Give the index of each cell's content and of each content's cell; None where they are
        the same, in the same order."""
        if cells == list(range(len(back))):
            return None, None
        return tuple(torch.tensor(index, device=self._device) for index in (cells, back))  # pyright: ignore[reportReturnType]  # of two


def _take(x: torch.Tensor, index: torch.Tensor | None) -> torch.Tensor:
    return x if index is None else x.index_select(0, index)
