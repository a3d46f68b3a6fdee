"""The n-gram models beside an evaluation: what they are estimated on, and how they score blanks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from blankfill import progress
from blankfill.data.order import VisitOrder
from blankfill.data.store import TokenStore
from blankfill.evaluate.answers import Answers
from blankfill.evaluate.items import BlankItem
from blankfill.evaluate.ngram import Trigram, Unigram
from blankfill.rng import permute
from blankfill.runs.evaluation import Reads

__all__ = ["MAX_TOKENS", "Baselines", "fit_baselines", "sample_documents"]

MAX_TOKENS = 1 << 25
"""Training tokens that the models are estimated on at most. What they hold grows with the different
trigrams of the text; this many bound it whatever the store's size."""
_DOCUMENTS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Baselines:
    """The fitted models."""

    unigram: Unigram
    """Token frequencies."""
    trigram: Trigram
    """Interpolated Kneser-Ney."""
    num_tokens: int
    """Training tokens that they were estimated on."""
    of_tokens: int
    """Training tokens that there are."""

    def score(self, items: Sequence[BlankItem]) -> list[Answers]:
        """Score each model's probability of every blank, and what it writes at the true length."""
        nats = {"trigram": np.zeros(len(items)), "unigram": np.zeros(len(items))}
        exact = {name: np.zeros(len(items), np.bool_) for name in nats}
        trigram, unigram = self.trigram, self.unigram
        for i, item in enumerate(items):
            span = item.span.astype(np.int64)
            line = np.concatenate([[trigram.begin] * 2, item.before, span]).astype(np.int64)
            at = np.arange(len(line) - len(span), len(line))
            nats["trigram"][i] = -trigram.log_prob(line[at - 2], line[at - 1], span).sum()
            nats["unigram"][i] = -unigram.log_probs[span].sum()
            guess = trigram.greedy(int(line[at[0] - 2]), int(line[at[0] - 1]), len(span))
            exact["trigram"][i] = np.array_equal(guess, span)
            exact["unigram"][i] = bool((span == unigram.best).all())
        reads: dict[str, Reads] = {"trigram": "two tokens", "unigram": "nothing"}
        return [
            Answers(system=name, reads=reads[name], nats=nats[name], exact_given_length=exact[name])
            for name in nats
        ]


def fit_baselines(
    stores: Sequence[TokenStore], vocab_size: int, *, max_tokens: int | None = None
) -> Baselines:
    """Estimate the n-gram models on training text.

    Args:
        stores: training text.
        vocab_size: tokens over which probabilities sum to one.
        max_tokens: instead of `MAX_TOKENS`.
    """
    limit = MAX_TOKENS if max_tokens is None else max_tokens
    total = sum(store.num_tokens for store in stores)
    with progress.bar("n-gram models", 2, "models") as meter:
        unigram = Unigram.fit(sample_documents(stores, limit), vocab_size)
        meter.advance()
        trigram = Trigram(sample_documents(stores, limit), vocab_size)
        meter.advance()
    return Baselines(
        unigram=unigram, trigram=trigram, num_tokens=min(limit, total), of_tokens=total
    )


def sample_documents(
    stores: Sequence[TokenStore], max_tokens: int
) -> Iterator[npt.NDArray[np.unsignedinteger[Any]]]:
    """Read all documents, or as many of them as `max_tokens` hold: always the same, drawn from all.

    The last one is cut where the number is reached. Of stores that are read group by group
    (`data/order.py`) they are drawn from the first groups.
    """
    ends = np.cumsum([len(store) for store in stores])
    num_documents = int(ends[-1]) if len(ends) else 0
    is_sampled = sum(store.num_tokens for store in stores) > max_tokens
    order = VisitOrder(stores, 0)
    left = max_tokens
    for first in range(0, num_documents, _DOCUMENTS_AT_ONCE):
        numbers = np.arange(first, min(first + _DOCUMENTS_AT_ONCE, num_documents))
        if is_sampled:
            numbers = (
                permute(numbers, num_documents, 0, "n-gram models")
                if order.is_whole
                else order.documents(numbers, 0)  # of the shards of one group, not of all
            )
        owners = np.searchsorted(ends, numbers, side="right")
        for number, s in zip(numbers.tolist(), owners.tolist(), strict=True):
            store = stores[s]
            document = store.document(number - int(ends[s]) + len(store))[:left]
            left -= len(document)
            yield document
            if not left:
                return
