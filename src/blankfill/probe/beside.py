"""What stands beside a probe: the same fits from less, and how short a layer makes the targets.

- words: counts of the tokenizer's pieces, without their order.
- length: tokens and characters, and their logarithms.
- control: a target that says nothing of the text, one value for each first token (Hewitt and Liang
  2019): what a probe reads of it, it has learnt by heart. Selectivity is what the real target has
  more of it.
- permuted: the targets dealt out anew; a fit that beats chance here is at fault.
- online code (Voita and Titov 2020): the targets are sent in blocks, each coded by a fit on all
  blocks before it; a layer that makes them short makes them easy to learn, from few items too.

Shapes: n items, V pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import sparse

from blankfill.probe.families import Float64, Law, marginal_law
from blankfill.probe.likelihood import Groups
from blankfill.probe.nested import INNER_FOLDS, Task, choose_penalty
from blankfill.probe.penalised import Features, mean_of
from blankfill.rng import generator

__all__ = ["control_task", "count_words", "lengths", "online_code", "permuted"]

FIRST_SHARE = 1 / 16
"""Of the items, the first block, which is known to both ends; each next one doubles what is."""
LEAST_BLOCK = 16


def count_words(tokens: Sequence[Groups], vocab_size: int) -> Features:
    """Count the pieces of each text: `[n, V]` logarithms of one more than their numbers."""
    rows = np.repeat(np.arange(len(tokens)), [len(each) for each in tokens])
    columns = np.concatenate([*tokens])
    counts = sparse.csr_matrix(
        (np.ones(len(rows)), (rows, columns)), shape=(len(tokens), vocab_size)
    )
    counts.sum_duplicates()
    texts = np.bincount(counts.indices, minlength=vocab_size)
    kept = np.flatnonzero(texts > 1)  # one that stands in a single text predicts no other
    counts = counts[:, kept] if len(kept) else counts
    counts.data = np.log1p(counts.data)
    return counts


def lengths(tokens: Sequence[Groups], texts: Sequence[str]) -> Float64:
    """`[n, 4]` tokens and characters of each text, and their logarithms."""
    counts = np.array([[len(t), len(s)] for t, s in zip(tokens, texts, strict=True)], np.float64)
    return np.hstack([counts, np.log1p(counts)])


def control_task(task: Task, types: Sequence[int], seed: int) -> Task:
    """Give each type of text the target of a random item."""
    rng = generator(seed, "control task")
    _, owner = np.unique(np.asarray(types), return_inverse=True)
    drawn = rng.integers(0, len(task.y), int(owner.max()) + 1)
    return replace(task, y=task.y[drawn][owner])


def permuted(task: Task, seed: int) -> Task:
    """Deal targets out anew, with the exposures that they had."""
    order = generator(seed, "permuted").permutation(len(task.y))
    return replace(task, y=task.y[order], exposure=task.exposure[order])


def online_code(task: Task, features: Features, *, seed: int) -> float:
    """Give the code length of the targets, less that of the margin, in bits an item.

    Both code the same blocks after the first, each fitted on all blocks before it; groups stay
    together.

    Args:
        task: the targets.
        features: `[n, D]`.
        seed: decides the order of the groups.
    """
    rank = generator(seed, "online code").permutation(int(task.groups.max()) + 1)
    order = np.argsort(rank[task.groups], kind="stable")
    nats, start = 0.0, max(int(FIRST_SHARE * len(order)), min(LEAST_BLOCK, len(order) // 2))
    begun = start
    while start < len(order):
        end = min(2 * start, len(order))
        known, block = np.sort(order[:start]), order[start:end]
        nats -= _gain(task, features, known, block, seed)
        start = end
    return nats / np.log(2) / max(len(order) - begun, 1)


def _gain(task: Task, features: Features, known: Groups, block: Groups, seed: int) -> float:
    """Give the nats of a block that a fit saves on the margin."""
    seen = task.take(known)
    nothing = marginal_law(task.family, seen.y, seen.exposure, task.num_classes)
    floor = nothing(task.exposure[block])
    law = floor
    varied = len(np.unique(seen.y)) > 1 and len(np.unique(seen.groups)) > 1
    if varied:
        inner = seen.draw(INNER_FOLDS, seed)
        penalty, _, spread = choose_penalty(seen, features[known], inner)
        mean = mean_of(task.family, features[known], seen.y, penalty, seen.exposure,
                       task.num_classes)(features[block], task.exposure[block])  # fmt: skip
        law = Law.of(task.family, mean, spread)
    return float((law.log_density(task.y[block]) - floor.log_density(task.y[block])).sum())
