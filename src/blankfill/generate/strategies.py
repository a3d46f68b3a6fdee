"""In which order the blanks of a text are filled, and what each sees of the others.

`left_to_right` (GLM `generate_samples.py`): each blank behind the fills of those left of it.
`confident`: the next blank is the one whose two best first tokens are furthest apart in probability
    (Kim et al. 2025, "Train for the worst, plan for the best": top probability margin).
`independent`: each as if the others stayed blank.
`refine`: left to right; then each blank once more, behind the fills of all the others.
`splice` (GLM-130B `generate.py`): left to right, where each fill takes the place of its mask in
    Part A, which is then encoded again.

All but `splice` encode Part A once: a span may stand anywhere in Part B, since training drew their
order. A strategy is a plan: it asks for blanks to be filled and goes on with the answers; what is
asked for at once runs at once (`filling.py`).

Shapes: n tokens, S blanks.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import numpy as np

from blankfill.config.filling import Wish
from blankfill.generate.writing import Closed, FilledBlank
from blankfill.objective.batch import Int32

__all__ = ["Answer", "Fills", "Plan", "Request", "plan_of"]

Fills = dict[int, FilledBlank]
"""Of each blank its fill."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """Blanks that one row fills, one after the other."""

    tokens: Int32
    """`[n]` the text with masks."""
    first: int = 0
    """Its first blank, counted in the text as it was given."""
    blanks: tuple[int, ...]
    """Those to be filled, in this order, counted from `first`."""
    before: tuple[Closed, ...] = ()
    """What stands in Part B already."""
    confident: bool = False
    """Whether the most certain of them comes next each time, whatever their order."""
    candidates: int = 1
    """Fills of each of them."""
    joint: bool = False
    """Whether beams go on through all of them."""
    draw: int = 0
    """Number of the draw."""
    start: tuple[int, ...] = ()
    """Tokens that the fill of the only blank begins with."""
    limit: int | None = None
    """Longest fill; the text's where not given."""


@dataclass(kw_only=True, slots=True)
class Answer:
    """What was filled."""

    fills: Fills
    """Of each blank that was asked for."""
    together: list[Fills] = field(default_factory=list[Fills])
    """Fills of all of them together, best first, where they were asked for."""


Plan = Generator[list[Request], list[Answer], Answer]
"""Asks, and gives the fills of a text at its end."""


def plan_of(tokens: Int32, masks: Sequence[int], wish: Wish) -> Plan:
    """Give the plan by which a text is filled.

    Args:
        tokens: `[n]` the text with mask ids.
        masks: `[S]` where they stand.
        wish: what is wanted.
    """
    count, wanted = len(masks), wish.num_candidates
    if wish.strategy == "splice":
        return _splice(tokens, masks, wanted)
    if wish.strategy == "independent":
        return _independent(tokens, count, wanted, joint=wish.joint)
    if wish.strategy == "refine" and count > 1:
        return _refine(tokens, count, wanted)
    if wish.joint and wish.drawn:
        return _draws(tokens, count, wanted)
    request = Request(
        tokens=tokens, blanks=tuple(range(count)), candidates=wanted, joint=wish.joint,
        confident=wish.strategy == "confident",
    )  # fmt: skip
    return _one(request)


def _one(request: Request) -> Plan:
    (answer,) = yield [request]
    return answer


def _draws(tokens: Int32, count: int, wanted: int) -> Plan:
    """Draw all blanks together several times; the first draw stands in the text."""
    blanks = tuple(range(count))
    answers = yield [Request(tokens=tokens, blanks=blanks, draw=k) for k in range(wanted)]
    together = sorted((answer.fills for answer in answers), key=lambda fills: -_logprob(fills))
    return Answer(fills=answers[0].fills, together=together)


def _independent(tokens: Int32, count: int, wanted: int, *, joint: bool) -> Plan:
    answers = yield [
        Request(tokens=tokens, blanks=(b,), candidates=wanted) for b in range(count)
    ]  # fmt: skip
    fills = {b: answer.fills[b] for b, answer in enumerate(answers)}
    if not joint:
        return Answer(fills=fills)
    lists = [
        sorted([fill, *fill.others], key=lambda each: -each.logprob) for fill in fills.values()
    ]
    together = [dict(enumerate(each)) for each in _best_products(lists, wanted)]
    return Answer(fills=fills, together=together)


def _refine(tokens: Int32, count: int, wanted: int) -> Plan:
    (first,) = yield [Request(tokens=tokens, blanks=tuple(range(count)))]
    fills = dict(first.fills)
    for b in range(count):
        before = tuple((o, fills[o].tokens.tolist()) for o in range(count) if o != b)
        (again,) = yield [Request(tokens=tokens, blanks=(b,), before=before, candidates=wanted)]
        fills[b] = again.fills[b]
    return Answer(fills=fills)


def _splice(tokens: Int32, masks: Sequence[int], wanted: int) -> Plan:
    fills: Fills = {}
    grown = 0
    for b, mask in enumerate(masks):
        (answer,) = yield [Request(tokens=tokens, first=b, blanks=(0,), candidates=wanted)]
        fills[b] = answer.fills[0]
        at, fill = mask + grown, fills[b].tokens
        tokens = np.concatenate([tokens[:at], fill, tokens[at + 1 :]]).astype(np.int32)
        grown += len(fill) - 1
    return Answer(fills=fills)


def _best_products(lists: Sequence[Sequence[FilledBlank]], wanted: int) -> list[list[FilledBlank]]:
    """Choose one of each list, best first, so that the sum of log-probabilities is highest."""
    found: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for fills in lists:  # the best of some lists are made of the best of fewer
        pairs = itertools.product(found, enumerate(fills[:wanted]))
        found = heapq.nsmallest(
            wanted, ((cost - fill.logprob, (*chosen, k)) for (cost, chosen), (k, fill) in pairs)
        )
    return [[fills[k] for fills, k in zip(lists, chosen, strict=True)] for _, chosen in found]


def _logprob(fills: Fills) -> float:
    return sum(fill.logprob for fill in fills.values())
