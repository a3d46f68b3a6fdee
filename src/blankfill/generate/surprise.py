"""How surprising each word of a text is where it stands: its pseudo-log-likelihood.

Each word is cut out in turn, and the model says how probable exactly this word is in the blank,
with all of the rest in sight. Within the word pieces are read from left to right, so that a word of
several pieces is not told by its own end: PLL-word-l2r (Kauf and Ivanova 2023), which is what
filling a blank does. Chinese and Japanese are measured character by character. Plain
pseudo-log-likelihood (Salazar et al. 2020) hides one piece at a time and finds long words too easy.

A text of n words is read n times, many readings in one pass; of a text longer than the model's rows
each word is read with what stands around it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from blankfill.errors import RequestError
from blankfill.generate.known import known_logprobs
from blankfill.generate.notebook import words_html
from blankfill.generate.trim import around_blanks
from blankfill.generate.writing import Writing
from blankfill.objective.batch import Int32
from blankfill.objective.blank import Prompt, build_prompt
from blankfill.results import short_repr, to_dict
from blankfill.text.user_text import checked, require_words

if TYPE_CHECKING:
    from blankfill.generate.language_model import LanguageModel

__all__ = ["SurprisedText", "WordSurprise", "surprise_words"]

CHARACTERS_A_TOKEN = 8
"""Characters of context that are encoded for each token that a row holds: more than pieces have, so
that a row is full, and a bounded number, so that a long text costs no more by the word."""
WORDS_AT_A_TIME = 256
"""Words whose contexts are in memory at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WordSurprise:
    """One word, or one character of Chinese or Japanese, and what the model thinks of it."""

    text: str
    """The word, without the space before it."""
    start: int
    """Where it begins in the text, in characters."""
    surprise: float
    """Minus the natural log of the probability of its pieces, read left to right, in nats."""
    logprob: float
    """Natural log of the probability that a blank in its place is filled with exactly this word,
    the end of the blank included; what `score` says of it."""
    end_logprob: float
    """That of the end alone."""
    tokens: tuple[str, ...]
    """Its pieces."""

    __repr__ = short_repr
    to_dict = to_dict


@dataclass(frozen=True, kw_only=True, slots=True)
class SurprisedText:
    """A text and how surprising each of its words is."""

    text: str
    """As it was given."""
    words: tuple[WordSurprise, ...]
    """Its words and its punctuation, left to right; white space is not among them."""
    total: float
    """Sum of their surprises, in nats: minus the text's pseudo-log-likelihood."""
    mean: float
    """`total` per word."""

    __repr__ = short_repr
    to_dict = to_dict

    def _repr_html_(self) -> str:
        return words_html(self.text, self.words, self.total)


def surprise_words(
    lm: LanguageModel, text: str, *, advance: Callable[[int], None] | None = None
) -> SurprisedText:
    """Measure how surprising each word of a text is.

    Args:
        lm: the model.
        text: without a blank, of any length.
        advance: called with the number of words that were just measured.

    Raises:
        RequestError: the text has a blank or no word, or a word is longer than a row.
        CheckpointError: the model's scores are not numbers.
    """
    spans = require_words(checked(text))
    words: list[WordSurprise] = []
    for k in range(0, len(spans), WORDS_AT_A_TIME):
        words += _measure(lm, text, spans[k : k + WORDS_AT_A_TIME], advance)
    total = math.fsum(word.surprise for word in words)
    return SurprisedText(text=text, words=tuple(words), total=total, mean=total / len(words))


def _measure(
    lm: LanguageModel, text: str, spans: list[tuple[int, int]],
    advance: Callable[[int], None] | None,
) -> list[WordSurprise]:  # fmt: skip
    cut = [_cut_out(lm, text, *span) for span in spans]
    writings = [
        Writing(
            prompt=prompt, scheme=lm.scheme, enders=(lm.ids.eop, lm.ids.eos), limit=len(word),
            order=(0,), forced=[[*word.tolist(), lm.ids.eop]],
        )
        for prompt, word in cut
    ]  # fmt: skip
    found = known_logprobs(lm, writings, advance)
    return [
        WordSurprise(
            text=text[start:end], start=start, surprise=-math.fsum(values[:-1]),
            logprob=math.fsum(values), end_logprob=values[-1],
            tokens=tuple(map(lm.tokenizer.token, word.tolist())),
        )
        for (start, end), (_, word), values in zip(spans, cut, found, strict=True)
    ]  # fmt: skip


def _cut_out(lm: LanguageModel, text: str, start: int, end: int) -> tuple[Prompt, Int32]:
    """Make a blank of one word, the space before it included; give it and the word's tokens."""
    begin = start - text[:start].endswith(" ")
    reach = CHARACTERS_A_TOKEN * lm.row_length
    word = lm.tokenizer.encode(text[begin:end])
    room = lm.row_length - len(word) - 1
    if not len(word) or room < 1:
        raise RequestError(
            f"the word at character {start:,} has {len(word):,} tokens, and a row of this model "
            f"holds {lm.row_length:,}; leave it out"
        )
    tokens = np.concatenate([
        lm.tokenizer.encode(text[max(0, begin - reach) : begin]), np.array([lm.ids.mask], np.int32),
        lm.tokenizer.encode(text[end : end + reach]),
    ])  # fmt: skip
    kept = around_blanks(tokens, lm.ids, room)
    return build_prompt(tokens[kept], lm.ids, sentinel_position=lm.sentinel_position), word
