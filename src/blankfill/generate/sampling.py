"""Choosing the next token from logits: pure functions.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch

from blankfill.config.ranges import Range, Temperature, TopP, check_numbers

__all__ = ["GREEDY", "Sampling", "best", "choose", "log_probabilities", "top_p_filter"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How tokens are chosen."""

    temperature: Temperature = 0.0
    """0 takes the most probable token; above, logits are divided by it before drawing."""
    top_p: TopP = 1.0
    """Draw from the smallest set of tokens whose probability reaches this."""
    seed: Annotated[int, Range(0, 2**128)] = 0
    """Seed of the draws; equal seeds and texts give equal fills, whatever the batch."""

    def __post_init__(self) -> None:
        check_numbers(self, "")


GREEDY = Sampling()
"""The most probable token each time."""


def log_probabilities(logits: torch.Tensor, banned: torch.Tensor) -> torch.Tensor:
    """Normalise logits over the tokens that may appear.

    Args:
        logits: `[B, V]`.
        banned: `[V]` true where a token may never be generated.

    Returns:
        `[B, V]` float32 log-probabilities; minus infinity where banned.
    """
    return logits.float().masked_fill(banned, float("-inf")).log_softmax(dim=-1)


def top_p_filter(log_probs: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keep the smallest set of tokens whose probability reaches `top_p` (Holtzman et al. 2020).

    The token that crosses the threshold is kept, so at least one always stays.

    Args:
        log_probs: `[B, V]`.
        top_p: threshold in (0, 1].

    Returns:
        `[B, V]` log-probabilities, minus infinity outside the set; not normalised again.
    """
    if top_p >= 1:
        return log_probs
    ordered, order = log_probs.sort(dim=-1, descending=True)
    before = ordered.exp().cumsum(dim=-1) - ordered.exp()
    outside = torch.zeros_like(log_probs, dtype=torch.bool)
    outside.scatter_(-1, order, before >= top_p)
    return log_probs.masked_fill(outside, float("-inf"))


def choose(
    log_probs: torch.Tensor, sampling: Sampling, generators: Sequence[np.random.Generator]
) -> torch.Tensor:
    """Choose one token per row.

    Args:
        log_probs: `[B, V]`.
        sampling: greedy or drawn.
        generators: one per row, so that a row's draws do not depend on its neighbours; none are
            needed where nothing is drawn.

    Returns:
        `[B]` int64 token ids.
    """
    if sampling.temperature == 0:
        return log_probs.argmax(dim=-1)
    # In float64 and from the best token down, so that the division can neither overflow nor turn
    # two tokens into one at any temperature that may be given.
    apart = log_probs.double() - log_probs.max(dim=-1, keepdim=True).values
    scaled = (apart / sampling.temperature).log_softmax(dim=-1)
    kept = top_p_filter(scaled, sampling.top_p).softmax(dim=-1)
    uniform = torch.tensor([g.random() for g in generators], dtype=torch.float64)
    uniform = uniform.to(kept.device)
    below = kept.cumsum(dim=-1)
    # Scaled to the last sum, so that rounding can hardly point past the last token that is kept.
    found = torch.searchsorted(below, (uniform * below[:, -1]).unsqueeze(1), right=True)[:, 0]
    last = (below < below[:, -1:]).sum(dim=-1)
    return torch.minimum(found, last)


def best(log_probs: torch.Tensor, count: int) -> list[int]:
    """Give the most probable tokens of `[V]`, best first; fewer where fewer may appear."""
    found = log_probs.topk(min(count, len(log_probs)))
    pairs = zip(found.indices.tolist(), found.values.tolist(), strict=True)
    return [token for token, value in pairs if value > -math.inf]
