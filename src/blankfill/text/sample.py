"""The text that a tokenizer is trained on: a bounded, balanced sample of a corpus.

Balancing cuts the larger of English and Chinese to the bytes of the smaller, but only where that
leaves a vocabulary something to be made of (`balanced_bytes`).

Documents are cut into chunks of a paragraph or less, because SentencePiece leaves out longer lines.
Each chunk has a pseudo-random rank that depends on nothing but its number; for each language the
chunks of the lowest ranks are kept. So the sample is the same on every machine, and memory does not
grow with the corpus.
"""

from __future__ import annotations

import heapq
import logging
import re
from collections.abc import Iterator
from pathlib import Path

from blankfill.text.language import LANGUAGES

__all__ = ["CHUNK_BYTES", "Sample", "balanced_bytes"]

log = logging.getLogger(__name__)

CHUNK_BYTES = 2048
"""Most bytes of a line for the trainer."""

BYTES_PER_ID = 100
"""Balancing leaves the larger language at least so much for each id of the vocabulary.
Measured with the unigram trainer: 1 MB of English web text allows at most 13,943 ids, 72 bytes
each, 300 kB at most 6,867, 44 each (Chinese: 31 and 26)."""
NEGLIGIBLE = 100
"""A language with less than this fraction (1 / N) of the other's bytes is a few foreign lines or a
title page: too little to balance by."""
_NAMES = {"en": "English", "zh": "Chinese"}


def balanced_bytes(english: int, chinese: int, vocab_size: int) -> tuple[int, int]:
    """Say how much of each language a balanced sample has.

    Args:
        english: bytes of English that there are.
        chinese: bytes of Chinese that there are.
        vocab_size: ids that the tokenizer is to have.

    Returns:
        Bytes of English and of Chinese: the smaller for both, but of the larger no less than
        `BYTES_PER_ID` for each id; all of it where the smaller is none or negligible.
    """
    small, large = sorted((english, chinese))
    if NEGLIGIBLE * small < large:
        return english, chinese
    most = max(small, BYTES_PER_ID * vocab_size)
    return min(english, most), min(chinese, most)


class Sample:
    """The chunks of lowest rank for each language, bounded in bytes."""

    def __init__(self, limit: int):
        self._limit = max(1, limit // 2)  # for each of the two languages that blankfill balances
        # Heaps with the highest rank on top: (-rank, number, chunk).
        self._heaps: list[list[tuple[int, int, bytes]]] = [[] for _ in LANGUAGES]
        self._held = [0] * len(LANGUAGES)
        self._number = 0
        self.documents = [0] * len(LANGUAGES)
        self.bytes_read = [0] * len(LANGUAGES)
        self.was_cut = False
        """Whether balancing left any of it out."""

    @property
    def num_documents(self) -> int:
        """Documents added."""
        return sum(self.documents)

    def add(self, text: str, language: int, num_bytes: int) -> None:
        """Offer the chunks of a document."""
        self.documents[language] += 1
        self.bytes_read[language] += num_bytes
        heap = self._heaps[language]
        for chunk in _chunks(text):
            self._number += 1
            rank = _rank(self._number)
            if self._held[language] >= self._limit and heap and rank >= -heap[0][0]:
                continue
            heapq.heappush(heap, (-rank, self._number, chunk))
            self._held[language] += len(chunk)
            while self._held[language] - len(heap[0][2]) >= self._limit:
                self._held[language] -= len(heapq.heappop(heap)[2])

    def write(
        self, path: Path, *, balance: bool, vocab_size: int = 0, max_han_piece: int = 0
    ) -> list[int]:
        """Write the sample as lines, in the order of the input.

        Args:
            path: the file.
            balance: give English and Chinese the same number of bytes, as far as `balanced_bytes`
                goes.
            vocab_size: ids that the tokenizer is to have.
            max_han_piece: cut runs of Han characters into lines of at most this length; 0 is off.

        Returns:
            Bytes of text for each language.
        """
        kept = [sorted(heap, reverse=True) for heap in self._heaps]  # lowest rank first
        limits = list(self._held)
        if balance:
            limits[1:] = balanced_bytes(limits[1], limits[2], vocab_size)
            self.was_cut = limits != self._held
            _warn_of_imbalance(self._held, limits)
        lines: list[tuple[int, bytes]] = []
        written = [0] * len(LANGUAGES)
        for code, heap in enumerate(kept):
            for _, number, chunk in heap:
                if written[code] >= limits[code]:
                    break
                written[code] += len(chunk)
                lines.append((number, chunk))
        lines.sort()
        with open(path, "wb") as file:
            for number, chunk in lines:
                file.write(_cut_han(chunk, number, max_han_piece) if max_han_piece else chunk)
                file.write(b"\n")
        self._heaps = []
        return written


def _warn_of_imbalance(held: list[int], limits: list[int]) -> None:
    """Warn where balancing leaves one language with more than twice the bytes of the other."""
    small, large = sorted((1, 2), key=lambda code: held[code])
    if 0 < 2 * held[small] < limits[large]:
        cut = limits[large] < held[large]
        log.warning(
            "%s has %s bytes beside %s of %s: too little to balance by, so %s",
            _NAMES[LANGUAGES[small]], f"{held[small]:,}", f"{held[large]:,}",
            _NAMES[LANGUAGES[large]],
            f"of that {limits[large]:,} are taken" if cut else "all of that is taken",
        )  # fmt: skip


def _rank(number: int) -> int:
    """Scramble a number into 64 bits (the finaliser of splitmix64, Steele et al. 2014)."""
    value = (number * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)


_HAN_RUN = re.compile("[\u4e00-\u9fff]+|[^\u4e00-\u9fff]+")


def _cut_han(chunk: bytes, number: int, longest: int) -> bytes:
    """Cut runs of Han characters at pseudo-random places, so that no piece grows into a phrase.

    Chinese has no spaces between words; in small and repetitive text the trainer would take whole
    phrases for pieces. Cuts that are equally likely at every place leave short words as the most
    frequent runs.
    """
    lines: list[str] = []
    for run in _HAN_RUN.findall(chunk.decode()):
        while len(run) > longest and "\u4e00" <= run[0] <= "\u9fff":
            number = _rank(number + 1)
            size = 1 + number % longest
            lines.append(run[:size])
            run = run[size:]
        lines.append(run)
    return "\n".join(lines).encode()


# Line ends, and characters that the trainer does not accept in its input.
_BREAKS = re.compile("[\n\r\0\u2581\u2585]+")


def _chunks(text: str) -> Iterator[bytes]:
    """Cut a text into lines for the trainer, each of at most `CHUNK_BYTES`."""
    for paragraph in _BREAKS.split(text):
        data = paragraph.encode()
        start = 0
        while len(data) - start > CHUNK_BYTES:
            stop = _sentence_end(data, start, start + CHUNK_BYTES)
            yield data[start:stop]
            start = stop
        if rest := data[start:].rstrip():
            yield rest


def _sentence_end(data: bytes, start: int, limit: int) -> int:
    """Find where to cut: after a full stop, else before a space, else between characters."""
    for mark, kept in ((b". ", 1), ("\u3002".encode(), 3), (b" ", 0)):
        stop = data.rfind(mark, start + CHUNK_BYTES // 2, limit)
        if stop > start:
            return stop + kept
    stop = limit
    while stop > limit - 4 and data[stop] & 0xC0 == 0x80:
        stop -= 1
    return stop
