"""What a model costs and how good it is, so that a smaller form of it can be held to the whole one.

Both answer the same held-out blanks, so their losses are compared blank by blank: the difference is
known far better than either loss.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blankfill.evaluate.blanks import Items, score_items
from blankfill.generate import LanguageModel, fill_tokens
from blankfill.objective.frame import frame_text

__all__ = ["BATCHES", "BlankNats", "fill_speed", "measure_nats"]

BATCHES = (1, 4, 32)
"""Texts that are filled at a time where speed is measured."""
TIMED_TOKENS = 16
"""Tokens of each fill that is timed."""
TIMED_SECONDS = 1.0
"""A batch is timed again until it has taken this long, and the best time counts."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BlankNats:
    """Losses on blanks."""

    nats: npt.NDArray[np.float64]
    """`[n]` of the tokens of each blank."""
    num_tokens: npt.NDArray[np.int64]
    """`[n]` of each blank."""

    @property
    def loss(self) -> float:
        """Nats per token, over all; not finite where the model's scores are not."""
        return float(self.nats.sum() / self.num_tokens.sum())

    def increase(self, before: BlankNats) -> tuple[float, float]:
        """Compare with another model's losses on the same blanks.

        Returns:
            By which share of the other's loss this one is larger, and the standard error of it.
        """
        apart = self.nats - before.nats
        share = float(apart.sum() / before.nats.sum())
        spread = apart - share * before.nats  # of a ratio of sums
        return share, math.sqrt(float((spread**2).sum())) / float(before.nats.sum())


def measure_nats(lm: LanguageModel, items: Items) -> BlankNats:
    """Score the true text of every blank."""
    flat = [item for found in items.values() for item in found]
    nats, _ = score_items(lm, flat)
    return BlankNats(nats=nats, num_tokens=np.array([len(item.span) for item in flat]))


def fill_speed(
    lm: LanguageModel, items: Items, batches: Sequence[int] = BATCHES
) -> dict[int, float]:
    """Measure how many tokens a second a model writes, by how many texts it fills at a time."""
    flat = [item for found in items.values() for item in found]
    texts = [
        frame_text(item.prompt(lm.ids.mask, both_sides=True), lm.ids, closed=True) for item in flat
    ]
    found: dict[int, float] = {}
    for size in batches:
        prompts = [texts[k % len(texts)] for k in range(size)]
        fill_tokens(lm, prompts, lengths=[1] * size, batch_size=size)
        times: list[float] = []
        while sum(times) < TIMED_SECONDS:
            start = time.perf_counter()
            fill_tokens(lm, prompts, lengths=[TIMED_TOKENS] * size, batch_size=size)
            times.append(time.perf_counter() - start)
        found[size] = size * TIMED_TOKENS / min(times)
    return found
