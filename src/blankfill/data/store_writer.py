"""Writing a token store under a temporary name beside its target; renamed when it is complete."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from blankfill.data.store import (
    ARRAYS,
    COUNTED,
    DTYPES,
    KIND,
    MANIFEST,
    VERSION,
    Origin,
    StoreManifest,
)
from blankfill.disk.json_files import encode
from blankfill.disk.publish import NewFolder, publish_all, refused_by_disk
from blankfill.errors import OutputError
from blankfill.text.language import LANGUAGES
from blankfill.text.tokenizer import copy_tokenizer

__all__ = ["StoreWriter"]

BUFFERED_DOCUMENTS = 1 << 16
"""Documents whose places, languages and marks wait in memory."""


class StoreWriter:
    """Writes a store document by document; it appears only when it is complete.

    Use it in a `with` block and call `finish` at its end; without `finish` nothing is written.

    Args:
        path: the store's folder.
        vocab_size: ids of the tokenizer; decides the width of a token.
        tokenizer_fingerprint: of the tokenizer.
        tokenizer: its folder, of which a copy is kept in the store.
        overwrite: replace a store at `path` once the new one is complete.

    Raises:
        OutputError: `path` is taken, another process writes it, or it cannot be written.
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
        self._dtype = DTYPES[0] if vocab_size <= np.iinfo(np.uint16).max + 1 else DTYPES[1]
        self._vocab_size, self._tokenizer_fingerprint = vocab_size, tokenizer_fingerprint
        self._files: dict[str, BinaryIO] = {}
        self._hashes = {name: hashlib.sha256() for name in ARRAYS}
        self._end = 0
        self._offsets, self._languages = [0], bytearray()
        self._prompts: list[int] = []
        self._num_pairs = 0
        self._marks: list[npt.NDArray[np.uint8]] = []
        self.counts = np.zeros((len(LANGUAGES), len(COUNTED)), dtype=np.int64)
        """Documents, tokens, characters and bytes of each language."""
        self._folder = NewFolder(self._path, KIND, overwrite=overwrite)
        self._temporary = self._folder.path
        try:
            with self._writing():
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

    def finish(self, origin: Origin | None = None) -> StoreManifest:
        """Complete the store and put it in its place.

        Args:
            origin: what the manifest says about the text.

        Returns:
            The manifest.

        Raises:
            OutputError: the disk is full, or `path` was taken meanwhile.
        """
        manifest = self._complete(origin)
        self._folder.publish()
        return manifest

    def _complete(self, origin: Origin | None) -> StoreManifest:
        """Write all that is left, so that only the folder's name is still missing."""
        self._flush(last=True)
        with self._writing():
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())
                file.close()
            manifest: StoreManifest = {**self._manifest(), **(origin or Origin())}
            (self._temporary / MANIFEST).write_bytes(encode(manifest))
        return manifest

    def _manifest(self) -> StoreManifest:
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

    @contextmanager
    def _writing(self) -> Generator[None]:
        """Turn an error of the disk into one sentence, and remove what was written."""
        try:
            with refused_by_disk(self._path):
                yield
        except OutputError:
            self._discard()
            raise

    def _discard(self) -> None:
        for file in self._files.values():
            with suppress(OSError):  # a full disk refuses the last flush as well
                file.close()
        self._folder.discard()

    @staticmethod
    def finish_together(*stores: tuple[StoreWriter, Origin]) -> list[StoreManifest]:
        """Complete several stores, and only then put them in their places, the first one last.

        Args:
            stores: each with what its manifest says about the text.

        Returns:
            Their manifests.

        Raises:
            OutputError: the disk is full, and none was put in its place; or a place was taken
                meanwhile, and the finished store stands beside it.
        """
        manifests = [writer._complete(origin) for writer, origin in stores]
        publish_all([writer._folder for writer, _ in reversed(stores)])
        return manifests

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._discard()
