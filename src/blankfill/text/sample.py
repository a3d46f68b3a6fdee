"""The text that a tokenizer is trained on: a bounded, balanced sample of a corpus.

Documents are cut into chunks of a paragraph or less, because SentencePiece leaves out longer lines.
Each chunk has a pseudo-random rank that depends on nothing but its number; for each language the
chunks of the lowest ranks are kept. So the sample is the same on every machine, and memory does not
grow with the corpus.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator
from pathlib import Path

from blankfill.text.language import LANGUAGES

__all__ = ["CHUNK_BYTES", "Sample"]

CHUNK_BYTES = 2048
"""Most bytes of a line for the trainer."""


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

    def write(self, path: Path, *, balance: bool, max_han_piece: int = 0) -> list[int]:
        """Write the sample as lines, in the order of the input.

        Args:
            path: the file.
            balance: give English and Chinese the same number of bytes.
            max_han_piece: cut runs of Han characters into lines of at most this length; 0 is off.

        Returns:
            Bytes of text for each language.
        """
        kept = [sorted(heap, reverse=True) for heap in self._heaps]  # lowest rank first
        limits = list(self._held)
        if balance and min(self._held[1:]):
            limits[1:] = [min(self._held[1:])] * (len(limits) - 1)
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


def _rank(number: int) -> int:
    """Scramble a number into 64 bits (the finaliser of splitmix64, Steele et al. 2014)."""
    value = (number * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)


_HAN_RUN = re.compile("[\u4e00-\u9fff]+|[^\u4e00-\u9fff]+")


def _cut_han(chunk: bytes, number: int, longest: int) -> bytes:
    """Cut runs of Han characters at pseudo-random places, so that no piece grows into a phrase.

    Chinese has no blanks between words; in small and repetitive text the trainer would take whole
    phrases for pieces. Cuts at all places alike leave the short words as the most frequent runs.
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


# Where the trainer would not accept a character in its input, or a line ends.
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
    """Find where to cut: behind a full stop, before a blank, at least between characters."""
    for mark, kept in ((b". ", 1), ("\u3002".encode(), 3), (b" ", 0)):
        stop = data.rfind(mark, start + CHUNK_BYTES // 2, limit)
        if stop > start:
            return stop + kept
    stop = limit
    while stop > limit - 4 and data[stop] & 0xC0 == 0x80:
        stop -= 1
    return stop
