"""What one system answered, blank by blank, and the scores that come of it.

Shapes: n blanks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blankfill.evaluate.items import BlankItem
from blankfill.evaluate.statistics import ratio_of_sums
from blankfill.runs.evaluation import BlankScores, Reads

__all__ = ["Answers", "score_answers"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Answers:
    """One system's answers to the same blanks."""

    system: str
    """model, trigram or unigram."""
    reads: Reads
    """What it is told of the text around a blank."""
    nats: npt.NDArray[np.float64]
    """`[n]` of the true tokens, the end apart."""
    exact_given_length: npt.NDArray[np.bool_]
    """`[n]` whether it writes the true text when it is told how many tokens to write."""
    exact: npt.NDArray[np.bool_] | None = None
    """`[n]` whether it writes the true text and ends there by itself."""
    end_nats: npt.NDArray[np.float64] | None = None
    """`[n]` of the end after the true tokens."""


def score_answers(answers: Answers, items: Sequence[BlankItem]) -> BlankScores:
    """Put a system's answers into scores with standard errors, documents as clusters."""
    documents = [item.blank.document for item in items]
    blanks = np.ones(len(items))
    per = {
        "token": [len(item.span) for item in items],
        "character": [len(item.blank.text) for item in items],
        "word": [item.blank.num_words for item in items],
        "byte": [len(item.blank.text.encode("utf-8", "surrogatepass")) for item in items],
    }
    exact, end = answers.exact, answers.end_nats
    return BlankScores(
        system=answers.system, reads=answers.reads,
        exact_match=None if exact is None else ratio_of_sums(exact, blanks, documents),
        exact_match_given_length=ratio_of_sums(answers.exact_given_length, blanks, documents),
        loss_nats_per_token=ratio_of_sums(answers.nats, per["token"], documents),
        loss_nats_per_character=ratio_of_sums(answers.nats, per["character"], documents),
        loss_nats_per_word=ratio_of_sums(answers.nats, per["word"], documents),
        bits_per_byte=ratio_of_sums(answers.nats / math.log(2), per["byte"], documents),
        end_loss_nats=None if end is None else ratio_of_sums(end, blanks, documents),
    )  # fmt: skip
