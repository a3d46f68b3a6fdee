"""Writing the arrays of one shard, document by document, with their checksums."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from blankfill.data.manifest import COUNTED
from blankfill.data.shard import ARRAYS
from blankfill.text.language import LANGUAGES

__all__ = ["ShardWriter"]

BUFFERED_DOCUMENTS = 1 << 16
"""Documents whose places, languages and marks wait in memory."""


class ShardWriter:
    """Writes one shard's files.

    Args:
        folder: where; it exists.
        dtype: width of a token.

    Raises:
        OSError: a file cannot be written; the same holds for every method.
    """

    def __init__(self, folder: Path, dtype: str) -> None:
        self.folder, self._dtype = folder, dtype
        self._files: dict[str, BinaryIO] = {}
        self._hashes = {name: hashlib.sha256() for name in ARRAYS}
        self.tokens = self.pairs = 0
        self._offsets, self._languages = [0], bytearray()
        self._prompts: list[int] = []
        self._marks: list[npt.NDArray[np.uint8]] = []
        self.counts = np.zeros((len(LANGUAGES), len(COUNTED)), dtype=np.int64)
        """Documents, tokens, characters and bytes of each language."""
        try:
            for name in ARRAYS:
                self._files[name] = (folder / name).open("wb")
        except BaseException:  # a signal may come before anyone else could close them
            self.discard()
            raise

    def add(
        self, tokens: npt.NDArray[Any], language: int, *, characters: int, num_bytes: int,
        sentence_ends: npt.NDArray[np.int64] | None, prompt: int | None,
    ) -> None:  # fmt: skip
        """Append one document; see `StoreWriter.add`."""
        assert prompt is None or 0 <= prompt < len(tokens)
        marks = np.zeros(len(tokens), np.uint8)
        marks[len(tokens) - 1 :] = 1
        if sentence_ends is not None:
            marks[sentence_ends - 1] = 1
        self._marks.append(marks)
        self._write("tokens.bin", tokens.astype(self._dtype).tobytes())
        self.tokens += len(tokens)
        self._offsets.append(self.tokens)
        self._languages.append(language)
        self._prompts.append(-1 if prompt is None else prompt)
        self.pairs += prompt is not None
        self.counts[language] += (1, len(tokens), characters, num_bytes)
        if len(self._offsets) >= BUFFERED_DOCUMENTS:
            self._flush()

    def finish(self) -> dict[str, str]:
        """Write what is left, wait until the disk has it, and give each file's SHA-256."""
        self._flush(last=True)
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        return {name: self._hashes[name].hexdigest() for name in ARRAYS}

    def discard(self) -> None:
        """Close the files, whatever the disk says."""
        for file in self._files.values():
            with suppress(OSError):  # a full disk refuses the last flush as well
                file.close()

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
        self._files[name].write(data)
        self._hashes[name].update(data)
