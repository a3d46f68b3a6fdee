"""How blanks are filled: by which strategy, by how many beams, and within which bounds.

Values alone, checked before a model is loaded. What is done with them stands in `generate/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Literal

from blankfill.config.objective import PositionScheme
from blankfill.config.ranges import Range, check_numbers, shown
from blankfill.errors import RequestError

__all__ = [
    "MOST_BEAMS",
    "NO_BOUNDS",
    "BackOff",
    "BeamSearch",
    "BeamWidth",
    "Bounds",
    "LengthPenalty",
    "MaxTokens",
    "MinP",
    "MinTokens",
    "NoRepeatNgram",
    "RepetitionPenalty",
    "Strategy",
    "TopK",
    "Typical",
    "Wish",
    "check_wish",
    "wish_of",
]

Strategy = Literal["left_to_right", "confident", "independent", "refine", "splice"]
"""In which order the blanks of one text are filled, and what each sees of the others."""
LengthPenalty = Literal["none", "glm", "glm-130b"]
"""How beams of different lengths are compared."""
MOST_BEAMS = 256
"""Widest beam: each takes a row of its own in memory."""
BeamWidth = Annotated[int, Range(1, MOST_BEAMS)]
"""Fills of a blank that are followed at a time."""
TopK = Annotated[int, Range(0, 10**9)]
"""Number of tokens that are drawn from; 0 is all."""
MinP = Annotated[float, Range(0, 1)]
"""Share of the best token's probability that a token needs to be drawn; 0 is none."""
Typical = Annotated[float, Range(1e-9, 1)]
"""Probability of the set of typical tokens that are drawn from."""
RepetitionPenalty = Annotated[float, Range(0.01, 100)]
"""What the scores of tokens that stand in the text already are divided by; 1 changes none."""
NoRepeatNgram = Annotated[int, Range(0, 10**6)]
"""Length of the runs of tokens that are written once only; 0 allows all."""
MinTokens = Annotated[int, Range(0, 10**9)]
"""Least tokens of a fill."""
MaxTokens = Annotated[int, Range(1, 10**9)]
"""Most tokens of a fill."""
BackOff = Annotated[int, Range(0, 64)]
"""Pieces on either side of a blank that may be taken into it."""

EXPONENTS: dict[LengthPenalty, float] = {"none": 0.0, "glm": 0.7, "glm-130b": 1.0}
"""Exponents as published: GLM's summaries (`config_tasks/seq_cnndm_org.sh`), GLM-130B's
`scripts/generate.sh`."""
LONGEST_EXPRESSION = 2_000
"""Characters of a regular expression."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BeamSearch:
    """How many fills of a blank are followed at a time, and how those of two lengths compare."""

    width: BeamWidth = 5
    """Fills that are followed; 1 is greedy search."""
    penalty: LengthPenalty = "glm"
    """`glm`: log-probability over `length ** 0.7`; `glm-130b`: over `(5 + length) / 6`; `none`:
    as it is, which prefers short fills. The length is that of the fill, its end counted."""

    def __post_init__(self) -> None:
        check_numbers(self, "")

    def score(self, logprob: float, length: int) -> float:
        """Give what fills are compared by.

        Args:
            logprob: of the fill.
            length: its tokens, the end among them.
        """
        base = (5 + length) / 6 if self.penalty == "glm-130b" else max(length, 1)
        return logprob / base ** EXPONENTS[self.penalty]


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What is wanted of every text."""

    strategy: Strategy = "left_to_right"
    """In which order its blanks are filled."""
    beams: BeamSearch | None = None
    """Beam search; without it one token after the other is chosen."""
    num_candidates: int = 1
    """Fills of each blank, or of all together."""
    joint: bool = False
    """Whether candidates are fills of all blanks together."""
    drawn: bool = False
    """Whether tokens are drawn."""


def check_wish(wish: Wish, scheme: PositionScheme | None = None) -> None:
    """Check that what is wanted goes together, and with a model.

    Args:
        wish: what is wanted.
        scheme: positions that the model was trained with; None where it is not known yet.

    Raises:
        RequestError: it does not.
    """
    if wish.joint and wish.strategy not in ("left_to_right", "independent"):
        raise RequestError(
            f"candidates of all blanks together (joint) are found left_to_right or independent, "
            f"not by strategy={wish.strategy}"
        )
    if wish.drawn and wish.beams is not None:
        raise RequestError(
            f"beams={wish.beams.width} looks for the most probable fill and a temperature draws "
            "one; take either"
        )
    if scheme == "original" and wish.strategy in ("confident", "independent"):
        raise RequestError(
            f"strategy={wish.strategy} fills a blank before those left of it, and this model's "
            "positions (original) count their tokens; take left_to_right, refine or splice"
        )


def wish_of(
    *, strategy: Strategy, num_candidates: int, joint: bool, beams: int,
    length_penalty: LengthPenalty, temperature: float,
) -> Wish:  # fmt: skip
    """Put what a caller asks for together, and check it.

    Raises:
        RequestError: it does not go together.
    """
    drawn = temperature > 0
    search = BeamSearch(width=beams, penalty=length_penalty) if beams > 1 else None
    if search is None and joint and not drawn and strategy != "independent":
        # The best fills of all blanks together are those of a search by probability alone.
        search = BeamSearch(width=1, penalty="none")
    if search is not None and num_candidates > search.width:
        if num_candidates > MOST_BEAMS:
            raise RequestError(
                f"num_candidates={num_candidates} takes as many beams, and there may be "
                f"{MOST_BEAMS}; ask for fewer"
            )
        search = replace(search, width=num_candidates)
    wish = Wish(
        strategy=strategy, beams=search, num_candidates=num_candidates, joint=joint, drawn=drawn
    )
    check_wish(wish)
    return wish


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """What every fill has to be like.

        Bounds(begin_with="in", required=["summer"], max_tokens=8)

    Words and characters are those of the fill as it is shown; the space that stands before a blank
    in the text is no part of it. A fill that has bounds ends by itself, at `max_tokens` at latest.
    """

    min_tokens: MinTokens = 0
    """Least tokens of a fill."""
    max_tokens: MaxTokens | None = None
    """Most tokens of a fill, which then ends there; where not given the limit of the call."""
    required: Sequence[str] = ()
    """Words that stand in every fill: whole words, in scripts without spaces characters."""
    forbidden: Sequence[str] = ()
    """Words that stand in none."""
    allowed: Sequence[str] = ()
    """The only fills that there may be."""
    regex: str | None = None
    """Regular expression that the whole fill matches."""
    stop: Sequence[str] = ()
    """A fill ends before the first of these that it would hold."""
    begin_with: str = ""
    """Characters that every fill begins with."""
    end_with: str = ""
    """Characters that every fill ends with, behind those it begins with."""

    def __post_init__(self) -> None:
        check_numbers(self, "bounds")
        for name in ("required", "forbidden", "allowed", "stop"):
            given = getattr(self, name)
            values = (given,) if isinstance(given, str) else tuple(dict.fromkeys(given))
            for value in values:
                _check_text(name, value)
                if not value:
                    raise RequestError(f"{name} holds an empty text; give words or leave it out")
            object.__setattr__(self, name, values)
        for name in ("begin_with", "end_with", "regex"):
            if getattr(self, name) is not None:
                _check_text(name, getattr(self, name))
        if self.regex is not None and not 0 < len(self.regex) <= LONGEST_EXPRESSION:
            raise RequestError(
                f"regex has {len(self.regex):,} characters; give 1 to {LONGEST_EXPRESSION:,}"
            )
        self._check_agreement()

    def __bool__(self) -> bool:
        """Whether anything is bound."""
        return any(getattr(self, each.name) != each.default for each in fields(self))

    def check_limit(self, max_new_tokens: int) -> None:
        """Check the number of tokens against the limit of the call, which holds where there is no
        other.

        Raises:
            RequestError: the least is above it.
        """
        if self.max_tokens is None and self.min_tokens > max_new_tokens:
            raise RequestError(
                f"min_tokens={self.min_tokens} is above max_new_tokens={max_new_tokens}; raise "
                "max_new_tokens or lower min_tokens"
            )

    def _check_agreement(self) -> None:
        """Check that the bounds do not contradict each other, as far as no model is needed.

        Raises:
            RequestError: they do.
        """
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise RequestError(
                f"min_tokens={self.min_tokens} is above max_tokens={self.max_tokens}; lower the "
                "one or raise the other"
            )
        both = [word for word in self.required if word in self.forbidden]
        if both:
            raise RequestError(f"{shown(both[0])} is required and forbidden; take one of them out")
        whole = [name for name in ("required", "allowed", "regex", "end_with", "min_tokens")
                 if getattr(self, name)]  # fmt: skip
        if self.stop and whole:
            raise RequestError(
                f"a fill may stop before it obeys {whole[0]}; take stop out, or {whole[0]}"
            )
        stops = [(s, w) for s in self.stop for w in (self.begin_with,) if s in w]  # fmt: skip
        if stops:
            raise RequestError(
                f"a fill would stop at {shown(stops[0][0])} inside of {shown(stops[0][1])}, which "
                "it has to hold; take one of them out"
            )


def _check_text(name: str, value: object) -> None:
    """Check that a bound is a text that UTF-8 can hold.

    Raises:
        RequestError: it is none.
    """
    if not isinstance(value, str):
        raise RequestError(f"{name} takes texts, not {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            f"{name} is not valid Unicode at character {error.start}; pass it as UTF-8"
        ) from error


NO_BOUNDS = Bounds()
"""Any fill."""
