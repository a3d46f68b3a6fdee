"""Several streams of rows mixed in shares: which row comes from where is arithmetic.

A row is of one store, and rows are equally long, so a share of rows is a share of positions, that
is, of tokens. Row i of the mixture belongs to the first store where `floor(p (i + 1))` exceeds
`floor(p i)`, p its share; the rows in between are split among the others in the same way. So after
any number of rows each of n stores has its share to within n rows, every store is read at its own
pace and in its own epochs, and any process finds any row without counting.

Shares may change from a row on: the same arithmetic then starts again after the rows read so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from blankfill.config.ranges import Range
from blankfill.data.rows import RowSource
from blankfill.disk.address import address_of, is_address
from blankfill.errors import ConfigError
from blankfill.objective.batch import Batch

__all__ = ["RowMixture", "RowStream", "parse_stores", "settle_shares"]

SCALE = 1 << 40
"""Shares are integers in this unit, so that counts are exact for 10^11 rows and more."""
SHARES = Range(1e-6, 1e6)
"""Shares that users may give: fractions, per cent, or any unit if every store has a share."""
LEAST_SHARE = 1e-9
"""Of the rows; the arithmetic below is exact for larger ones."""


class RowMixture:
    """Rows of several sources in shares.

    Args:
        sources: one stream per store, all of one row length.
        shares: of each, positive, summing to 1.
        tokens: of each store, for the count of passes over all of them.
    """

    def __init__(
        self,
        sources: Sequence[RowSource],
        shares: Sequence[float],
        tokens: Sequence[int],
    ) -> None:
        assert len(sources) == len(shares) == len(tokens)
        self._sources, self._tokens = sources, tokens
        self.mixtures = [(0, list(shares))]
        """The shares, each with the row that they hold from."""
        self._spans = [(0, [0] * len(sources), _splits(shares))]
        """First row, rows of each source before it, and `_splits` of the shares from there on."""

    def change(self, row: int, shares: Sequence[float]) -> None:
        """Use other shares from a row on; changes planned for later rows are dropped."""
        before = self.counts(row)
        kept = sum(first < row for first, _ in self.mixtures)
        self.mixtures[kept:] = [(row, list(shares))]
        self._spans[kept:] = [(row, before, _splits(shares))]

    def counts(self, row: int) -> list[int]:
        """Tell how many of the rows before `row` are of each source."""
        first, before, splits = self._span(row)
        row -= first
        found: list[int] = []
        for earlier, split in zip(before, splits, strict=True):
            mine = row * split // SCALE
            found.append(earlier + mine)
            row -= mine
        return found

    def rows(self, first: int, num_rows: int) -> Batch:
        """Make the rows `[first, first + num_rows)` of the mixture."""
        counts = [self.counts(row) for row in range(first, first + num_rows + 1)]
        owner = [
            next(s for s in range(len(self._sources)) if after[s] > before[s])
            for before, after in pairwise(counts)
        ]
        parts: list[tuple[int, Batch, list[int]]] = []
        for s, source in enumerate(self._sources):
            places = [row for row, of in enumerate(owner) if of == s]
            if places:
                parts.append((s, source.rows(counts[0][s], len(places)), places))
        return _interleave(parts)

    def epochs(self, row: int) -> dict[str, float]:
        """Tell how many passes over each store, and over all tokens, stand before a row."""
        each = [
            source.epoch_at(count)
            for source, count in zip(self._sources, self.counts(row), strict=True)
        ]
        weighted = sum(e * n for e, n in zip(each, self._tokens, strict=True))
        return {"epoch": weighted / sum(self._tokens)} | {
            f"epoch_source_{s}": epoch for s, epoch in enumerate(each)
        }

    def anchors(self, row: int) -> tuple[tuple[int, int], ...]:
        """Tell where the plan of a row begins in each source; see `RowSource.anchors`."""
        each = zip(self._sources, self.counts(row), strict=True)
        return tuple(anchor for source, count in each for anchor in source.anchors(count))

    def start_at(self, anchors: Sequence[tuple[int, int]]) -> None:
        """Take over the anchors of the same mixture."""
        for source, anchor in zip(self._sources, anchors, strict=True):
            source.start_at([anchor])

    def _span(self, row: int) -> tuple[int, list[int], list[int]]:
        return next(span for span in reversed(self._spans) if span[0] <= row)


RowStream = RowSource | RowMixture
"""What a trainer reads."""


def parse_stores(
    data: Sequence[Path], replay: Sequence[Path] = ()
) -> tuple[list[Path], list[float | None]]:
    """Read stores with shares, such as `general:0.3`, from a command line.

    Args:
        data: stores; each may have a share.
        replay: stores of earlier training, mixed in with the shares that they name.

    Returns:
        The stores, and the share of each; None where it takes its part of what is left.

    Raises:
        ConfigError: a share is missing, outside `SHARES`, or leaves nothing for the rest.
    """
    named = [_parse(path) for path in data]
    old = [_parse(path) for path in replay]
    for path, share in old:
        if share is None:
            raise ConfigError(f"--replay {path} needs a share, such as {path}:0.3")
    taken = sum(share or 0.0 for _, share in old)
    given = [share for _, share in named]
    known = [share for share in given if share is not None]
    if replay and taken >= 1:
        raise ConfigError(f"--replay takes {taken:g} of all rows; leave some for --data")
    if known and len(known) == len(given):
        given = [share * (1 - taken) / sum(known) for share in known]
    elif sum(known) + taken >= 1:
        raise ConfigError(
            f"the shares of --data and --replay sum to {sum(known) + taken:g} and leave nothing "
            "for the stores without one; give each store a share, or smaller ones"
        )
    return [p for p, _ in named + old], [*given, *(share for _, share in old)]


def settle_shares(shares: Sequence[float | None], tokens: Sequence[int]) -> list[float] | None:
    """Give every store its share; those without one divide what is left by their tokens.

    Returns:
        Shares that sum to 1; None where no store has one, and documents are read in one order.

    Raises:
        ConfigError: a share is too small beside the others.
    """
    known = [share for share in shares if share is not None]
    if not known:
        return None
    rest = sum(n for share, n in zip(shares, tokens, strict=True) if share is None)
    settled = [
        (1 - sum(known)) * n / rest if share is None else share
        for share, n in zip(shares, tokens, strict=True)
    ]
    settled = [share / sum(settled) for share in settled]
    if min(settled) < LEAST_SHARE:
        which = settled.index(min(settled)) + 1
        raise ConfigError(
            f"store {which} of {len(settled)} would have {min(settled):.2g} of all rows, too "
            "little to be read at all; give it a larger share, or leave it out"
        )
    return settled


def _splits(shares: Sequence[float]) -> list[int]:
    """Give the share of each source in what the ones before it leave, in units of 1 / SCALE."""
    left = np.cumsum(np.asarray(shares, np.float64)[::-1])[::-1]
    splits = [round(SCALE * s / rest) for s, rest in zip(shares, left, strict=True)]
    return [*splits[:-1], SCALE]


def _parse(path: Path) -> tuple[Path, float | None]:
    """Split off what follows the last colon, unless the whole is a path that exists."""
    store, colon, text = str(path).rpartition(":")
    if not colon or path.exists() or (is_address(path) and not _has_share(store, text)):
        return path, None
    try:
        share = float(text)
    except ValueError:
        if not store or not Path(store).exists():
            return path, None  # a path with a colon in it; it is reported as missing
        share = float("nan")
    if not store or share not in SHARES:
        raise ConfigError(
            f"{path}: the share {text!r} must be a number {SHARES}, such as "
            f"{store or 'store'}:0.3; a store that is not wanted is left out"
        )
    return Path(store), share


def _has_share(address: str, text: str) -> bool:
    """Tell a share after an address, `https://host:8000/store:0.3`, from its port and its path."""
    return is_address(address) and "/" not in text and "/" in address_of(address).split("://")[1]


def _interleave(parts: Sequence[tuple[int, Batch, list[int]]]) -> Batch:
    """Put rows of several batches into one, each at its place."""
    order = np.argsort(np.concatenate([places for _, _, places in parts]), kind="stable")
    blocks = np.concatenate([
        np.concatenate([np.asarray(places, np.int32)[batch.blocks[:, :1]], batch.blocks[:, 1:]], 1)
        for _, batch, places in parts
    ])  # fmt: skip
    by_row = np.argsort(blocks[:, 0], kind="stable")
    batches = [batch for _, batch, _ in parts]
    sources = [batch.sources + np.int32(s) for s, batch, _ in parts]
    return Batch(
        tokens=np.concatenate([b.tokens for b in batches])[order],
        targets=np.concatenate([b.targets for b in batches])[order],
        positions=np.concatenate([b.positions for b in batches])[order],
        segment_ids=np.concatenate([b.segment_ids for b in batches])[order],
        is_part_b=np.concatenate([b.is_part_b for b in batches])[order],
        weights=np.concatenate([b.weights for b in batches])[order],
        blocks=blocks[by_row],
        kinds=np.concatenate([b.kinds for b in batches])[by_row],
        languages=np.concatenate([b.languages for b in batches])[by_row],
        documents=np.concatenate([b.documents for b in batches])[by_row],
        sources=np.concatenate(sources)[by_row],
    )
