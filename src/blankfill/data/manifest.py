"""What `manifest.json` says of a token store (`store.py`), read and checked.

The manifest of a store of one shard holds that shard's counts and checksums. That of a store of
many holds those of each in `shards`, so that opening reads one file; each shard has a manifest of
its own besides, by which it can be checked, moved and joined to another store.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NotRequired, TypedDict, cast

import numpy as np
import numpy.typing as npt

from blankfill.data.shard import ARRAYS, DTYPES, ShardEntry
from blankfill.disk.json_files import Description, check, read_object
from blankfill.disk.ownership import FolderKind
from blankfill.errors import DataError
from blankfill.text.language import LANGUAGES
from blankfill.text.tokenizer import INNER_TOKENIZER

__all__ = [
    "COUNTED",
    "CURE",
    "KIND",
    "MANIFEST",
    "MEGATRON_INDEX",
    "SHARDED_VERSION",
    "SHARD_FOLDER",
    "VERSION",
    "HoldOut",
    "Origin",
    "ShardCounts",
    "StoreManifest",
    "TokenizerIdentity",
    "entries_of",
    "join_manifests",
    "new_manifest",
    "read_manifest",
]

MANIFEST = "manifest.json"
"""Its description; a folder without one is no store."""
VERSION = 3
"""Version of the folder's format, in the manifest. Version 1 had no sentences, versions 1 and 2 no
pairs; both are still read."""
SHARDED_VERSION = 4
"""Version of a store that is cut into shards."""
MEGATRON_INDEX = "tokens.idx"
"""What Megatron needs beside tokens.bin to read it (`megatron.py`)."""
SHARD_FOLDER = "shard-{:05d}"
"""A shard's folder, by its number."""
SHUFFLED_TOKENS = 1 << 32
"""Tokens that are permuted together in a store of many shards: whole shards of about as many. A
machine that reads the store from elsewhere keeps twice as many, 18 GB of 16-bit ids."""
SHARD_NAME = re.compile(r"shard-\d{5,9}")
COUNTED = ("documents", "tokens", "characters", "bytes")
"""What the manifest counts for each language."""
CURE = "name a folder that `blankfill data build` wrote, or build the store again"
DESCRIPTION = Description(
    "format", "blankfill token store", SHARDED_VERSION,
    {
        "dtype": str, "documents": int, "tokens": int, "vocab_size": int, "fingerprint": str,
        "tokenizer": {"fingerprint": str}, "languages": [str], "by_language": dict, "pairs?": int,
    },
)  # fmt: skip
"""What the manifest says of itself."""
SHARDED = {
    "pairs": int, "shuffle_shards?": int,
    "shards": [{"name": str, "documents": int, "tokens": int, "pairs": int, "sha256": dict}],
}  # fmt: skip
"""What it says besides where the store is cut into shards."""
_FILES = (*ARRAYS, MEGATRON_INDEX)
KIND = FolderKind(
    title="a token store", marker=MANIFEST, description=DESCRIPTION, files=_FILES,
    folders={
        "tokenizer": INNER_TOKENIZER,
        "shard-[0-9]*": FolderKind(
            title="a shard", marker=MANIFEST, description=DESCRIPTION, files=_FILES
        ),
    },
)  # fmt: skip
"""A store's folder, which a new one may replace."""


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
    sha256: NotRequired[dict[str, str]]
    """Of each file; missing where there are shards."""
    shards: NotRequired[list[ShardCounts]]
    """Its shards; missing where its arrays lie in its own folder."""
    shuffle_shards: NotRequired[int]
    """Shards whose documents are put into one order together; 1 where missing."""


class ShardCounts(TypedDict):
    """What the manifest of a store says of one of its shards."""

    name: str
    """Its folder."""
    documents: int
    tokens: int
    pairs: int
    fingerprint: str
    """Of its own manifest."""
    sha256: dict[str, str]
    """Of each file."""


class TokenizerIdentity(TypedDict):
    """The tokenizer that a store was built with."""

    fingerprint: str


def read_manifest(folder: Path, shown: str) -> StoreManifest:
    """Read and check what describes a store.

    Args:
        folder: where it lies.
        shown: what the user calls the store.

    Raises:
        DataError: it cannot be read, or is not that of a store.
    """
    try:
        manifest = read_object(folder / MANIFEST, DESCRIPTION)
        counts = dict.fromkeys(COUNTED, int)
        check(manifest["by_language"], dict.fromkeys(manifest["by_language"], counts))
        check(manifest, SHARDED if "shards" in manifest else {"sha256": dict})
    except OSError as error:
        raise DataError(f"{shown}/{MANIFEST} cannot be read, {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{shown}/{MANIFEST} is damaged, or another's: {error}; {CURE}") from error
    return cast("StoreManifest", manifest)


def entries_of(manifest: StoreManifest) -> list[ShardEntry]:
    """List the shards that a manifest describes.

    Raises:
        ValueError: it contradicts itself.
    """
    dtype, version = manifest["dtype"], int(manifest["version"])
    if dtype not in DTYPES:
        raise ValueError(f"its tokens are {dtype!r}, not one of {', '.join(DTYPES)}")
    if "shards" not in manifest:
        return [
            ShardEntry(
                name="", documents=int(manifest["documents"]), tokens=int(manifest["tokens"]),
                pairs=int(manifest["pairs"]) if version > 2 else 0, dtype=dtype,
                has_sentences=version > 1, sha256=manifest.get("sha256", {}),
            )
        ]  # fmt: skip
    entries = [
        ShardEntry(
            name=one["name"], documents=one["documents"], tokens=one["tokens"], pairs=one["pairs"],
            dtype=dtype, has_sentences=True, sha256=one["sha256"],
        )
        for one in manifest["shards"]
    ]  # fmt: skip
    for entry in entries:
        if not SHARD_NAME.fullmatch(entry.name):
            raise ValueError(f"a shard is named {entry.name!r}, and shard-00000 is meant")
    if len({entry.name for entry in entries}) < max(1, len(entries)):
        raise ValueError("it names a shard twice, or none")
    for count in ("documents", "tokens", "pairs"):
        of_shards = sum(getattr(entry, count) for entry in entries)
        if of_shards != manifest[count]:
            raise ValueError(f"it says {manifest[count]:,} {count}, its shards {of_shards:,}")
    if int(manifest.get("shuffle_shards", 1)) < 1:
        raise ValueError("its 'shuffle_shards' is below 1")
    return entries


def new_manifest(
    sha256: dict[str, str], counts: npt.NDArray[np.int64], *, dtype: str, pairs: int,
    vocab_size: int, tokenizer_fingerprint: str,
) -> StoreManifest:  # fmt: skip
    """Describe a store of one shard.

    Args:
        sha256: of each of its arrays, in their order.
        counts: `[languages, COUNTED]` what it holds of each language.
        dtype: width of a token.
        pairs: documents that are a text and its answer.
        vocab_size: ids of the tokenizer.
        tokenizer_fingerprint: of the tokenizer.
    """
    by_language: dict[str, dict[str, int]] = {
        name: dict(zip(COUNTED, counts[code].tolist(), strict=True))
        for code, name in enumerate(LANGUAGES)
        if counts[code, 0]
    }
    return {
        "format": DESCRIPTION.value,
        "version": VERSION,
        "fingerprint": _fingerprint(sha256.values(), tokenizer_fingerprint),
        "dtype": dtype,
        "documents": int(counts[:, 0].sum()),
        "tokens": int(counts[:, 1].sum()),
        "pairs": pairs,
        "vocab_size": vocab_size,
        "tokenizer": {"fingerprint": tokenizer_fingerprint},
        "languages": list(LANGUAGES),
        "by_language": by_language,
        "sha256": sha256,
    }


def join_manifests(shards: Sequence[StoreManifest], tokenizer_fingerprint: str) -> StoreManifest:
    """Describe a store of shards, which lie in `SHARD_FOLDER`s in their order.

    Args:
        shards: the manifests of one or more shards of one tokenizer.
        tokenizer_fingerprint: of that tokenizer.
    """
    first = shards[0]
    by_language: dict[str, dict[str, int]] = {}
    for shard in shards:
        for name, counts in shard["by_language"].items():
            sums = by_language.setdefault(name, dict.fromkeys(COUNTED, 0))
            for count in COUNTED:
                sums[count] += counts[count]
    tokens = sum(shard["tokens"] for shard in shards)
    return {
        "format": DESCRIPTION.value,
        "version": SHARDED_VERSION,
        "fingerprint": _fingerprint((s["fingerprint"] for s in shards), tokenizer_fingerprint),
        "dtype": first["dtype"],
        "documents": sum(shard["documents"] for shard in shards),
        "tokens": tokens,
        "pairs": sum(shard["pairs"] for shard in shards),
        "vocab_size": first["vocab_size"],
        "tokenizer": {"fingerprint": tokenizer_fingerprint},
        "languages": first["languages"],
        "by_language": by_language,
        "shuffle_shards": max(1, SHUFFLED_TOKENS * len(shards) // max(1, tokens)),
        "shards": [
            {
                "name": SHARD_FOLDER.format(k), "documents": shard["documents"],
                "tokens": shard["tokens"], "pairs": shard["pairs"],
                "fingerprint": shard["fingerprint"], "sha256": shard.get("sha256", {}),
            }
            for k, shard in enumerate(shards)
        ],
    }  # fmt: skip


def _fingerprint(parts: Iterable[str], tokenizer_fingerprint: str) -> str:
    identity = "\n".join([*parts, tokenizer_fingerprint])
    return hashlib.sha256(identity.encode()).hexdigest()
