"""Filling blanks token by token, many texts at a time: tokens in, tokens out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from blankfill.config.filling import Wish, check_wish
from blankfill.generate.filling import Filling, Text
from blankfill.generate.prompts import checked_prompt
from blankfill.generate.sampling import GREEDY, Sampling
from blankfill.generate.strategies import Fills, plan_of
from blankfill.generate.writing import FilledBlank, Rule
from blankfill.objective.batch import Int32

if TYPE_CHECKING:
    from blankfill.generate.language_model import LanguageModel

__all__ = ["LEFT_TO_RIGHT", "FilledText", "fill_tokens"]

LEFT_TO_RIGHT = Wish()
"""One fill for each blank, greedily, behind those left of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FilledText:
    """One text with all of its blanks filled."""

    tokens: Int32
    """The whole text with the fills in place of the masks."""
    blanks: tuple[FilledBlank, ...]
    """Left to right."""
    starts: tuple[int, ...]
    """Where the fill of each begins in `tokens`."""
    order: tuple[int, ...] = ()
    """The blanks in the order in which they were filled."""
    together: tuple[tuple[FilledBlank, ...], ...] = ()
    """Fills of all blanks together, best first, where they were asked for."""
    error: str | None = None
    """Why it could not be filled; then `tokens` is the text as it was given."""


def fill_tokens(
    lm: LanguageModel,
    prompts: Sequence[Int32],
    *,
    max_new_tokens: int = 64,
    batch_size: int = 32,
    sampling: Sampling = GREEDY,
    forced: Sequence[Sequence[Sequence[int]]] | None = None,
    lengths: Sequence[int] | None = None,
    num_candidates: int = 1,
    wish: Wish = LEFT_TO_RIGHT,
    rules: Sequence[Sequence[Rule | None]] | None = None,
    advance: Callable[[int], None] | None = None,
) -> list[FilledText]:
    """Fill every blank of every text.

    Args:
        lm: the model.
        prompts: token ids with mask ids where the blanks are.
        max_new_tokens: longest fill of one blank.
        batch_size: most rows that run together.
        sampling: greedy or drawn.
        forced: for each text and blank, tokens that the fill must begin with; `eop` may close it.
        lengths: for each text, how many tokens each of its blanks has: none ends before, and all
            end there.
        num_candidates: fills of each blank, the one in the text among them: greedy, the best going
            on of each of the most probable first tokens, as many as may appear; drawn, that many
            draws; of beams the best. What Part B held before it stays.
        wish: by which strategy and with how many beams, at least as many as candidates. How many
            these are, and whether they are drawn, is said by the other arguments.
        rules: for each text and blank, what its fill has to be like.
        advance: called with the number of texts that were just finished.

    Returns:
        One result per text, in order.

    Raises:
        RequestError: a text has no blank, or is longer than the model's positions reach; or what is
            wanted does not go together.
        CheckpointError: the model's scores are not numbers.
    """
    most = lm.model.cfg.max_position - 2
    drawn = sampling.temperature > 0
    wish = replace(wish, num_candidates=num_candidates, drawn=drawn)
    check_wish(wish, lm.scheme)
    texts: list[Text] = []
    places: list[tuple[Int32, list[int]]] = []
    for index, tokens in enumerate(prompts):
        tokens = np.asarray(tokens, dtype=np.int32)
        masks: list[int] = checked_prompt(tokens, lm.ids, lm.cfg).blanks.tolist()
        places.append((tokens, masks))
        texts.append(
            Text(
                tokens=tokens, plan=plan_of(tokens, masks, wish),
                limit=min(most, max_new_tokens if lengths is None else lengths[index]),
                held=lengths is not None, forced=forced[index] if forced is not None else (),
                rules=rules[index] if rules is not None else (),
            )
        )  # fmt: skip
    with lm.computing():
        Filling(lm, texts, wish, sampling, batch_size, advance).run()
    return [_finish(*place, text) for place, text in zip(places, texts, strict=True)]


def _finish(tokens: Int32, masks: Sequence[int], text: Text) -> FilledText:
    if text.answer is None:
        return FilledText(tokens=tokens, blanks=(), starts=(), error=text.error)
    whole, starts = _in_place(tokens, masks, text.answer.fills)
    together = tuple(
        tuple(fills[b] for b in range(len(masks))) for fills in text.answer.together
    )  # fmt: skip
    blanks = tuple(text.answer.fills[b] for b in range(len(masks)))
    return FilledText(
        tokens=whole, blanks=blanks, starts=starts, order=tuple(text.answer.fills),
        together=together,
    )  # fmt: skip


def _in_place(tokens: Int32, masks: Sequence[int], fills: Fills) -> tuple[Int32, tuple[int, ...]]:
    """Put fills in place of their masks: the text, and where each begins in it."""
    parts: list[Int32] = []
    starts: list[int] = []
    start = length = 0
    for b, mask in enumerate(masks):
        starts.append(length + mask - start)
        length = starts[-1] + len(fills[b].tokens)
        parts += [tokens[start:mask], fills[b].tokens]
        start = mask + 1
    return np.concatenate([*parts, tokens[start:]]), tuple(starts)
