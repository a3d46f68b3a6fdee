"""Joining token stores of one tokenizer as the shards of one, without reading a token."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from blankfill import progress
from blankfill.data.manifest import (
    KIND,
    MANIFEST,
    SHARD_FOLDER,
    Origin,
    StoreManifest,
    join_manifests,
    read_manifest,
)
from blankfill.data.shard import ARRAYS
from blankfill.data.store import TokenStore
from blankfill.disk.json_files import encode
from blankfill.disk.publish import new_folder
from blankfill.errors import DataError
from blankfill.text.tokenizer import copy_tokenizer

__all__ = ["merge_stores"]

log = logging.getLogger(__name__)


def merge_stores(paths: Sequence[Path], out: Path, *, overwrite: bool = False) -> StoreManifest:
    """Write a store whose shards are those of other stores.

    Args:
        paths: folders of stores, in order; one without shards becomes a shard.
        out: folder of the new store.
        overwrite: replace a store at `out`.

    Raises:
        DataError: a folder is no store, or does not go with the others.
        OutputError: `out` is taken or cannot be written.
    """
    stores = [TokenStore.open(path) for path in paths]
    if not stores:
        raise DataError("no token store was named; name those that are to be joined")
    for store in stores:
        _require_alike(store, stores[0])
    seen: dict[str, TokenStore] = {}
    for store in stores:
        if (twin := seen.setdefault(store.fingerprint, store)) is not store:
            raise DataError(f"{store.shown} holds what {twin.shown} holds; name it once")
    with (
        new_folder(out, KIND, overwrite=overwrite) as folder,
        progress.bar("joining", sum(len(store.entries) for store in stores), "shards") as meter,
    ):
        shards: list[StoreManifest] = []
        for store in stores:
            for entry in store.entries:
                source = store.path / entry.name
                target = folder / SHARD_FOLDER.format(len(shards))
                shards.append(read_manifest(source, str(source)))
                _link(source, target)
                (target / MANIFEST).write_bytes(encode(shards[-1]))
                meter.advance()
        joined = join_manifests(shards, stores[0].tokenizer_fingerprint)
        origin = _origin([store.manifest for store in stores])
        manifest: StoreManifest = {**joined, **origin}
        if (stores[0].path / "tokenizer").is_dir():
            copy_tokenizer(stores[0].path / "tokenizer", folder / "tokenizer")
        (folder / MANIFEST).write_bytes(encode(manifest))
    return manifest


def _require_alike(store: TokenStore, first: TokenStore) -> None:
    if store.address is not None:
        raise DataError(f"{store.address} lies elsewhere; copy the store to this machine and name "
                        "that folder")  # fmt: skip
    if store.tokenizer_fingerprint != first.tokenizer_fingerprint:
        raise DataError(
            f"{store.shown} was built with another tokenizer than {first.shown}; build both with "
            "one, or train on both by naming each in --data"
        )
    alike = ("dtype", "vocab_size", "languages")
    differ = [name for name in alike if store.manifest[name] != first.manifest[name]]
    if differ:
        raise DataError(f"{store.shown} and {first.shown} differ in {', '.join(differ)}; build "
                        "both with one blankfill")  # fmt: skip
    if not store.is_sharded and store.manifest["version"] < 3:
        raise DataError(
            f"{store.shown} was written by an earlier blankfill, without the ends of sentences or "
            "pairs; build it again"
        )


def _link(source: Path, target: Path) -> None:
    """Give a shard's files a second name, or copy them where the disk has no such thing."""
    target.mkdir()
    for name in ARRAYS:
        try:
            os.link(source / name, target / name)
        except OSError:
            shutil.copyfile(source / name, target / name)


def _origin(manifests: Sequence[StoreManifest]) -> Origin:
    """Put together what the stores say about their texts."""
    skipped: dict[str, int] = {}
    for manifest in manifests:
        for reason, count in manifest.get("skipped", {}).items():
            skipped[reason] = skipped.get(reason, 0) + count
    sources = [name for manifest in manifests for name in manifest.get("sources", [])]
    origin = Origin(sources=list(dict.fromkeys(sources)), skipped=skipped)
    parts = [manifest.get("hold_out") for manifest in manifests]
    if parts[0] is not None and all(part == parts[0] for part in parts):
        origin["hold_out"] = parts[0]
    elif len({part["side"] for part in parts if part}) > 1:
        log.warning("some of these stores are held out of others: what is trained on the joined "
                    "one must not be evaluated on them")  # fmt: skip
    return origin
