"""Batches of packed rows: of a token store that was given, else of random documents."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from blankfill.config.objective import ObjectiveConfig
from blankfill.data.in_memory import InMemoryStore
from blankfill.data.rows import RowSource
from blankfill.objective.special import SpecialIds
from gpu_check import Settings

__all__ = ["row_source"]

IDS = SpecialIds(pad=0, mask=1, smask=2, gmask=3, sop=4, eop=5, eos=6, dblock=7)
NUM_DOCUMENTS, MEAN_TOKENS, NUM_IDS = 4096, 400, 16_384
"""Random documents; their lengths spread as those of a corpus do."""


def _random_store() -> InMemoryStore:
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(np.log(MEAN_TOKENS) - 0.32, 0.8, NUM_DOCUMENTS)
    lengths = np.clip(lengths, 8, 8192).astype(np.int64)
    tokens = rng.integers(8, NUM_IDS, lengths.max()).astype(np.int32)
    return InMemoryStore([tokens[:length] for length in lengths.tolist()])


def row_source(settings: Settings, row_length: int) -> RowSource:
    """Open the stream of rows that a run with this row length reads; its plans are made once."""
    return _source(settings.store, row_length)


@functools.cache
def _source(store: Path | None, row_length: int) -> RowSource:
    stores: list[Any] = [_random_store()]
    ids = IDS
    if store:
        from blankfill.prepare import open_stores
        from blankfill.text.vocabularies import load_tokenizer

        stores = list(open_stores([store]))
        ids = load_tokenizer(store / "tokenizer").ids
    return RowSource(stores, ObjectiveConfig(), ids, row_length=row_length, seed=1)
