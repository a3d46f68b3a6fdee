"""Losses by kind, language and source."""

import numpy as np
import pytest

from blankfill.config.objective import ObjectiveConfig
from blankfill.data.rows import RowSource
from blankfill.metrics import LossMeter
from blankfill.objective.batch import IGNORE_INDEX, Kind
from conftest import MemoryStore


def rows(ids, num_stores):
    stores = [
        MemoryStore([np.full(40, 9)] * 30, languages=[language] * 30)
        for language in range(num_stores)
    ]
    cfg = ObjectiveConfig(short_rate=0.5, document_rate=0.5)
    return RowSource(stores, cfg, ids, row_length=128, seed=0)


def test_every_group_has_its_own_mean_and_count(ids):
    batch = rows(ids, 2).rows(0, 8)
    example = np.concatenate(
        [np.full((batch.targets[r, a:b] != IGNORE_INDEX).sum(), k)
         for k, (r, a, _, b) in enumerate(batch.blocks)]
    )  # fmt: skip
    nll = (10 * batch.kinds + batch.sources)[example].astype(np.float32)
    meter = LossMeter()
    for _ in range(2):
        meter.add(batch, nll)
    means, counts = meter.means(), meter.counts()
    assert means["loss_nats"] == pytest.approx(nll.mean())
    for source in (0, 1):
        mine = batch.sources[example] == source
        assert means[f"loss_nats_source_{source}"] == pytest.approx(nll[mine].mean())
        assert counts[f"targets_source_{source}"] == 2 * mine.sum()
    short = batch.kinds[example] == Kind.SHORT
    assert means["loss_nats_short"] == pytest.approx(nll[short].mean())
    assert counts["targets_short"] + counts["targets_document"] == meter.num_targets == 2 * len(nll)


def test_one_source_is_not_named(ids):
    batch = rows(ids, 1).rows(0, 2)
    meter = LossMeter()
    meter.add(batch, np.ones(batch.num_targets, np.float32))
    assert not [key for key in meter.means() if "source" in key]
