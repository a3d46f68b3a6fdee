"""Held-out documents as text, read back from token stores through the tokenizers in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from blankfill import progress
from blankfill.data.store import TokenStore
from blankfill.errors import DataError
from blankfill.evaluate.law import MAX_CHARACTERS, BlankSet, draw_blanks
from blankfill.rng import permute
from blankfill.text.language import LANGUAGES
from blankfill.text.vocabularies import load_tokenizer

__all__ = ["MAX_DOCUMENTS", "Texts", "draw_held_out", "read_texts"]

MAX_DOCUMENTS = 20_000
"""Most documents of one language that are read. Where the stores hold more, these are drawn from
all of them by their numbers, so the same stores, built of the same files, give the same."""


class _Decoder(Protocol):
    def decode(self, ids: npt.NDArray[Any]) -> str: ...


def draw_held_out(stores: Sequence[TokenStore], *, max_blanks: int, seed: int = 0) -> BlankSet:
    """Draw the blanks of an evaluation from token stores, of whatever tokenizers.

    Args:
        stores: held-out documents.
        max_blanks: most blanks of one language.
        seed: seed of the blanks.

    Raises:
        DataError: there is no blank to draw, or a store's tokenizer cannot be read.
    """
    found = draw_blanks(read_texts(stores, seed), max_blanks=max_blanks, seed=seed)
    if not found.by_language:
        names = ", ".join(str(store.path) for store in stores)
        raise DataError(
            f"no blank can be drawn from {names}: there is no held-out document of two words or "
            "more to evaluate on; name a store that holds text"
        )
    return found


def read_texts(stores: Sequence[TokenStore], seed: int = 0) -> dict[str, Texts]:
    """Give the documents of each language that has any.

    Args:
        stores: token stores.
        seed: decides which documents are read where there are more than `MAX_DOCUMENTS`.

    Raises:
        DataError: a store's tokenizer cannot be read.
    """
    decoders = [load_tokenizer(store.path / "tokenizer") for store in stores]
    chosen = {name: _documents(stores, code, seed) for code, name in enumerate(LANGUAGES)}
    return {
        language: Texts(list(zip(stores, decoders, numbers, strict=True)), language)
        for language, numbers in chosen.items()
        if any(map(len, numbers))
    }


class Texts:
    """Documents of one language, read anew whenever they are gone through.

    Args:
        parts: stores, what decodes each, and the numbers of the documents that are read of it.
        language: for the progress bar.
    """

    def __init__(
        self,
        parts: Sequence[tuple[TokenStore, _Decoder, npt.NDArray[np.int64]]],
        language: str,
    ) -> None:
        self._parts, self._language = parts, language

    def __iter__(self) -> Iterator[str]:
        """Read one document after another.

        Raises:
            DataError: a token is not one of the store's tokenizer.
        """
        total = sum(len(numbers) for _, _, numbers in self._parts)
        with progress.bar(f"held-out text, {self._language}", total, "documents") as meter:
            for store, decoder, numbers in self._parts:
                for number in numbers.tolist():
                    yield _beginning(store.document(number), decoder)
                    meter.advance()


def _documents(stores: Sequence[TokenStore], code: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """List the documents of a language in each store; at most `MAX_DOCUMENTS`, drawn from all."""
    found = [store.documents_in(code) for store in stores]
    ends = np.cumsum([len(numbers) for numbers in found], dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    if total <= MAX_DOCUMENTS:
        return found
    places = np.sort(permute(np.arange(MAX_DOCUMENTS), total, seed, "held-out", LANGUAGES[code]))
    parts = np.split(places, np.searchsorted(places, ends[:-1]))
    firsts = ends - [len(numbers) for numbers in found]
    return [
        numbers[part - first] for numbers, part, first in zip(found, parts, firsts, strict=True)
    ]


def _beginning(tokens: npt.NDArray[Any], decoder: _Decoder) -> str:
    """Decode a document as far as it is read."""
    taken = MAX_CHARACTERS
    while True:
        text = decoder.decode(tokens[:taken])
        # A token may be a part of a character, and the last one of a cut may be one without the
        # rest: one character more than is read has to be there.
        if taken >= len(tokens) or len(text) > MAX_CHARACTERS:
            return text[:MAX_CHARACTERS]
        taken *= 2
