"""Writing a token store under a temporary name beside its target; renamed when it is complete."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from blankfill.data.manifest import (
    COUNTED,
    KIND,
    MANIFEST,
    SHARD_FOLDER,
    Origin,
    StoreManifest,
    join_manifests,
    new_manifest,
)
from blankfill.data.shard import DTYPES
from blankfill.data.shard_writer import ShardWriter
from blankfill.disk.json_files import encode
from blankfill.disk.publish import NewFolder, publish_all, refused_by_disk
from blankfill.errors import OutputError
from blankfill.text.language import LANGUAGES
from blankfill.text.tokenizer import copy_tokenizer

__all__ = ["StoreWriter"]


class StoreWriter:
    """Writes a store document by document; it appears only when it is complete.

    Use it in a `with` block and call `finish` at its end; without `finish` nothing is written.

    Args:
        path: the store's folder.
        vocab_size: ids of the tokenizer; decides the width of a token.
        tokenizer_fingerprint: of the tokenizer.
        tokenizer: its folder, of which a copy is kept in the store.
        overwrite: replace a store at `path` once the new one is complete.
        shard_tokens: most tokens of a shard, unless one document has more; 0 makes one store of
            everything, without shards.

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
        shard_tokens: int = 0,
    ) -> None:
        self._path = Path(path)
        self._dtype = DTYPES[0] if vocab_size <= np.iinfo(np.uint16).max + 1 else DTYPES[1]
        self._vocab_size, self._tokenizer_fingerprint = vocab_size, tokenizer_fingerprint
        self._shard_tokens = shard_tokens
        self._shard: ShardWriter | None = None
        self._done: list[StoreManifest] = []
        """Manifests of the shards that are complete."""
        self.counts = np.zeros((len(LANGUAGES), len(COUNTED)), dtype=np.int64)
        """Documents, tokens, characters and bytes of each language."""
        self._folder = NewFolder(self._path, KIND, overwrite=overwrite)
        self._temporary = self._folder.path
        try:
            with self._writing():
                if tokenizer is not None:
                    copy_tokenizer(tokenizer, self._temporary / "tokenizer")
                self._shard = self._new_shard()
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
        assert self._shard is not None
        with self._writing():
            if 0 < self._shard_tokens < self._shard.tokens + len(tokens) and self._shard.tokens:
                self._end_shard(self._shard)
                self._shard = self._new_shard()
            self._shard.add(
                tokens, language, characters=characters, num_bytes=num_bytes,
                sentence_ends=sentence_ends, prompt=prompt,
            )  # fmt: skip
        self.counts[language] += (1, len(tokens), characters, num_bytes)

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
        assert self._shard is not None
        with self._writing():
            described = self._end_shard(self._shard)
            if self._shard_tokens:
                described = join_manifests(self._done, self._tokenizer_fingerprint)
            manifest: StoreManifest = {**described, **(origin or Origin())}
            (self._temporary / MANIFEST).write_bytes(encode(manifest))
        return manifest

    def _new_shard(self) -> ShardWriter:
        folder = self._temporary
        if self._shard_tokens:
            folder /= SHARD_FOLDER.format(len(self._done))
            folder.mkdir()
        return ShardWriter(folder, self._dtype)

    def _end_shard(self, shard: ShardWriter) -> StoreManifest:
        manifest = new_manifest(
            shard.finish(), shard.counts, dtype=self._dtype, pairs=shard.pairs,
            vocab_size=self._vocab_size, tokenizer_fingerprint=self._tokenizer_fingerprint,
        )  # fmt: skip
        (shard.folder / MANIFEST).write_bytes(encode(manifest))
        self._done.append(manifest)
        return manifest

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
        if self._shard is not None:
            self._shard.discard()
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
