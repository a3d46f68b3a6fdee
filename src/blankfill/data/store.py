"""A token store: documents as one array of ids on disk, readable without us.

    store/
      tokens.bin      little-endian uint16 (uint32 where the vocabulary is beyond 65,536): all ids
      offsets.bin     little-endian int64, N + 1: document i is tokens[offsets[i] : offsets[i + 1]]
      languages.bin   uint8, N: index into the manifest's `languages`
      sentences.bin   one bit for each token, least significant first: set where a sentence ends
      prompts.bin     little-endian int32, N: tokens of a pair before its answer; -1 for plain text
      manifest.json   format version, dtype, counts, SHA-256 of each file, tokenizer fingerprint
      tokenizer/      a copy of the tokenizer, so that a store can be read back as text

A store is written under a temporary name beside its place and renamed when it is complete. Its
fingerprint is the SHA-256 of the arrays' checksums and the tokenizer's fingerprint.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from blankfill.errors import DataError
from blankfill.text.language import LANGUAGES
from blankfill.text.tokenizer import copy_tokenizer

__all__ = ["MANIFEST", "StoreWriter", "TokenStore", "gather"]

MANIFEST = "manifest.json"
VERSION = 3
"""Version of the folder's format, in the manifest. Version 1 had no sentences, versions 1 and 2 no
pairs; both are still read."""
ARRAYS = ("tokens.bin", "offsets.bin", "languages.bin", "sentences.bin", "prompts.bin")
DTYPES = ("<u2", "<u4")
"""Widths of a token; the first holds ids up to 65,535."""
COUNTED = ("documents", "tokens", "characters", "bytes")
"""What the manifest counts for each language."""
BUFFERED_DOCUMENTS = 1 << 16
CHECKED_TOKENS = 1 << 24
"""Tokens read at a time when a store is verified."""


class TokenStore:
    """A complete store, memory-mapped: opening costs nothing, and nothing is copied."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        """Map the arrays that a manifest describes; use `TokenStore.open` to read one."""
        self.path, self.manifest = path, manifest
        num_documents = int(manifest["documents"])
        dtype = manifest["dtype"]
        if dtype not in DTYPES:
            raise ValueError(f"its tokens are {dtype!r}, not one of {', '.join(DTYPES)}")
        self.tokens = _map(path / "tokens.bin", dtype, int(manifest["tokens"]))
        self.offsets = _map(path / "offsets.bin", "<i8", num_documents + 1)
        self.languages: npt.NDArray[np.uint8] = _map(path / "languages.bin", "u1", num_documents)
        self.has_sentences = int(manifest["version"]) > 1
        """Whether it knows where sentences end."""
        num_bytes = -(-len(self.tokens) // 8) if self.has_sentences else 0
        self._sentences: npt.NDArray[np.uint8] = (
            _map(path / "sentences.bin", "u1", num_bytes)
            if self.has_sentences
            else np.zeros(0, np.uint8)
        )
        self.num_pairs = int(manifest["pairs"]) if int(manifest["version"]) > 2 else 0
        """Documents that are a text and its answer."""
        self.prompts: npt.NDArray[np.int32] | None = None
        """`[N]` tokens of each document before its answer, -1 where it is plain text; None where
        all are."""
        if self.num_pairs:
            self.prompts = _map(path / "prompts.bin", "<i4", num_documents)
        if int(self.offsets[0]) != 0 or int(self.offsets[-1]) != len(self.tokens):
            raise ValueError("the offsets do not span the tokens")
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

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = False) -> TokenStore:
        """Open a store.

        Args:
            path: its folder.
            verify: also read every file, compare its checksum and check its values.

        Raises:
            DataError: the folder is not a store, or a file is missing, cut short or damaged.
        """
        path = Path(path)
        if not path.is_dir():
            raise DataError(
                f"there is no token store at {path}; make one with `blankfill data build`"
            )
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            version = manifest["version"]
        except FileNotFoundError as error:
            raise DataError(
                f"{path} is not a token store: it has no {MANIFEST}; name a folder that "
                "`blankfill data build` wrote"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(
                f"{path / MANIFEST} is damaged ({error}); build the store again"
            ) from error
        if version not in (1, 2, VERSION):
            raise DataError(
                f"{path} has format version {version}, this blankfill reads 1 to {VERSION}; "
                "build the store again"
            )
        try:
            store = cls(path, manifest)
            if verify:
                store._verify()
        except KeyError as error:
            raise DataError(
                f"{path / MANIFEST} is damaged ({error} is missing); build the store again"
            ) from error
        except (OSError, ValueError, TypeError, AttributeError, OverflowError) as error:
            raise DataError(f"{path} is damaged ({error}); build the store again") from error
        return store

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def document(self, index: int) -> npt.NDArray[np.unsignedinteger[Any]]:
        """Return the ids of one document, a view of the file."""
        return self.tokens[int(self.offsets[index]) : int(self.offsets[index + 1])]

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
            The tokens of all parts, one behind another.
        """
        return gather(self.tokens, self.offsets[documents] + starts, ends - starts)

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
        first = int(self.offsets[index])
        low, high = first + start, first + end
        bits = np.unpackbits(self._sentences[low >> 3 : (high + 7) >> 3], bitorder="little")
        return np.flatnonzero(bits[low & 7 : (low & 7) + end - start]) + (start + 1)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """`[N]` tokens of each document."""
        return np.diff(self.offsets)

    @property
    def num_tokens(self) -> int:
        """Tokens of all documents."""
        return len(self.tokens)

    def _verify(self) -> None:
        """Read everything; raise ValueError where it is not what was written."""
        for name in self.manifest["sha256"]:
            if _sha256(self.path / name) != self.manifest["sha256"][name]:
                raise ValueError(f"{name} is not the file that was written")
        if (self.lengths < 0).any():
            raise ValueError("the offsets are not sorted")
        if len(self) and int(self.languages.max()) >= len(self.manifest["languages"]):
            raise ValueError("languages.bin holds an unknown language")
        if self.prompts is not None and (self.prompts >= self.lengths).any():
            raise ValueError("prompts.bin leaves a pair without an answer")
        if any(
            int(self.tokens[start : start + CHECKED_TOKENS].max()) >= self.vocab_size
            for start in range(0, self.num_tokens, CHECKED_TOKENS)
        ):
            raise ValueError("tokens.bin holds an id outside the vocabulary")


class StoreWriter:
    """Writes a store document by document; it appears only when it is complete.

    Use it in a `with` block and call `finish` at its end: without, nothing is left behind.

    Args:
        path: the store's folder.
        vocab_size: ids of the tokenizer; decides the width of a token.
        tokenizer_fingerprint: of the tokenizer.
        tokenizer: its folder, of which a copy is kept in the store.
        overwrite: replace a store at `path` once the new one is complete.

    Raises:
        DataError: `path` is taken or cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        vocab_size: int,
        tokenizer_fingerprint: str,
        tokenizer: Path | None = None,
        overwrite: bool = False,
    ) -> None:
        self._path = Path(path)
        if self._path.is_symlink() or self._path.exists():
            if not overwrite:
                raise DataError(
                    f"{path} exists; name another --out, or replace a store with --overwrite"
                )
            if not (self._path / MANIFEST).is_file():
                raise DataError(f"{path} is not a token store, so it is not overwritten")
        self._dtype = DTYPES[0] if vocab_size <= np.iinfo(np.uint16).max + 1 else DTYPES[1]
        self._vocab_size, self._tokenizer_fingerprint = vocab_size, tokenizer_fingerprint
        self._temporary = self._beside("tmp")
        self._files: dict[str, BinaryIO] = {}
        self._hashes = {name: hashlib.sha256() for name in ARRAYS}
        self._end = 0
        self._offsets, self._languages = [0], bytearray()
        self._prompts: list[int] = []
        self._num_pairs = 0
        self._marks: list[npt.NDArray[np.uint8]] = []
        self.counts = np.zeros((len(LANGUAGES), len(COUNTED)), dtype=np.int64)
        """Documents, tokens, characters and bytes of each language."""
        try:
            with self._writing():
                shutil.rmtree(self._temporary, ignore_errors=True)
                self._temporary.mkdir(parents=True)
                if tokenizer is not None:
                    copy_tokenizer(tokenizer, self._temporary / "tokenizer")
                for name in ARRAYS:
                    self._files[name] = (self._temporary / name).open("wb")
        except BaseException:  # a signal may come before there is a `with` block to end
            self._discard()
            raise

    def add(
        self, tokens: npt.NDArray[Any], language: int, *, characters: int = 0, num_bytes: int = 0,
        sentence_ends: npt.NDArray[np.int64] | None = None, prompt: int | None = None,
    ) -> None:  # fmt: skip
        """Append one document.

        Args:
            tokens: `[n]` ids, each below the vocabulary's size.
            language: index into `text.language.LANGUAGES`.
            characters: of its text, for the manifest.
            num_bytes: of its text in UTF-8, for the manifest.
            sentence_ends: `[s]` token ends of its sentences; the document is one where not given.
            prompt: of a pair, the tokens before its answer, which is not empty.
        """
        assert prompt is None or 0 <= prompt < len(tokens)
        marks = np.zeros(len(tokens), np.uint8)
        marks[len(tokens) - 1 :] = 1
        if sentence_ends is not None:
            marks[sentence_ends - 1] = 1
        self._marks.append(marks)
        self._write("tokens.bin", tokens.astype(self._dtype).tobytes())
        self._end += len(tokens)
        self._offsets.append(self._end)
        self._languages.append(language)
        self._prompts.append(-1 if prompt is None else prompt)
        self._num_pairs += prompt is not None
        self.counts[language] += (1, len(tokens), characters, num_bytes)
        if len(self._offsets) >= BUFFERED_DOCUMENTS:
            self._flush()

    def finish(self, extra: dict[str, Any] | None = None) -> dict[str, Any]:
        """Complete the store and put it in its place.

        Args:
            extra: further content of the manifest.

        Returns:
            The manifest.

        Raises:
            DataError: the disk is full, or `path` was taken meanwhile.
        """
        self._flush(last=True)
        with self._writing():
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())
                file.close()
            manifest = self._manifest() | (extra or {})
            text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
            (self._temporary / MANIFEST).write_text(text, encoding="utf-8")
            if self._path.exists():
                old = self._beside("old")
                os.replace(self._path, old)
                os.replace(self._temporary, self._path)
                shutil.rmtree(old)
            else:
                os.replace(self._temporary, self._path)
        return manifest

    def _manifest(self) -> dict[str, Any]:
        sums = {name: self._hashes[name].hexdigest() for name in ARRAYS}
        identity = "\n".join([*sums.values(), self._tokenizer_fingerprint])
        return {
            "format": "blankfill token store",
            "version": VERSION,
            "fingerprint": hashlib.sha256(identity.encode()).hexdigest(),
            "dtype": self._dtype,
            "documents": int(self.counts[:, 0].sum()),
            "tokens": self._end,
            "pairs": self._num_pairs,
            "vocab_size": self._vocab_size,
            "tokenizer": {"fingerprint": self._tokenizer_fingerprint},
            "languages": list(LANGUAGES),
            "by_language": {
                name: dict(zip(COUNTED, self.counts[code].tolist(), strict=True))
                for code, name in enumerate(LANGUAGES)
                if self.counts[code, 0]
            },
            "sha256": sums,
        }

    def _flush(self, *, last: bool = False) -> None:
        # Bytes hold eight tokens each, so a few marks wait for the next flush.
        marks = np.concatenate([np.zeros(0, np.uint8), *self._marks])
        whole = len(marks) if last else len(marks) // 8 * 8
        self._write("sentences.bin", np.packbits(marks[:whole], bitorder="little").tobytes())
        self._marks = [marks[whole:]]
        self._write("offsets.bin", np.array(self._offsets, "<i8").tobytes())
        self._write("languages.bin", bytes(self._languages))
        self._write("prompts.bin", np.array(self._prompts, "<i4").tobytes())
        self._offsets, self._languages, self._prompts = [], bytearray(), []

    def _write(self, name: str, data: bytes) -> None:
        with self._writing():
            self._files[name].write(data)
        self._hashes[name].update(data)

    def _beside(self, suffix: str) -> Path:
        return self._path.with_name(f".{self._path.name}.{os.getpid()}.{suffix}")

    @contextmanager
    def _writing(self) -> Generator[None]:
        """Turn what the disk refuses into one sentence."""
        try:
            yield
        except OSError as error:
            self._discard()
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            reason = "the disk is full" if full else error.strerror or str(error)
            raise DataError(
                f"{self._path} could not be written ({reason}); nothing was left behind"
            ) from error

    def _discard(self) -> None:
        for file in self._files.values():
            with suppress(OSError):  # a full disk refuses the last flush as well
                file.close()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._discard()


def gather(
    tokens: npt.NDArray[Any], starts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]
) -> npt.NDArray[np.int32]:
    """Copy stretches `[starts, starts + sizes)` of an array one behind another."""
    ends = np.cumsum(sizes)
    index = np.repeat(starts - ends + sizes, sizes)
    index += np.arange(len(index))
    return tokens.take(index).astype(np.int32)


def _map(path: Path, dtype: str, count: int) -> npt.NDArray[Any]:
    expected = count * np.dtype(dtype).itemsize
    size = path.stat().st_size
    if size != expected:
        raise ValueError(f"{path.name} has {size:,} bytes, the manifest says {expected:,}")
    if not count:
        return np.zeros(0, dtype)  # an empty file cannot be mapped
    # A plain array over the map: slicing np.memmap itself costs microseconds for each document.
    return np.memmap(path, dtype=dtype, mode="r").view(np.ndarray)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
