"""The one engine of generation: texts join and leave between steps, and rows share their Part A.

    engine = Engine(model)
    prefixes = engine.encode([prompt_a, prompt_b])       # Part A of each, once
    rows = [engine.join(prefix) for prefix in prefixes]  # a fill, a candidate or a beam each
    hidden = engine.step([(rows[0], tokens, positions), ...])
    engine.leave(rows[0])                                # from now on it costs nothing

A step takes any rows, and of each any number of tokens, so that text which is known (a forced
beginning, a candidate to be scored) is read in one step. It knows tokens and positions; which they
are is the caller's, as is the choice of the next. What it gives stays on the model's device.

Shapes: Q tokens of a step, D hidden.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch

from blankfill.generate.slots import PrefixWriter, RowReader, Table
from blankfill.model.cache import Cache
from blankfill.model.glm import GLM, device_of
from blankfill.model.masks import Mask, PackedMask
from blankfill.objective.batch import Int32

__all__ = ["Engine", "Inputs", "Prefix", "Row"]


@dataclass(slots=True, eq=False)
class Prefix:
    """A Part A that has been encoded."""

    slot: int
    length: int
    """Its tokens."""
    uses: int
    """Rows that read it, and callers that hold it; it is forgotten after the last."""


@dataclass(slots=True, eq=False)
class Row:
    """One way of going on from a Part A."""

    slot: int
    prefix: Prefix


class Inputs(NamedTuple):
    """What a row reads in one step."""

    row: Row
    tokens: Sequence[int]
    """`[k]` at least one."""
    positions: Sequence[Sequence[int]]
    """`[k]` pairs: position in the text, position inside the span."""


class Engine:
    """The keys and values of texts that are being filled.

    Args:
        model: in evaluation mode; called in the precision that the caller has set.
    """

    def __init__(self, model: GLM) -> None:
        self._model, self._device = model, device_of(model)
        num_layers = model.cfg.num_layers
        self._prefix_table, self._row_table = Table(num_layers), Table(num_layers)
        self._prefixes: list[Prefix] = []  # by their slot
        self._rows: list[Row] = []

    @property
    def num_positions(self) -> int:
        """Positions whose keys and values are kept."""
        return sum(self._prefix_table.lengths) + sum(self._row_table.lengths)

    @torch.inference_mode()
    def encode(self, parts: Sequence[tuple[Int32, Int32]]) -> list[Prefix]:
        """Encode Parts A, all in one pass and without padding.

        Args:
            parts: of each its `[A]` tokens and `[2, A]` positions.

        Returns:
            One prefix each, which the caller holds until it calls `release`.
        """
        lengths = [len(tokens) for tokens, _ in parts]
        new = [Prefix(self._prefix_table.add(n), n, uses=1) for n in lengths]
        self._prefixes += new
        ends = np.cumsum(lengths, dtype=np.int32)
        blocks = np.stack([np.zeros_like(ends), ends - lengths, ends, ends], axis=1)
        self._call(
            torch.from_numpy(np.concatenate([tokens for tokens, _ in parts])),
            torch.from_numpy(np.concatenate([positions for _, positions in parts], axis=1)),
            PackedMask(blocks.astype(np.int32), (1, int(ends[-1]))),
            PrefixWriter(self._prefix_table, [prefix.slot for prefix in new], self._device),
        )
        return new

    def join(self, prefix: Prefix) -> Row:
        """Start a row: nothing of Part B yet."""
        prefix.uses += 1
        row = Row(self._row_table.add(), prefix)
        self._rows.append(row)
        return row

    @torch.inference_mode()
    def fork(self, row: Row) -> Row:
        """Start a row that has read what another has."""
        new = self.join(row.prefix)
        self._copy([new], [row])
        return new

    @torch.inference_mode()
    def reorder(self, rows: Sequence[Row], parents: Sequence[Row]) -> None:
        """Let each row go on from what another has read, as beams do; all on one prefix."""
        assert {row.prefix for row in rows} == {row.prefix for row in parents}
        self._copy(rows, parents)

    def length(self, row: Row) -> int:
        """Give how many tokens a row has read."""
        return self._row_table.lengths[row.slot]

    def rewind(self, row: Row, length: int) -> None:
        """Let a row forget all that it has read after its first `length` tokens."""
        assert length <= self.length(row)
        self._row_table.lengths[row.slot] = length

    @torch.inference_mode()
    def leave(self, row: Row) -> None:
        """End a row; its prefix is forgotten with its last one, unless a caller holds it."""
        moved = self._rows[self._row_table.remove(row.slot)]
        self._rows[row.slot], moved.slot = moved, row.slot
        self._rows.pop()
        self.release(row.prefix)

    @torch.inference_mode()
    def release(self, prefix: Prefix) -> None:
        """Say that a prefix is no longer held."""
        prefix.uses -= 1
        if prefix.uses:
            return
        moved = self._prefixes[self._prefix_table.remove(prefix.slot)]
        self._prefixes[prefix.slot], moved.slot = moved, prefix.slot
        self._prefixes.pop()

    @torch.inference_mode()
    def step(self, inputs: Sequence[Inputs]) -> torch.Tensor:
        """Read the next tokens of rows.

        Args:
            inputs: at least one; of different rows.

        Returns:
            `[Q, D]` hidden states of the tokens, in the order of `inputs`; `model.logits` scores
            what comes after each.
        """
        waves = _waves(inputs)
        parts = [self._read([inputs[i] for i in wave]) for wave in waves]
        first = [0, *accumulate(len(each.tokens) for each in inputs)]
        order = [k for wave in waves for i in wave for k in range(first[i], first[i + 1])]
        if order == list(range(len(order))):
            return torch.cat(parts) if len(parts) > 1 else parts[0]
        return torch.cat(parts)[torch.tensor(order, device=self._device).argsort()]

    def _copy(self, rows: Sequence[Row], sources: Sequence[Row]) -> None:
        table = self._row_table
        lengths = [table.lengths[source.slot] for source in sources]
        table.copy([row.slot for row in rows], [source.slot for source in sources])
        for row, length in zip(rows, lengths, strict=True):
            table.lengths[row.slot] = length

    def _read(self, inputs: Sequence[Inputs]) -> torch.Tensor:
        """Read tokens of rows in the order of their slots; `[Q, D]`."""
        numbers = [
            (token, *pair)
            for each in inputs
            for token, pair in zip(each.tokens, each.positions, strict=True)
        ]
        tokens, text, inside = torch.tensor(numbers).unbind(1)
        reader = RowReader(
            self._prefix_table, self._row_table, [each.row.slot for each in inputs],
            [each.row.prefix.slot for each in inputs], [len(each.tokens) for each in inputs],
            self._device,
        )  # fmt: skip
        return self._call(tokens, torch.stack([text, inside]), None, reader)

    def _call(
        self, tokens: torch.Tensor, positions: torch.Tensor, mask: Mask | None, cache: Cache
    ) -> torch.Tensor:
        """Call the model on tokens that lie end to end, `[Q]` and `[2, Q]`; `[Q, D]`."""
        tokens, positions = (x.long().to(self._device)[None] for x in (tokens, positions))
        hidden = self._model(tokens, positions, mask, cache)
        assert isinstance(hidden, torch.Tensor)
        return hidden[0]


def _waves(inputs: Sequence[Inputs]) -> list[list[int]]:
    """Part what is read together: rows with about as many tokens, whose prefixes have about as
    many rows, so that at least a quarter of the grid that attention fills is real.

    Returns:
        Numbers of the inputs of each wave, in the order of their slots.
    """
    sharing = Counter(id(each.row.prefix) for each in inputs)
    waves: dict[tuple[int, int], list[int]] = {}
    for i in sorted(range(len(inputs)), key=lambda i: inputs[i].row.slot):
        row = inputs[i].row
        size = (len(inputs[i].tokens).bit_length(), sharing[id(row.prefix)].bit_length())
        waves.setdefault(size, []).append(i)
    return list(waves.values())
