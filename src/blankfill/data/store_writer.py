"""Writing a token store, under a temporary name beside its place; renamed when it is complete."""

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

from blankfill.data.store import ARRAYS, COUNTED, DTYPES, MANIFEST, VERSION
from blankfill.errors import DataError
from blankfill.text.language import LANGUAGES
from blankfill.text.tokenizer import copy_tokenizer

__all__ = ["StoreWriter"]

BUFFERED_DOCUMENTS = 1 << 16
"""Documents whose places, languages and marks wait in memory."""


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
