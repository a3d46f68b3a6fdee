"""Dropout, drawn from torch's generator or, row by row, from addresses.

From the generator, draws follow one another as units are computed: rows that are cut into other
passes, or shared out over other processes, lose other units. From the address (seed, step, row,
layer) every row has draws of its own, whoever computes it and beside which others, and as often as
it is computed.

Shapes: B rows, T positions, D units, n wanted positions, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from blankfill.model.copies import on_device
from blankfill.rng import generator

__all__ = ["ATTENDED", "ATTENTION", "FED", "Draws", "Dropout", "address_draws", "kept"]

ATTENTION, ATTENDED, FED = range(3)
"""Where a block drops: attention weights, attention's output, the feed-forward layer's. The
embedding, which comes as one more layer, drops in the first place."""
MIX = (0x21F0AAAD, 0x735A2D97)
"""Odd multipliers of a 32-bit mixer of little bias (Wellons, `hash-prospector`). They are below
2^31, so that a product with 32 bits fits into int64: what overflows, compilers may take for what
never happens."""
LOW = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Of the rows of one pass: what their draws follow from, in every layer or in one."""

    seeds: torch.Tensor
    """`[L + 1, 3, B]` int64, or `[3, B]` of one layer, on the CPU: attention over packed rows reads
    them there, beside its table."""
    keys: torch.Tensor
    """The lower 32 bits of the same, as int64 on the device."""
    length: int
    """T."""
    part: int = 0
    """Which of equal parts of the heads, and of a row's positions between the products of a block,
    is computed here."""
    parts: int = 1
    """How many there are; others compute the others."""

    def layer(self, number: int) -> Draws:
        """Give those of one layer."""
        return replace(self, seeds=self.seeds[number], keys=self.keys[number])

    def in_parts(self, part: int, parts: int) -> Draws:
        """Give those of one of equal parts."""
        return replace(self, part=part, parts=parts)

    def positions(self, site: int, wanted: torch.Tensor | None = None) -> torch.Tensor:
        """Give 32 bits of each position in int64: `[B, T]`, or `[n]` of the wanted ones.

        Args:
            site: where the layer drops.
            wanted: positions counted over all rows.
        """
        at = torch.arange(1, self.length + 1, device=self.keys.device)
        numbers = _mixed((self.keys[site, :, None] + _mixed(at)) & LOW)
        return numbers if wanted is None else numbers.flatten().index_select(0, wanted)


def address_draws(
    seed: int, step: int, rows: Sequence[int], *, num_layers: int, length: int,
    device: torch.device | str = "cpu",
) -> Draws:  # fmt: skip
    """Draw what the dropout of some rows follows from.

    Args:
        seed: the run's.
        step: 0-based optimizer step.
        rows: numbers of the rows in the stream.
        num_layers: of the whole model.
        length: positions of a row.
        device: where the model computes.
    """
    seeds = np.stack(
        [
            generator(seed, "dropout", step, row).integers(2**63, size=(num_layers + 1, 3))
            for row in rows
        ],
        axis=-1,
    )
    return Draws(torch.from_numpy(seeds), on_device(seeds & LOW, device), length)


class Dropout(nn.Module):
    """Zeroes a share of the units in training, and enlarges the others by what that takes.

    Args:
        rate: the share.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(
        self, x: torch.Tensor, draws: Draws | None = None, site: int = 0,
        wanted: torch.Tensor | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """Map `[B, T, D]`, or `[n, D]` of the wanted positions, to the same.

        Args:
            x: units; of T positions, or of this part of them.
            draws: of this layer; from torch's generator where not given.
            site: where the layer drops.
            wanted: `[n]` which positions they are, counted over all rows.
        """
        if not self.training or not self.rate:
            return x
        if draws is None:
            return nn.functional.dropout(x, self.rate)
        units = torch.arange(x.shape[-1], device=x.device)
        positions = draws.positions(site, wanted)
        if wanted is None and x.shape[1] < draws.length:
            positions = positions.chunk(draws.parts, dim=1)[draws.part]
        stays = kept(positions[..., None], units, self.rate)
        return torch.where(stays, x / (1 - self.rate), 0.0)


def kept(positions: torch.Tensor, units: torch.Tensor, rate: float) -> torch.Tensor:
    """Tell which units stay.

    Args:
        positions: numbers of positions, from `Draws.positions`.
        units: numbers of units, from 0 on, which the positions are broadcast against.
        rate: share that does not stay.
    """
    mixed = (positions ^ _mixed(units + 1)) * MIX[0] & LOW
    mixed = (mixed ^ mixed >> 15) * MIX[1] & LOW
    return mixed >= round(rate * 2**32)


def _mixed(x: torch.Tensor) -> torch.Tensor:
    """Scramble 32 bits."""
    for shift, factor in zip((16, 15), MIX, strict=True):
        x = (x ^ x >> shift) * factor & LOW
    return x ^ x >> 15
