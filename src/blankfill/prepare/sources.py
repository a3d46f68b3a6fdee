"""From folders to token stores, and from stores to the stream of rows that a run reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from blankfill.config.run import RunConfig
from blankfill.data.cache import CACHE_GB, FileCache, shown_bytes
from blankfill.data.mixture import RowMixture, RowStream
from blankfill.data.pieces import Objectives
from blankfill.data.rows import RowSource
from blankfill.data.store import TokenStore
from blankfill.errors import ConfigError, DataError
from blankfill.objective.special import SpecialIds
from blankfill.runs.record import MixtureEntry

__all__ = ["build_stream", "open_stores", "open_stores_apart", "require_cache"]


def open_stores(
    paths: Sequence[Path], tokenizer_fingerprint: str | None = None
) -> list[TokenStore]:
    """Open token stores that belong to one tokenizer.

    Raises:
        DataError: a store is missing, damaged, empty, or of another tokenizer.
    """
    if not paths:
        raise DataError("no token store was named; make one with `blankfill data build` and pass "
                        "it as --data store/")  # fmt: skip
    stores = [TokenStore.open(path) for path in paths]
    for path, store in zip(paths, stores, strict=True):
        if not len(store):
            raise DataError(f"{path} holds no document; build it from text that has some")
        expected = tokenizer_fingerprint or stores[0].tokenizer_fingerprint
        if store.tokenizer_fingerprint != expected:
            raise DataError(
                f"{path} was built with another tokenizer ({store.tokenizer_fingerprint[:12]}, "
                f"expected {expected[:12]}); build it again with the run's tokenizer"
            )
    return stores


def open_stores_apart(paths: Sequence[Path]) -> list[TokenStore]:
    """Open token stores, each of which may be of a tokenizer of its own.

    Raises:
        DataError: a store is missing, damaged or empty.
    """
    return [store for path in paths for store in open_stores([path])]


def require_cache(stores: Sequence[TokenStore]) -> None:
    """Refuse a cache that is smaller than what stores that lie elsewhere need at a time.

    Raises:
        ConfigError: with the size that would do.
    """
    elsewhere = [store for store in stores if store.address is not None]
    if not elsewhere:
        return
    cache = FileCache.here()
    needed = sum(store.working_bytes for store in elsewhere)
    if needed > cache.limit_bytes:
        raise ConfigError(
            f"{', '.join(store.shown for store in elsewhere)}: rows are made of "
            f"{shown_bytes(needed)} of shards at a time, and the cache in {cache.folder} may hold "
            f"{shown_bytes(cache.limit_bytes)}; set {CACHE_GB}={-(-needed // 10**8) / 10:g} or "
            "more, or copy the data to this machine"
        )


def build_stream(
    cfg: RunConfig, stores: Sequence[TokenStore], mixtures: Sequence[MixtureEntry],
    ids: SpecialIds,
) -> RowStream:  # fmt: skip
    """Build a run's stream of rows.

    Args:
        cfg: the run.
        stores: what it reads.
        mixtures: from which row on each store has which share, as run.json keeps it; where there is
            none all documents are read in one order.
        ids: of the special tokens.
    """
    length, seed = cfg.train.row_length, cfg.train.seed
    if not mixtures:
        return RowSource(stores, cfg.objective, ids, row_length=length, seed=seed)
    objectives = Objectives(cfg.objective, len(stores)).of_store
    sources = [
        # Draws are addressed by document number, which stores have in common; seeds are not.
        RowSource([store], objective, ids, row_length=length, seed=seed + 1_000_003 * s)
        for s, (store, objective) in enumerate(zip(stores, objectives, strict=True))
    ]  # fmt: skip
    first, *later = mixtures
    mixture = RowMixture(sources, first.shares, [store.num_tokens for store in stores])
    for change in later:
        mixture.change(change.row, change.shares)
    return mixture
