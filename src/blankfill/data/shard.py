"""The arrays of one shard of a token store, memory-mapped: documents by their number in it.

A small store is one shard, whose arrays lie in the store's own folder; a large one is many, each a
folder of the same files.

Shapes: N documents in the shard, n documents that are asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from blankfill.disk.pointer import is_pointer, pointer_sentence
from blankfill.objective.drawn import gather

__all__ = ["ARRAYS", "DTYPES", "LocalFiles", "Shard", "ShardEntry", "ShardFiles"]

ARRAYS = ("tokens.bin", "offsets.bin", "languages.bin", "sentences.bin", "prompts.bin")
"""Its files, in the order in which a store's fingerprint takes them."""
DTYPES = ("<u2", "<u4")
"""Widths of a token; the first holds ids up to 65,535."""
CHECKED_VALUES = 1 << 24
"""Values read at a time when a shard is verified."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardEntry:
    """What a manifest says of one shard."""

    name: str
    """Its folder inside the store's; "" where it is the store's own."""
    documents: int
    """Documents."""
    tokens: int
    """Tokens of all of them."""
    pairs: int
    """Documents that are a text and its answer."""
    dtype: str
    """One of `DTYPES`."""
    has_sentences: bool
    """Whether it knows where sentences end."""
    sha256: Mapping[str, str]
    """Of each file."""

    @property
    def num_bytes(self) -> int:
        """Bytes of all files that are read."""
        return sum(self.sizes.values())

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file that is read."""
        sizes = {
            "tokens.bin": self.tokens * np.dtype(self.dtype).itemsize,
            "offsets.bin": 8 * (self.documents + 1),
            "languages.bin": self.documents,
        }
        if self.has_sentences:
            sizes["sentences.bin"] = -(-self.tokens // 8)
        if self.pairs:
            sizes["prompts.bin"] = 4 * self.documents
        return sizes


class ShardFiles(Protocol):
    """Where the files of a store's shards are."""

    @property
    def shown(self) -> str:
        """What the store is called: its folder, or its address."""
        ...

    @property
    def address(self) -> str | None:
        """Where the store lies, if elsewhere."""
        ...

    def check(self, entries: Sequence[ShardEntry]) -> None:
        """Find out at opening what can be found out without reading the shards."""
        ...

    def ready(self, entries: Sequence[ShardEntry]) -> None:
        """Have the files of several shards here, which are needed next."""
        ...

    def expect(self, entries: Sequence[ShardEntry], beside: Sequence[ShardEntry]) -> None:
        """Begin to fetch shards that are going to be needed, without waiting for them.

        Args:
            entries: those shards.
            beside: shards that are read meanwhile, and stay.
        """
        ...

    def of(self, entry: ShardEntry) -> Mapping[str, Path]:
        """Give the files of a shard by name."""
        ...


class LocalFiles:
    """Shards in a store's folder.

    Args:
        folder: the store's.
    """

    address = None

    def __init__(self, folder: Path) -> None:
        self._folder, self.shown = folder, str(folder)

    def check(self, entries: Sequence[ShardEntry]) -> None:
        """Compare the size of every file with what its counts say; nothing is read.

        Raises:
            OSError: a file is missing.
            ValueError: a file is of another size.
        """
        for entry in entries:
            files = self.of(entry)
            for name, size in entry.sizes.items():
                _require_size(files[name], size, self._folder)

    def ready(self, entries: Sequence[ShardEntry]) -> None:
        """They are here."""

    def expect(self, entries: Sequence[ShardEntry], beside: Sequence[ShardEntry]) -> None:
        """They are here."""

    def of(self, entry: ShardEntry) -> Mapping[str, Path]:
        """Give the files of a shard by name."""
        return {name: self._folder / entry.name / name for name in ARRAYS}


class Shard:
    """One shard, mapped: nothing is copied.

    Args:
        entry: what the manifest says of it.
        files: where each of its files lies.

    Raises:
        OSError: a file is missing or cannot be read.
        ValueError: a file is cut short, or the offsets are not those of the tokens.
    """

    def __init__(self, entry: ShardEntry, files: Mapping[str, Path]) -> None:
        self._entry, self._files = entry, files
        sizes = entry.sizes
        maps = {name: _map(files[name], size) for name, size in sizes.items()}
        self.tokens: npt.NDArray[Any] = maps["tokens.bin"].view(entry.dtype)
        """Ids of all documents, one after another."""
        self.offsets: npt.NDArray[np.int64] = maps["offsets.bin"].view("<i8")
        """`[N + 1]` where each document begins, and the end of the last."""
        self.languages: npt.NDArray[np.uint8] = maps["languages.bin"]
        """`[N]` language code of each document."""
        self._sentences = maps.get("sentences.bin", np.zeros(0, np.uint8))
        self._prompts: npt.NDArray[np.int32] | None = (
            maps["prompts.bin"].view("<i4") if entry.pairs else None
        )
        if int(self.offsets[0]) != 0 or int(self.offsets[-1]) != entry.tokens:
            raise ValueError("the offsets do not span the tokens")

    def is_on_disk(self) -> bool:
        """Tell whether its files are still there; what was mapped can be read all the same."""
        return self._files["tokens.bin"].exists()

    def document(self, index: int) -> npt.NDArray[np.unsignedinteger[Any]]:
        """Return the ids of one document, a view of the file."""
        return self.tokens[int(self.offsets[index]) : int(self.offsets[index + 1])]

    def lengths_of(self, documents: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Give `[n]` tokens of some documents."""
        return self.offsets[documents + 1] - self.offsets[documents]

    def languages_of(self, documents: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Give `[n]` language codes of some documents."""
        return self.languages[documents]

    def prompts_of(self, documents: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """Give `[n]` tokens of some documents before their answers, -1 for plain text."""
        if self._prompts is None:
            return np.full(len(documents), -1, np.int32)
        return self._prompts[documents]

    def read(
        self, documents: npt.NDArray[np.int64], starts: npt.NDArray[np.int64],
        ends: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.int32]:  # fmt: skip
        """Read parts of documents; see `TokenStore.read`."""
        return gather(self.tokens, self.offsets[documents] + starts, ends - starts).astype(np.int32)

    def sentence_ends(self, index: int, start: int, end: int) -> npt.NDArray[np.int64]:
        """Say where sentences end in a part of a document; see `TokenStore.sentence_ends`."""
        first = int(self.offsets[index])
        low, high = first + start, first + end
        bits = np.unpackbits(self._sentences[low >> 3 : (high + 7) >> 3], bitorder="little")
        return np.flatnonzero(bits[low & 7 : (low & 7) + end - start]) + (start + 1)

    def verify(self, vocab_size: int, num_languages: int) -> None:
        """Read everything; raise ValueError where it is not what was written.

        Args:
            vocab_size: ids that there may be.
            num_languages: language codes that there may be.
        """
        for name, expected in self._entry.sha256.items():
            if name in self._files and _sha256(self._files[name]) != expected:
                raise ValueError(f"{name} is not the file that was written")
        for start in range(0, self._entry.documents, CHECKED_VALUES):
            some = np.arange(start, min(start + CHECKED_VALUES, self._entry.documents))
            lengths = self.lengths_of(some)
            if (lengths < 0).any():
                raise ValueError("the offsets are not sorted")
            if int(self.languages_of(some).max()) >= num_languages:
                raise ValueError("languages.bin holds an unknown language")
            if self._prompts is not None and (self.prompts_of(some) >= lengths).any():
                raise ValueError("prompts.bin leaves a pair without an answer")
        if any(
            int(self.tokens[start : start + CHECKED_VALUES].max()) >= vocab_size
            for start in range(0, self._entry.tokens, CHECKED_VALUES)
        ):
            raise ValueError("tokens.bin holds an id outside the vocabulary")


def _require_size(path: Path, expected: int, top: Path | None = None) -> None:
    size = path.stat().st_size
    if size == expected:
        return
    if is_pointer(path):
        raise ValueError(pointer_sentence(path))
    shown = path.relative_to(top) if top else path.name
    raise ValueError(f"{shown} has {size:,} bytes, the manifest says {expected:,}")


def _map(path: Path, size: int) -> npt.NDArray[np.uint8]:
    _require_size(path, size)
    if not size:
        return np.zeros(0, np.uint8)  # an empty file cannot be mapped
    # A plain array over the map: slicing np.memmap itself costs microseconds for each document.
    return np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
