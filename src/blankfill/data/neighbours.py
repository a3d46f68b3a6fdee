"""Which tokens stand near which: the counts that an embedding can begin from.

Shapes: V vocabulary, C contexts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from blankfill import progress
from blankfill.data.order import VisitOrder
from blankfill.data.rows import DocumentStore

__all__ = ["count_neighbours"]

MAX_TOKENS = 32_000_000
"""Tokens that are read; of larger stores, whole documents at even distances, or where a store is
read group by group (`order.py`), as many of its first group."""
MAX_CONTEXTS = 4096
MAX_CELLS = 2**27
"""Cells of the table: 512 MB in float32."""
REACH = 3
"""Tokens to either side that count; the one at distance d with weight 1 / d."""
CHUNK_TOKENS = 1_000_000


def count_neighbours(
    stores: Sequence[DocumentStore], vocab_size: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Count how often each token stands near each of the most frequent ones.

    Neighbours are those within `REACH` tokens to either side, inside a document.

    Args:
        stores: token stores of one tokenizer.
        vocab_size: V.

    Returns:
        `[V, C]` weighted counts, whose columns are the most frequent tokens in descending order,
        and `[V]` how often each token was read.
    """
    total = sum(store.num_tokens for store in stores)
    stride = max(1, -(-total // MAX_TOKENS))
    frequency = np.zeros(vocab_size, np.int64)
    for tokens, _ in _chunks(stores, stride):
        frequency += np.bincount(tokens, minlength=vocab_size)
    num_contexts = min(MAX_CONTEXTS, max(1, MAX_CELLS // vocab_size), int((frequency > 0).sum()))
    contexts = np.argsort(-frequency, kind="stable")[:num_contexts]
    column = np.full(vocab_size, -1, np.int64)
    column[contexts] = np.arange(num_contexts)
    counts = np.zeros(vocab_size * num_contexts, np.float32)
    with progress.bar("neighbours", int(frequency.sum()), "tokens") as meter:
        for tokens, documents in _chunks(stores, stride):
            for distance in range(1, REACH + 1):
                inside = documents[distance:] == documents[:-distance]
                before, after = tokens[:-distance][inside], tokens[distance:][inside]
                for token, neighbour in ((before, after), (after, before)):
                    columns = column[neighbour]
                    known = columns >= 0
                    cells = token[known] * num_contexts + columns[known]
                    np.add.at(counts, cells, np.float32(1 / distance))
            meter.advance(len(tokens))
    return counts.reshape(vocab_size, num_contexts), frequency


def _chunks(
    stores: Sequence[DocumentStore], stride: int
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Read whole documents, some at a time, each token with the number of its document."""
    for store in stores:
        numbers = _some(store, stride)
        lengths = store.lengths_of(numbers)
        pieces = (np.cumsum(lengths) - lengths) // CHUNK_TOKENS
        for part in np.split(numbers, np.flatnonzero(np.diff(pieces)) + 1):
            sizes = store.lengths_of(part)
            tokens = store.read(part, np.zeros_like(sizes), sizes).astype(np.int64)
            yield tokens, np.repeat(part, sizes)


def _some(store: DocumentStore, stride: int) -> npt.NDArray[np.int64]:
    """Choose one document of `stride`, in ascending order."""
    order = VisitOrder([store], 0)
    if stride == 1 or order.is_whole:
        return np.arange(0, len(store), stride)
    return np.sort(order.documents(np.arange(-(-len(store) // stride)), 0))
