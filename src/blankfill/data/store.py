"""A token store: documents as one array of ids on disk, readable without us.

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
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

import numpy as np
import numpy.typing as npt

from blankfill.disk.json_files import Description, check, read_object
from blankfill.disk.ownership import FolderKind
from blankfill.disk.pointer import is_pointer, pointer_sentence
from blankfill.errors import DataError
from blankfill.objective.drawn import gather
from blankfill.text.tokenizer import INNER_TOKENIZER

__all__ = [
    "ARRAYS",
    "COUNTED",
    "DTYPES",
    "KIND",
    "MANIFEST",
    "MEGATRON_INDEX",
    "VERSION",
    "HoldOut",
    "Origin",
    "StoreManifest",
    "TokenStore",
]

MANIFEST = "manifest.json"
"""Its description; a folder without one is no store."""
VERSION = 3
"""Version of the folder's format, in the manifest. Version 1 had no sentences, versions 1 and 2 no
pairs; both are still read."""
ARRAYS = ("tokens.bin", "offsets.bin", "languages.bin", "sentences.bin", "prompts.bin")
"""Its files, in the order in which the fingerprint takes them."""
MEGATRON_INDEX = "tokens.idx"
"""What Megatron needs beside tokens.bin to read it (`megatron.py`)."""
DTYPES = ("<u2", "<u4")
"""Widths of a token; the first holds ids up to 65,535."""
COUNTED = ("documents", "tokens", "characters", "bytes")
"""What the manifest counts for each language."""
DESCRIPTION = Description(
    "format", "blankfill token store", VERSION,
    {
        "dtype": str, "documents": int, "tokens": int, "vocab_size": int, "fingerprint": str,
        "tokenizer": {"fingerprint": str}, "languages": [str], "by_language": dict, "sha256": dict,
        "pairs?": int,
    },
)  # fmt: skip
"""What the manifest says of itself."""
KIND = FolderKind(
    title="a token store", marker=MANIFEST, description=DESCRIPTION,
    files=(*ARRAYS, MEGATRON_INDEX),
    folders={"tokenizer": INNER_TOKENIZER},
)  # fmt: skip
"""A store's folder, which a new one may replace."""
CHECKED_TOKENS = 1 << 24
"""Tokens read at a time when a store is verified."""


class Origin(TypedDict, total=False):
    """What a manifest says about the text of a store."""

    sources: list[str]
    """The files that were read."""
    skipped: dict[str, int]
    """Documents that could not be used, by reason."""
    hold_out: HoldOut
    """Which part of the text this is; missing where it is all."""


class HoldOut(TypedDict):
    """One of the two stores that a text was split into (`hold_out.py`)."""

    share: float
    """The share of documents that is held out, by the hash of their texts."""
    side: Literal["training", "held-out"]
    """Which of the two this is."""


class StoreManifest(Origin):
    """What `manifest.json` holds."""

    format: str
    version: int
    fingerprint: str
    dtype: str
    """One of `DTYPES`."""
    documents: int
    tokens: int
    pairs: int
    """Documents that are a text and its answer; missing before version 3."""
    vocab_size: int
    tokenizer: TokenizerIdentity
    languages: list[str]
    """Names of the codes in languages.bin."""
    by_language: dict[str, dict[str, int]]
    """What `COUNTED` names, of each language that the store holds."""
    sha256: dict[str, str]
    """Of each file."""


class TokenizerIdentity(TypedDict):
    """The tokenizer that a store was built with."""

    fingerprint: str


class TokenStore:
    """A complete store, memory-mapped: opening costs nothing, and nothing is copied."""

    def __init__(self, path: Path, manifest: StoreManifest) -> None:
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
        if path.is_file():
            raise DataError(
                f"{path} is a file, and a token store is a folder; make one of a text with "
                "`blankfill data build`"
            )
        if not path.is_dir():
            raise DataError(
                f"there is no token store at {path}; make one with `blankfill data build`"
            )
        cure = "name a folder that `blankfill data build` wrote, or build the store again"
        if not (path / MANIFEST).is_file():
            raise DataError(f"{path} is not a token store: it has no {MANIFEST}; {cure}")
        try:
            manifest = read_object(path / MANIFEST, DESCRIPTION)
            counts = dict.fromkeys(COUNTED, int)
            check(manifest["by_language"], dict.fromkeys(manifest["by_language"], counts))
        except OSError as error:
            raise DataError(f"{path / MANIFEST} cannot be read, {error.strerror}") from error
        except ValueError as error:
            raise DataError(
                f"{path / MANIFEST} is damaged, or another's: {error}; {cure}"
            ) from error
        try:
            store = cls(path, cast("StoreManifest", manifest))
            if verify:
                store._verify()
        except (OSError, ValueError, LookupError, TypeError, OverflowError) as error:
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
            The tokens of all parts, one after another.
        """
        found = gather(self.tokens, self.offsets[documents] + starts, ends - starts)
        return found.astype(np.int32)

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


def _map(path: Path, dtype: str, count: int) -> npt.NDArray[Any]:
    expected = count * np.dtype(dtype).itemsize
    size = path.stat().st_size
    if size != expected:
        if is_pointer(path):
            raise ValueError(pointer_sentence(path))
        raise ValueError(f"{path.name} has {size:,} bytes, the manifest says {expected:,}")
    if not count:
        return np.zeros(0, dtype)  # an empty file cannot be mapped
    # A plain array over the map: slicing np.memmap itself costs microseconds for each document.
    return np.memmap(path, dtype=dtype, mode="r").view(np.ndarray)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
