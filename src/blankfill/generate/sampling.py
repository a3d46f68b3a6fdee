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

from blankfill.config.filling import MinP, RepetitionPenalty, TopK, Typical
from blankfill.config.ranges import Range, Temperature, TopP, check_numbers

__all__ = [
    "GREEDY",
    "Sampling",
    "best",
    "choose",
    "discouraged",
    "kept_tokens",
    "log_probabilities",
    "min_p_filter",
    "top_k_filter",
    "top_p_filter",
    "typical_filter",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How tokens are chosen. Each rule takes away tokens of what those before it have left, in the
    order in which they stand here."""

    temperature: Temperature = 0.0
    """0 takes the most probable token; above, logits are divided by it before drawing."""
    top_k: TopK = 0
    """Draw from so many most probable tokens; 0 from all."""
    top_p: TopP = 1.0
    """Draw from the smallest set of tokens whose probability reaches this."""
    min_p: MinP = 0.0
    """Draw from the tokens that have at least this share of the best one's probability."""
    typical: Typical = 1.0
    """Draw from the set of tokens nearest to the expected surprise whose probability reaches
    this."""
    repetition_penalty: RepetitionPenalty = 1.0
    """Scores of tokens that stand in the text already are divided by this where they are positive,
    else multiplied, before anything else is done."""
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


def discouraged(
    logits: torch.Tensor, seen: Sequence[Sequence[int]], penalty: float
) -> torch.Tensor:
    """Make tokens that have been seen less probable, or more where `penalty` is below 1.

    Of CTRL (Keskar et al. 2019), as transformers applies it to ChatGLM: the model's own scores, not
    their logarithms of probabilities, are divided where they are positive, else multiplied. (GLM's
    released beams fed it log-probabilities, on which it hardly acts on a token that is certain.)

    Args:
        logits: `[n, V]` scores; minus infinity where a token may not appear.
        seen: of each row the tokens of its text, prompt and what was written.
        penalty: above 0; 1 changes nothing.

    Returns:
        `[n, V]` scores.
    """
    scores = logits.clone()
    for row, tokens in zip(scores, seen, strict=True):
        index = torch.tensor(sorted({*tokens}), dtype=torch.int64, device=row.device)
        held = row[index]
        row[index] = torch.where(held > 0, held / penalty, held * penalty)
    return scores


def top_k_filter(log_probs: torch.Tensor, top_k: int) -> torch.Tensor:
    """Keep the `top_k` most probable tokens of `[B, V]`; 0 keeps all, and so do ties with the last.

    Returns:
        `[B, V]` log-probabilities, minus infinity outside the set; not normalised again.
    """
    if not 0 < top_k < log_probs.shape[-1]:
        return log_probs
    last = log_probs.topk(top_k, dim=-1).values[:, -1:]
    return log_probs.masked_fill(log_probs < last, float("-inf"))


def top_p_filter(log_probs: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keep the smallest set of tokens whose probability reaches `top_p` (Holtzman et al. 2020).

    The token that crosses the threshold is kept, so at least one always stays.

    Args:
        log_probs: `[B, V]`.
        top_p: threshold in (0, 1].

    Returns:
        `[B, V]` log-probabilities, minus infinity outside the set; not normalised again.
    """
    return log_probs if top_p >= 1 else _smallest_set(log_probs, -log_probs, top_p)


def min_p_filter(log_probs: torch.Tensor, min_p: float) -> torch.Tensor:
    """Keep the tokens with at least `min_p` of the best one's probability (Nguyen et al. 2024).

    Returns:
        `[B, V]` log-probabilities, minus infinity outside the set; not normalised again.
    """
    if min_p <= 0:
        return log_probs
    least = log_probs.max(dim=-1, keepdim=True).values + math.log(min_p)
    return log_probs.masked_fill(log_probs < least, float("-inf"))


def typical_filter(log_probs: torch.Tensor, typical: float) -> torch.Tensor:
    """Keep the tokens whose surprise is nearest to the expected one (Meister et al. 2023), the
    smallest set of them whose probability reaches `typical`.

    Args:
        log_probs: `[B, V]` normalised.
        typical: threshold in (0, 1].

    Returns:
        `[B, V]` log-probabilities, minus infinity outside the set; not normalised again.
    """
    if typical >= 1:
        return log_probs
    probabilities = log_probs.exp()
    entropy = -(probabilities * log_probs.clamp_min(torch.finfo(log_probs.dtype).min)).sum(
        dim=-1, keepdim=True
    )
    return _smallest_set(log_probs, (-log_probs - entropy).abs(), typical)


def _smallest_set(log_probs: torch.Tensor, rank: torch.Tensor, threshold: float) -> torch.Tensor:
    """Keep the first tokens by `rank`, lowest first, until their probability reaches a threshold;
    the one that crosses it is kept."""
    order = rank.argsort(dim=-1, stable=True)
    ordered = log_probs.gather(-1, order).exp()
    before = ordered.cumsum(dim=-1) - ordered
    outside = torch.zeros_like(log_probs, dtype=torch.bool)
    outside.scatter_(-1, order, before >= threshold)
    return log_probs.masked_fill(outside, float("-inf"))


def kept_tokens(log_probs: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Apply the temperature and every rule of a sampling: what is drawn from.

    Args:
        log_probs: `[B, V]`; minus infinity where a token may not appear.
        sampling: with a temperature above 0.

    Returns:
        `[B, V]` float64 probabilities.
    """
    # In float64 and from the best token down, so that the division can neither overflow nor turn
    # two tokens into one at any temperature that may be given.
    apart = log_probs.double() - log_probs.max(dim=-1, keepdim=True).values
    kept = (apart / sampling.temperature).log_softmax(dim=-1)
    for rule in (
        lambda kept: top_k_filter(kept, sampling.top_k),
        lambda kept: top_p_filter(kept, sampling.top_p),
        lambda kept: min_p_filter(kept, sampling.min_p),
        lambda kept: typical_filter(kept, sampling.typical),
    ):
        left = rule(kept)
        kept = kept if left is kept else left.log_softmax(dim=-1)
    return kept.exp()


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
    kept = kept_tokens(log_probs, sampling)
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
