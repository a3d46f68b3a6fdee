"""Filling and continuing texts: strings in, strings out, with probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from blankfill.config.filling import (
    MOST_BEAMS,
    NO_BOUNDS,
    BeamSearch,
    Bounds,
    LengthPenalty,
    Strategy,
    Wish,
)
from blankfill.config.run import RunConfig
from blankfill.errors import BlankfillError, RequestError
from blankfill.generate.boundaries import Edges, encode_edges
from blankfill.generate.bounded import BoundFill, bound_fill
from blankfill.generate.notebook import fill_html
from blankfill.generate.prompts import checked_prompt, kept_stretch
from blankfill.generate.sampling import GREEDY, Sampling
from blankfill.generate.search import LEFT_TO_RIGHT, FilledText, fill_tokens
from blankfill.generate.writing import FilledBlank
from blankfill.objective.batch import Int32
from blankfill.results import short_repr, to_dict
from blankfill.text.tokenizer import TextTokenizer
from blankfill.text.user_text import checked, require_blank

if TYPE_CHECKING:
    from blankfill.generate.language_model import LanguageModel

__all__ = [
    "Candidate",
    "FillOptions",
    "FilledItem",
    "JointFill",
    "TextBlank",
    "encode_request",
    "fill_texts",
    "listed",
    "one_or_all",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One possible fill of a blank."""

    text: str
    """The fill as text."""
    probability: float
    """Probability of exactly this fill, its end included; of its tokens where it was cut off."""
    tokens: tuple[str, ...]
    """Its pieces."""
    ended: bool
    """False where the token limit cut the fill off."""

    __repr__ = short_repr
    to_dict = to_dict


@dataclass(frozen=True, kw_only=True, slots=True)
class TextBlank:
    """What one blank of a text was filled with."""

    text: str
    """The fill."""
    probability: float
    """Probability of exactly this fill, its end included; of its tokens where it was cut off."""
    tokens: tuple[str, ...]
    """Its pieces."""
    ended: bool
    """False where the token limit cut the fill off."""
    start: int
    """Where it begins in the filled text, in characters."""
    candidates: tuple[Candidate, ...]
    """Several fills, most probable first, where they were asked for; the one in the text is among
    them, and need not be the first: it was chosen token by token."""
    near_ties: tuple[int, ...] = ()
    """Tokens, counted from 0 and the end among them, whose two best choices lie within 1e-4 nats:
    in another batch, or on another machine, the other one may be taken."""
    stop: str | None = None
    """The stop string that ended it, which is not part of it; its pieces are among the tokens."""

    __repr__ = short_repr
    to_dict = to_dict


@dataclass(frozen=True, kw_only=True, slots=True)
class JointFill:
    """One possible fill of all blanks of a text together."""

    fills: tuple[str, ...]
    """Left to right."""
    probability: float
    """Probability of exactly these fills, their ends included."""

    __repr__ = short_repr
    to_dict = to_dict


@dataclass(frozen=True, kw_only=True, slots=True)
class FilledItem:
    """One text and its fills."""

    prompt: str
    """The text as it was given."""
    text: str
    """The text with every blank filled; empty where there is an error."""
    blanks: tuple[TextBlank, ...]
    """Left to right."""
    joint: tuple[JointFill, ...] = ()
    """Fills of all blanks together, best first, where they were asked for."""
    trimmed: int = 0
    """Tokens of the text that the model did not see, where it was too long."""
    error: str | None = None
    """Why this text could not be filled, in one sentence."""

    __repr__ = short_repr
    to_dict = to_dict

    def _repr_html_(self) -> str:
        return fill_html(self)


class FillOptions(TypedDict, total=False):
    """Options of `LanguageModel.fill`, which describes them."""

    strategy: Strategy
    num_candidates: int
    joint: bool
    beams: int
    length_penalty: LengthPenalty
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical: float
    seed: int
    max_new_tokens: int
    bounds: Bounds
    back_off: int
    trim: bool


def fill_texts(
    lm: LanguageModel,
    texts: Sequence[str],
    *,
    max_new_tokens: int = 64,
    num_candidates: int = 1,
    sampling: Sampling = GREEDY,
    wish: Wish = LEFT_TO_RIGHT,
    bounds: Bounds = NO_BOUNDS,
    back_off: int = 0,
    trim: bool = False,
    batch_size: int = 32,
    advance: Callable[[int], None] | None = None,
) -> list[FilledItem]:
    """Fill the blanks `[MASK]`, `[sMASK]` and `[gMASK]` of each text.

    Args:
        lm: the model.
        texts: each with at least one blank; one that cannot be filled gets its error for an
            answer, and the others are filled.
        max_new_tokens: longest fill of one blank.
        num_candidates: fills to list per blank. Greedy: the best continuation of each of the most
            probable first tokens. Sampled: that many independent draws. The other blanks keep
            their first answer. Fills that read alike are listed once, and all by probability.
        sampling: greedy or drawn.
        wish: by which strategy, with how many beams, and whether candidates are fills of all
            blanks together.
        bounds: what every fill has to be like.
        back_off: pieces on either side of a blank that may be taken into it, where it touches a
            word; the fill is held to their characters.
        trim: of a text that is too long, read what is around its blanks.
        batch_size: most rows that run together.
        advance: called with the number of texts that were just finished.

    Raises:
        RequestError: num_candidates is not positive, or what is wanted does not go together.
    """
    if num_candidates < 1:
        raise RequestError(f"num_candidates={num_candidates} must be at least 1")
    if bounds.allowed and not sampling.temperature and wish.beams is None:
        wish = replace(wish, beams=_beams_for(len(bounds.allowed), num_candidates))
    asked: list[_Asked] = []
    errors: list[str | None] = []
    for text in texts:
        try:
            asked.append(_ask(lm, text, bounds, back_off, max_new_tokens, trim=trim))
            errors.append(None)
        except BlankfillError as error:
            errors.append(str(error))
            if advance is not None:
                advance(1)
    filled = fill_tokens(
        lm, [one.tokens for one in asked], sampling=sampling, num_candidates=num_candidates,
        max_new_tokens=max([max_new_tokens, *(rule.most for one in asked for rule in one.rules)]),
        batch_size=batch_size, wish=wish, rules=[one.rules for one in asked], advance=advance,
    )  # fmt: skip
    lists = num_candidates > 1 and not wish.joint
    items: list[FilledItem] = []
    done = zip(asked, filled, strict=True)
    for text, error in zip(texts, errors, strict=True):
        if error is not None:
            items.append(FilledItem(prompt=text, text="", blanks=(), error=error))
            continue
        items.append(_item(lm.tokenizer, text, *next(done), lists=lists))
    return items


def _beams_for(num_allowed: int, num_candidates: int) -> BeamSearch:
    """Give beams for all fills that there may be, so that the most probable is found."""
    width = min(max(num_allowed, num_candidates), MOST_BEAMS)
    return BeamSearch(width=width, penalty="none")


def encode_request(
    text: str, tokenizer: TextTokenizer, cfg: RunConfig, *, trim: bool = False
) -> Int32:
    """Turn a text with blanks into tokens, if a model can fill it; its weights are not needed.

    Args:
        text: the text.
        tokenizer: the model's.
        cfg: what it was trained with.
        trim: of a text that is too long, take what is around its blanks.

    Raises:
        RequestError: it is no text, has no blank or an unknown one, or is longer than the model's
            positions reach.
        DataError: it has more blanks than the tokenizer has sentinels.
    """
    tokens, _, kept = _encode(text, tokenizer, cfg, 0, trim=trim)
    return tokens[kept]


def _encode(
    text: str, tokenizer: TextTokenizer, cfg: RunConfig, back_off: int, *, trim: bool
) -> tuple[Int32, list[Edges], slice]:
    """Give the tokens of a text, the edges of its blanks, and what the model reads of it."""
    require_blank(checked(text))
    tokens, edges = encode_edges(text, tokenizer, back_off)
    kept = kept_stretch(tokens, tokenizer.ids, cfg, trim=trim)
    checked_prompt(tokens[kept], tokenizer.ids, cfg)
    return tokens, edges, kept


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """One text as the model is asked."""

    tokens: Int32
    before: Int32
    """What was cut away in front of `tokens`, and after them."""
    after: Int32
    edges: list[Edges]
    rules: list[BoundFill]
    """Of each blank; none where nothing bounds its fill."""


def _ask(
    lm: LanguageModel, text: str, bounds: Bounds, back_off: int, max_new_tokens: int, *, trim: bool
) -> _Asked:  # fmt: skip
    """Turn a text into tokens and the rules of its fills."""
    tokens, edges, kept = _encode(text, lm.tokenizer, lm.cfg, back_off, trim=trim)
    rules: list[BoundFill] = []
    if bounds or back_off:
        longest = lm.model.cfg.max_position - 2
        rules = [
            bound_fill(lm.tokenizer, bounds, each, max_new_tokens=max_new_tokens, longest=longest)
            for each in edges
        ]
    return _Asked(
        tokens=tokens[kept], before=tokens[: kept.start], after=tokens[kept.stop :], edges=edges,
        rules=rules,
    )  # fmt: skip


def listed(texts: str | Sequence[str]) -> Sequence[str]:
    """Take one text, or several, as several."""
    return [texts] if isinstance(texts, str) else texts


def one_or_all(
    texts: str | Sequence[str], items: list[FilledItem]
) -> FilledItem | list[FilledItem]:
    """Give one answer for one text.

    Raises:
        RequestError: it is an error.
    """
    if not isinstance(texts, str):
        return items
    (item,) = items
    if item.error is not None:
        raise RequestError(item.error)
    return item


def _item(
    tokenizer: TextTokenizer, text: str, asked: _Asked, result: FilledText, *, lists: bool
) -> FilledItem:  # fmt: skip
    """Give the answer of one text."""
    if result.error is not None:
        return FilledItem(prompt=text, text="", blanks=(), error=result.error)
    tokens = np.concatenate([asked.before, result.tokens, asked.after])
    first = len(asked.before)
    starts = [len(tokenizer.decode(tokens[: first + start])) for start in result.starts]
    blanks = tuple(
        _text_blank(tokenizer, blank, edges, start, lists=lists)
        for blank, edges, start in zip(result.blanks, asked.edges, starts, strict=True)
    )
    return FilledItem(
        prompt=text, text=tokenizer.decode(tokens), blanks=blanks,
        trimmed=first + len(asked.after),
        joint=_joint_fills(tokenizer, result.together, asked.edges),
    )  # fmt: skip


def _text_blank(
    tokenizer: TextTokenizer, blank: FilledBlank, edges: Edges, start: int, *, lists: bool
) -> TextBlank:
    candidates: dict[str, Candidate] = {}
    if lists:
        for fill in sorted([blank, *blank.others], key=lambda f: -f.logprob):
            text = edges.inside(tokenizer.decode(fill.tokens))
            candidates.setdefault(text, _candidate(tokenizer, fill, text))
    own = _candidate(tokenizer, blank, edges.inside(tokenizer.decode(blank.tokens)))
    return TextBlank(
        text=own.text, probability=own.probability, tokens=own.tokens, ended=blank.ended,
        start=start + len(edges.before), candidates=tuple(candidates.values()),
        near_ties=blank.near_ties,
    )  # fmt: skip


def _joint_fills(
    tokenizer: TextTokenizer, together: Sequence[Sequence[FilledBlank]], edges: Sequence[Edges]
) -> tuple[JointFill, ...]:
    """Give fills of all blanks together as texts, the most probable first, each once."""
    found: dict[tuple[str, ...], JointFill] = {}
    for fills in sorted(together, key=lambda each: -sum(fill.logprob for fill in each)):
        texts = tuple(
            edge.inside(tokenizer.decode(fill.tokens))
            for fill, edge in zip(fills, edges, strict=True)
        )
        probability = math.exp(sum(fill.logprob for fill in fills))
        found.setdefault(texts, JointFill(fills=texts, probability=probability))
    return tuple(found.values())


def _candidate(tokenizer: TextTokenizer, fill: FilledBlank, text: str) -> Candidate:
    return Candidate(
        text=text,
        probability=math.exp(fill.logprob),
        tokens=tuple(tokenizer.token(int(token)) for token in fill.tokens),
        ended=fill.ended,
    )
