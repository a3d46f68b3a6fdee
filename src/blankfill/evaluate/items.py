"""The blanks of an evaluation: which spans of held-out documents are cut out.

Every held-out document is cut into pieces as in training, and spans are drawn in each piece by the
short law. A selection of them, equally likely to be any, is what is scored. Spans are drawn by the
lengths of the documents alone: only the text around the selected blanks is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count as count_from
from typing import NamedTuple

import numpy as np

from blankfill.config.objective import ObjectiveConfig
from blankfill.data.store import TokenStore
from blankfill.objective.batch import Int32, Int64
from blankfill.objective.draws import uniform_draws
from blankfill.objective.fit import longest_piece
from blankfill.objective.spans import draw_lengths, max_spans, place_spans, span_budget
from blankfill.rng import generator, permute
from blankfill.text.language import LANGUAGES

__all__ = ["MAX_PIECES", "BlankItem", "draw_items"]

MAX_PIECES = 20_000
"""Most pieces of one language in which spans are drawn: some seconds' work. Where the stores hold
more, these are drawn from all of them."""
_DRAWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True, eq=False)
class BlankItem:
    """One blank of one held-out document."""

    tokens: Int32
    """`[n]` the piece that it stands in."""
    before: tuple[int, ...]
    """The document's tokens right before the piece, at most two."""
    start: int
    """First token of the blank, in the piece."""
    end: int
    """End of the blank."""
    language: str
    """Language of the document."""

    @property
    def span(self) -> Int32:
        """The tokens that were cut out."""
        return self.tokens[self.start : self.end]

    def prompt(self, mask: int, *, both_sides: bool = True) -> Int32:
        """Part A: the piece with one mask, with or without what stands to its right."""
        right = self.tokens[self.end :] if both_sides else self.tokens[:0]
        return np.concatenate([self.tokens[: self.start], [mask], right]).astype(np.int32)


class _Piece(NamedTuple):
    """A stretch of a document."""

    store: int
    document: int
    number: int
    first: int
    last: int


def draw_items(
    stores: Sequence[TokenStore], cfg: ObjectiveConfig, *, row_length: int, max_items: int,
    seed: int = 0,
) -> dict[str, list[BlankItem]]:  # fmt: skip
    """Draw the blanks of an evaluation.

    Args:
        stores: held-out documents.
        cfg: gives the law of the short spans.
        row_length: pieces are as long as such rows hold.
        max_items: most blanks of one language; a fixed selection where there are more.
        seed: seed of the blanks.

    Returns:
        Items by language, of those languages that have any.
    """
    longest = longest_piece(row_length, cfg)
    items: dict[str, list[BlankItem]] = {}
    for code, language in sorted(enumerate(LANGUAGES), key=lambda entry: entry[1]):
        pieces = list(_pieces(stores, code, longest, seed))
        spans = [_short_spans(piece, cfg, seed) for piece in pieces]
        ends = np.cumsum([len(found) for found in spans], dtype=np.int64)
        if not len(ends) or not ends[-1]:
            continue
        order = generator(seed, "items", language).permutation(int(ends[-1]))
        items[language] = []
        for chosen in np.sort(order[:max_items]):
            p = int(np.searchsorted(ends, chosen, side="right"))
            start, end = spans[p][int(chosen - ends[p])]
            items[language].append(_item(stores, pieces[p], int(start), int(end), language))
    return items


def _pieces(stores: Sequence[TokenStore], code: int, longest: int, seed: int) -> Iterator[_Piece]:
    """Cut the documents of one language into pieces; at most `MAX_PIECES`, drawn from all."""
    documents = [np.flatnonzero(store.languages == code) for store in stores]
    owner = np.repeat(np.arange(len(stores)), [len(found) for found in documents])
    document = np.concatenate(documents)
    lengths = np.concatenate(
        [store.lengths[of] for store, of in zip(stores, documents, strict=True)]
    )
    counts = -(-lengths // longest)
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    numbers: Int64 = np.arange(min(total, MAX_PIECES))
    if total > MAX_PIECES:
        numbers = np.sort(permute(numbers, total, seed, "pieces", LANGUAGES[code]))
    places = np.searchsorted(ends, numbers, side="right")
    for number, at in zip(numbers.tolist(), places.tolist(), strict=True):
        n, count = int(lengths[at]), int(counts[at])
        p = number - int(ends[at]) + count
        yield _Piece(int(owner[at]), int(document[at]), p, n * p // count, n * (p + 1) // count)


def _short_spans(piece: _Piece, cfg: ObjectiveConfig, seed: int) -> Int32:
    """Draw the spans of a piece, `[S, 2]`."""
    num_tokens = piece.last - piece.first
    where = np.array((piece.store * 1_000_003 + piece.document) * 4099 + piece.number)
    n, ratio = np.array([num_tokens]), np.array([cfg.mask_ratio])
    most = int(max_spans(n, cfg, ratio)[0])
    lengths = draw_lengths(
        uniform_draws(where, np.arange(most), seed, "evaluation"), num_tokens, cfg,
        budget=int(span_budget(n, ratio)[0]),
    )  # fmt: skip
    places = (
        float(draw)
        for first in count_from(step=_DRAWS_AT_ONCE)
        for draw in uniform_draws(
            where, np.arange(first, first + _DRAWS_AT_ONCE), seed, "evaluation places"
        )
    )
    return place_spans(lengths, num_tokens, places, cfg.placement)


def _item(
    stores: Sequence[TokenStore], piece: _Piece, start: int, end: int, language: str
) -> BlankItem:
    """Read the text around a blank."""
    document = stores[piece.store].document(piece.document)
    tokens = np.asarray(document[piece.first : piece.last]).astype(np.int32)
    before = document[max(0, piece.first - 2) : piece.first].tolist()
    return BlankItem(tokens, tuple(before), start, end, language)
