"""A token store: documents as arrays of ids on disk, readable without us.

    store/
      tokens.bin      little-endian uint16 (uint32 where the vocabulary is beyond 65,536): all ids
      offsets.bin     little-endian int64, N + 1: document i is tokens[offsets[i] : offsets[i + 1]]
      languages.bin   uint8, N: index into the manifest's `languages`
      sentences.bin   one bit for each token, least significant first: set where a sentence ends
      prompts.bin     little-endian int32, N: tokens of a pair before its answer; -1 for plain text
      tokens.idx      only where it was asked for: with it Megatron reads tokens.bin
      manifest.json   format version, dtype, counts, SHA-256 of each file, tokenizer fingerprint
      tokenizer/      a copy of the tokenizer, so that a store can be read back as text

Its fingerprint is the SHA-256 of the arrays' checksums and the tokenizer's fingerprint.

A large store is cut into shards. Each is a folder of these files (`shard-00000/`) without a
tokenizer; beside them lie `tokenizer/` and a `manifest.json` that holds what opening needs of each
shard: counts and checksums. Opening reads that file and compares sizes; a shard is mapped when a
document of it is asked for. The fingerprint is then that of the shards' fingerprints.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from blankfill.data.manifest import (
    COUNTED,
    CURE,
    MANIFEST,
    StoreManifest,
    entries_of,
    read_manifest,
)
from blankfill.data.parts import joined_parts, split_by
from blankfill.data.shard import LocalFiles, Shard, ShardEntry, ShardFiles
from blankfill.disk.address import is_address
from blankfill.errors import DataError

__all__ = ["TokenStore"]

KEPT_SHARDS = 1024
"""Shards that stay mapped; a process may have 65,530 maps, and a shard is five."""
OPENING_TRIES = 5
"""How often a shard in the cache is looked for again after it was taken away."""


class TokenStore:
    """A complete store, memory-mapped: opening costs little, and nothing is copied.

    Args:
        path: its folder; of a store that lies elsewhere, where its manifest and tokenizer are kept.
        manifest: what describes it.
        files: where the files of its shards are; in `path` where not given.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is of another size than it must be, or the manifest contradicts itself.
    """

    def __init__(
        self, path: Path, manifest: StoreManifest, files: ShardFiles | None = None
    ) -> None:
        self.path, self.manifest = path, manifest
        self._files = files or LocalFiles(path)
        self.entries = entries_of(manifest)
        """Its shards."""
        self._first = np.cumsum([0, *(entry.documents for entry in self.entries)])
        self._starts: list[int] = self._first.tolist()
        self.has_sentences = all(entry.has_sentences for entry in self.entries)
        """Whether it knows where sentences end."""
        self.num_pairs = sum(entry.pairs for entry in self.entries)
        """Documents that are a text and its answer."""
        self.num_tokens = int(manifest["tokens"])
        """Tokens of all documents."""
        self.shuffle_shards = int(manifest.get("shuffle_shards", 1))
        """Shards whose documents are put into one order together (`order.py`)."""
        self.vocab_size = int(manifest["vocab_size"])
        """Ids of its tokenizer."""
        self.fingerprint = str(manifest["fingerprint"])
        """What tells this store's content from any other."""
        self.tokenizer_fingerprint = str(manifest["tokenizer"]["fingerprint"])
        """Fingerprint of the tokenizer that it was built with."""
        self.by_language: dict[str, dict[str, int]] = {
            str(name): {count: int(counts[count]) for count in COUNTED}
            for name, counts in manifest["by_language"].items()
        }
        """Documents, tokens, characters and bytes of each language that it holds."""
        self._lock = threading.RLock()
        """Held while shards are opened: a loader's thread and the trainer's both read."""
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._files.check(self.entries)
        if not self.is_sharded and self.address is None:
            self._open[0] = Shard(self.entries[0], self._files.of(self.entries[0]))

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = False) -> TokenStore:
        """Open a store.

        Args:
            path: its folder, or the address of one that lies elsewhere.
            verify: also read every file, compare its checksum and check its values.

        Raises:
            DataError: the folder is not a store, or a file is missing, cut short or damaged.
        """
        if is_address(path):
            from blankfill.data.remote import fetch_description

            folder, files = fetch_description(path)
        else:
            folder, files = Path(path), None
            _require_store(folder)
        shown = files.shown if files else str(path)
        store = cls._described(folder, read_manifest(folder, shown), files, shown)
        if verify:
            for k in range(len(store.entries)):
                store._verify(k)
        return store

    @classmethod
    def _described(
        cls, folder: Path, manifest: StoreManifest, files: ShardFiles | None, shown: str
    ) -> TokenStore:
        try:
            return cls(folder, manifest, files)
        except (OSError, ValueError, LookupError, TypeError, OverflowError) as error:
            raise DataError(f"{shown} is damaged ({error}); build the store again") from error

    @property
    def shown(self) -> str:
        """What it is called: its folder, or its address."""
        return self._files.shown

    @property
    def address(self) -> str | None:
        """Where it lies, if elsewhere; None for a folder of this machine."""
        return self._files.address

    @property
    def is_sharded(self) -> bool:
        """Whether its arrays lie in folders of their own, rather than in the store's."""
        return "shards" in self.manifest

    @property
    def dtype(self) -> str:
        """Width of a token on disk, one of `DTYPES`."""
        return self.manifest["dtype"]

    @property
    def has_pairs(self) -> bool:
        """Whether some documents are a text and its answer."""
        return self.num_pairs > 0

    @property
    def working_bytes(self) -> int:
        """Bytes of the shards that a stream of rows reads at a time: two groups."""
        sizes = sorted((entry.num_bytes for entry in self.entries), reverse=True)
        return sum(sizes[: 2 * self.shuffle_shards])

    @property
    def shard_documents(self) -> npt.NDArray[np.int64]:
        """`[shards]` documents of each shard."""
        return np.diff(self._first)

    def __len__(self) -> int:
        return self._starts[-1]

    def document(self, index: int) -> npt.NDArray[np.unsignedinteger[Any]]:
        """Return the ids of one document, a view of the file."""
        k = self._shard_of(index)
        return self.shard(k).document(index - self._starts[k])

    def lengths_of(self, documents: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Give `[n]` tokens of some documents."""
        found = np.empty(len(documents), np.int64)
        for k, members in self._split(documents):
            found[members] = self.shard(k).lengths_of(documents[members] - self._first[k])
        return found

    def languages_of(self, documents: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Give `[n]` language codes of some documents."""
        found = np.empty(len(documents), np.uint8)
        for k, members in self._split(documents):
            found[members] = self.shard(k).languages_of(documents[members] - self._first[k])
        return found

    def prompts_of(self, documents: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """Give `[n]` tokens of some documents before their answers, -1 for plain text."""
        found = np.full(len(documents), -1, np.int32)
        for k, members in self._split(documents) if self.num_pairs else ():
            found[members] = self.shard(k).prompts_of(documents[members] - self._first[k])
        return found

    def documents_in(self, language: int) -> npt.NDArray[np.int64]:
        """List the documents of a language, given by its code."""
        return np.concatenate([
            self._first[k] + np.flatnonzero(self.shard(k).languages == language)
            for k in range(len(self.entries))
        ])  # fmt: skip

    def read(
        self, documents: npt.NDArray[np.int64], starts: npt.NDArray[np.int64],
        ends: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.int32]:  # fmt: skip
        """Read parts of many documents.

        Args:
            documents: `[n]` number of each document.
            starts: `[n]` first token of each part.
            ends: `[n]` its end.

        Returns:
            The tokens of all parts, one after another.
        """
        parts = [
            (members, self.shard(k).read(
                documents[members] - self._first[k], starts[members], ends[members]
            ))
            for k, members in self._split(documents)
        ]  # fmt: skip
        return joined_parts(parts, ends - starts)

    def expect(self, shards: npt.NDArray[np.int64], beside: npt.NDArray[np.int64]) -> None:
        """Begin to fetch shards that are going to be read, where they lie elsewhere.

        Args:
            shards: their numbers.
            beside: of those that are read meanwhile.
        """
        if self.address is not None:
            later, now = ([self.entries[k] for k in some.tolist()] for some in (shards, beside))
            self._files.expect(later, now)

    def sentence_ends(self, index: int, start: int, end: int) -> npt.NDArray[np.int64]:
        """Say where sentences end in a part of a document.

        Args:
            index: number of the document.
            start: first token of the part.
            end: its end.

        Returns:
            Ascending ends in (start, end], in tokens of the document; none from a store of
            version 1.
        """
        k = self._shard_of(index)
        return self.shard(k).sentence_ends(index - self._starts[k], start, end)

    def shard(self, k: int) -> Shard:
        """Give a shard, mapped; the ones that were used last stay so.

        Raises:
            DataError: a file of it is missing, damaged or cannot be had.
        """
        with self._lock:
            if k in self._open:
                self._open.move_to_end(k)
                return self._open[k]
            opened = self._opened(self.entries[k])
            if self.address is not None:  # what left the cache takes its place until it is let go
                for other in [n for n, shard in self._open.items() if not shard.is_on_disk()]:
                    del self._open[other]
            while len(self._open) >= KEPT_SHARDS:
                self._open.popitem(last=False)
            self._open[k] = opened
            return opened

    def _opened(self, entry: ShardEntry) -> Shard:
        for left in reversed(range(OPENING_TRIES if self.address else 1)):
            try:
                return Shard(entry, self._files.of(entry))
            except (OSError, ValueError) as error:
                if left and isinstance(error, FileNotFoundError):
                    continue  # another process needed its room in the cache
                raise DataError(
                    f"{self.shown}/{entry.name} is damaged ({error}); build the store again"
                ) from error
        raise AssertionError

    def _verify(self, k: int) -> None:
        entry = self.entries[k]
        try:
            self.shard(k).verify(self.vocab_size, len(self.manifest["languages"]))
        except (OSError, ValueError) as error:
            place = f"{self.shown}/{entry.name}" if entry.name else self.shown
            cure = "build the store again"
            if self.address is not None:  # it was whole when it was fetched
                cure = f"remove the copy in {self._files.of(entry)['tokens.bin'].parent}"
            raise DataError(f"{place} is damaged ({error}); {cure}") from error

    def _shard_of(self, index: int) -> int:
        return bisect_right(self._starts, index) - 1 if len(self.entries) > 1 else 0

    def _split(
        self, documents: npt.NDArray[np.int64]
    ) -> Sequence[tuple[int, npt.NDArray[np.int64]]]:
        """Give the shards of some documents, each with the places in `documents` that it has."""
        if len(self.entries) == 1:
            return [(0, np.arange(len(documents)))] if len(documents) else []
        parts = list(split_by(np.searchsorted(self._first, documents, side="right") - 1))
        self._files.ready([self.entries[k] for k, _ in parts if k not in self._open])
        return parts


def _require_store(folder: Path) -> None:
    if folder.is_file():
        raise DataError(
            f"{folder} is a file, and a token store is a folder; make one of a text with "
            "`blankfill data build`"
        )
    if not folder.is_dir():
        raise DataError(
            f"there is no token store at {folder}; make one with `blankfill data build`"
        )
    if not (folder / MANIFEST).is_file():
        raise DataError(f"{folder} is not a token store: it has no {MANIFEST}; {CURE}")
