"""Items that training text has seen: 13 words or Chinese characters in a row that both hold.

GPT-3 and GLM-130B look up 13-grams. Words are compared in small letters and without punctuation,
each Chinese character is one. Every run of 13 in the items is kept as a hash of 64 bits; training
text is decoded document by document and its runs are looked up, so memory holds the items' hashes,
16 bytes each, and a few documents, however large a store is.

Shapes: n words of a text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from blankfill import progress
from blankfill.data.store import TokenStore
from blankfill.text.vocabularies import load_tokenizer

__all__ = ["RUN", "find_seen"]

RUN = 13
"""Words or Chinese characters in a row."""
PIECE_TOKENS = 1 << 18
"""Tokens of a document that are decoded at a time."""
OVERLAP_TOKENS = 2_048
"""Tokens that two pieces share: 13 words of 150 tokens each."""
WORDS_AT_A_TIME = 1 << 20
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_HAN}]|[^\W_{_HAN}]+")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_FILTER_BITS = 24
"""Bits of a hash by which most runs of the text are told to be in no item."""

UInt64 = npt.NDArray[np.uint64]


def find_seen(stores: Sequence[TokenStore], items: Sequence[Sequence[str]]) -> list[bool | None]:
    """Tell which items training text has seen.

    Args:
        stores: training text, of whatever tokenizers.
        items: the texts of each item.

    Returns:
        Of each item whether a run of 13 words of it stands in the stores; None where it has no run
        of 13.

    Raises:
        DataError: a store's tokenizer cannot be read, or a token is none of its tokenizer.
    """
    # Questions of one passage have the same texts.
    places: dict[tuple[str, ...], int] = {}
    owner_of = [places.setdefault(tuple(texts), len(places)) for texts in items]
    runs = [_runs_of(texts) for texts in places]
    owners = np.repeat(np.arange(len(runs)), [len(each) for each in runs])
    keys, place = np.unique(np.concatenate([np.zeros(0, np.uint64), *runs]), return_inverse=True)
    found = _look_up(keys, stores)
    seen = np.zeros(len(runs), np.bool_)
    seen[owners[found[place]]] = True
    return [bool(seen[k]) if len(runs[k]) else None for k in owner_of]


def _look_up(keys: UInt64, stores: Sequence[TokenStore]) -> npt.NDArray[np.bool_]:
    """Tell which keys, ascending, are runs of the stores' text."""
    found = np.zeros(len(keys), np.bool_)
    if not len(keys):
        return found
    shift = np.uint64(64 - _FILTER_BITS)
    maybe = np.zeros(1 << _FILTER_BITS, np.bool_)
    maybe[keys >> shift] = True
    for words in _batches(_texts_of(stores)):
        runs = _runs(words)
        runs = runs[maybe[runs >> shift]]
        place = np.minimum(np.searchsorted(keys, runs), len(keys) - 1)
        found[place[keys[place] == runs]] = True
    return found


def _texts_of(stores: Sequence[TokenStore]) -> Iterator[str]:
    total = sum(len(store) for store in stores)
    with progress.bar("training text", total, "documents") as meter:
        for store in stores:
            decoder = load_tokenizer(store.path / "tokenizer")
            for number in range(len(store)):
                document = store.document(number)
                for start in range(0, max(1, len(document)), PIECE_TOKENS):
                    yield decoder.decode(document[start : start + PIECE_TOKENS + OVERLAP_TOKENS])
                meter.advance()


def _batches(texts: Iterable[str]) -> Iterator[UInt64]:
    """Give the words of several texts at a time, with one between two that is no word."""
    between = np.zeros(1, np.uint64)
    batch: list[UInt64] = []
    size = 0
    for text in texts:
        words = _hashes(text)
        batch += [words, between]
        size += len(words) + 1
        if size >= WORDS_AT_A_TIME:
            yield np.concatenate(batch)
            batch, size = [], 0
    if batch:
        yield np.concatenate(batch)


def _runs_of(texts: Sequence[str]) -> UInt64:
    return np.concatenate([np.zeros(0, np.uint64), *(_runs(_hashes(text)) for text in texts)])


def _hashes(text: str) -> UInt64:
    """Give the words of a text as numbers, `[n]`; the same in one process."""
    words = _WORD.findall(text.lower())
    return np.fromiter(map(hash, words), np.int64, len(words)).view(np.uint64)


def _runs(words: UInt64) -> UInt64:
    """Give a number for each run of 13 words, `[n - 12]`."""
    count = max(0, len(words) - RUN + 1)
    runs = np.zeros(count, np.uint64)
    for k in range(RUN):
        runs = (runs ^ (runs >> np.uint64(29))) * _FACTOR + words[k : count + k]
    return runs ^ (runs >> np.uint64(32))
