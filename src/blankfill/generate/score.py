"""Scoring candidates for the blanks of a text: how probable exactly these fills are.

Part A is encoded once, and each candidate is read in one step (GLM-130B packs all choices behind
one Part A likewise: `evaluation/dataset.py`). A later blank sees the candidate's earlier fills. As
when filling, probabilities are over the tokens that may be generated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from blankfill.errors import RequestError
from blankfill.generate.infill import encode_request
from blankfill.generate.known import known_logprobs
from blankfill.generate.notebook import candidates_html
from blankfill.generate.prompts import checked_prompt
from blankfill.generate.writing import Writing
from blankfill.objective.batch import Int32
from blankfill.results import short_repr, to_dict
from blankfill.text.user_text import blanks_after_space, require_fills

if TYPE_CHECKING:
    from blankfill.generate.language_model import LanguageModel

__all__ = ["RankBy", "ScoredCandidate", "ScoredFill", "ScoredText", "rank_fills", "score_fills"]

RankBy = Literal["probability", "tokens", "mean"]
"""What candidates are ranked by: see `ScoredCandidate`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredFill:
    """One fill of one blank."""

    text: str
    """As it was given."""
    tokens: tuple[str, ...]
    """Its pieces."""
    logprob: float
    """Natural log of its probability, the end of the blank included."""
    end_logprob: float
    """That of the end alone."""

    __repr__ = short_repr
    to_dict = to_dict


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredCandidate:
    """One candidate: a fill for each blank."""

    fills: tuple[str, ...]
    """Left to right, as they were given."""
    probability: float
    """Probability that the blanks are filled with exactly this, their ends included."""
    logprob: float
    """Its natural log."""
    tokens_logprob: float
    """That of the tokens without the ends, as GLM-130B scores choices."""
    mean_logprob: float
    """`logprob` per token, each end counted as one: what length does not decide."""
    blanks: tuple[ScoredFill, ...]
    """Each fill, given the ones before it."""

    __repr__ = short_repr
    to_dict = to_dict


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredText:
    """A text and the candidates for its blanks."""

    prompt: str
    """The text as it was given."""
    candidates: tuple[ScoredCandidate, ...]
    """As they were given, or best first where they were ranked."""

    __repr__ = short_repr
    to_dict = to_dict

    def _repr_html_(self) -> str:
        return candidates_html(self.prompt, self.candidates)


def score_fills(
    lm: LanguageModel, text: str, candidates: Sequence[str], *, trim: bool = False
) -> ScoredText:
    """Score candidates for the blanks of a text.

    Args:
        lm: the model.
        text: with at least one blank.
        candidates: of a text with several blanks the fills of the first candidate, left to right,
            then those of the next. Where a space stands before a blank, a fill is given it too.
        trim: of a text that is too long, read what is around its blanks.

    Raises:
        RequestError: the text cannot be filled; there is no candidate, or not one fill for each
            blank; or a fill is empty or longer than the model's positions reach.
        CheckpointError: the model's scores are not numbers.
    """
    require_fills(text, candidates)
    tokens = encode_request(text, lm.tokenizer, lm.cfg, trim=trim)
    prompt = checked_prompt(tokens, lm.ids, lm.cfg)
    num_blanks = len(prompt.blanks)
    spaces = blanks_after_space(text)
    spans = [
        _encode_fill(lm, fill, number, after_space=spaces[number % num_blanks])
        for number, fill in enumerate(candidates)
    ]
    groups = [slice(k, k + num_blanks) for k in range(0, len(spans), num_blanks)]
    writings = [
        Writing(
            prompt=prompt, scheme=lm.scheme, enders=(lm.ids.eop, lm.ids.eos),
            limit=max(map(len, spans[group])), order=tuple(range(num_blanks)),
            forced=[[*span.tolist(), lm.ids.eop] for span in spans[group]],
        )
        for group in groups
    ]  # fmt: skip
    logprobs = known_logprobs(lm, writings)
    scored = [
        _candidate(lm, candidates[group], spans[group], values)
        for group, values in zip(groups, logprobs, strict=True)
    ]
    return ScoredText(prompt=text, candidates=tuple(scored))


def rank_fills(
    lm: LanguageModel, text: str, candidates: Sequence[str], *, by: RankBy = "probability",
    trim: bool = False,
) -> ScoredText:  # fmt: skip
    """Score candidates, and put the best first; those that are level stay in their order.

    Args:
        lm: the model.
        text: with at least one blank.
        candidates: as for `score_fills`.
        by: `probability` of exactly these fills; `tokens` leaves the ends out, as GLM-130B scores
            choices; `mean` is per token, so that length does not decide.
        trim: as for `score_fills`.

    Raises:
        RequestError: as for `score_fills`.
    """
    scored = score_fills(lm, text, candidates, trim=trim)
    keys = {"probability": "logprob", "tokens": "tokens_logprob", "mean": "mean_logprob"}
    ranked = sorted(scored.candidates, key=lambda each: -getattr(each, keys[by]))
    return replace(scored, candidates=tuple(ranked))


def _encode_fill(lm: LanguageModel, fill: str, number: int, *, after_space: bool) -> Int32:
    """Encode one fill, with the space that was taken from before its blank."""
    space = " " if after_space and not fill[0].isspace() else ""
    span = lm.tokenizer.encode(space + fill)
    if not len(span):
        raise RequestError(f"the model's tokenizer has no token for fill {number + 1}, {fill!r}")
    longest = lm.model.cfg.max_position - 2
    if len(span) > longest:
        raise RequestError(
            f"fill {number + 1} has {len(span):,} tokens and this model writes {longest:,} into a "
            "blank; give a shorter one"
        )
    return span


def _candidate(
    lm: LanguageModel, fills: Sequence[str], spans: Sequence[Int32], logprobs: Sequence[float]
) -> ScoredCandidate:
    blanks: list[ScoredFill] = []
    start = 0
    for fill, span in zip(fills, spans, strict=True):
        end = start + len(span)
        blanks.append(
            ScoredFill(
                text=fill, tokens=tuple(lm.tokenizer.token(int(token)) for token in span),
                logprob=sum(logprobs[start : end + 1]), end_logprob=logprobs[end],
            )
        )  # fmt: skip
        start = end + 1
    logprob = sum(logprobs)
    return ScoredCandidate(
        fills=tuple(fills), probability=math.exp(logprob), logprob=logprob,
        tokens_logprob=logprob - sum(blank.end_logprob for blank in blanks),
        mean_logprob=logprob / len(logprobs), blanks=tuple(blanks),
    )  # fmt: skip
