"""One row while it is written: which blank it is in, what it reads next, what it has become.

A row fills blanks of its text one after the other, in any order. Each appends its `sop` and tokens
to Part B, so that later blanks see what earlier ones were filled with (GLM `generate_samples.py`;
in training the order of spans is drawn). `eop` ends a blank and is not fed back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from blankfill.config.objective import PositionScheme
from blankfill.objective.batch import Int32
from blankfill.objective.blank import Prompt
from blankfill.objective.positions import blank_positions

__all__ = ["Closed", "FilledBlank", "Reading", "Rule", "Writing", "input_positions"]

Closed = tuple[int, Sequence[int]]
"""A blank and what it holds: its number and its tokens."""


class Rule(Protocol):
    """What a fill has to be like, token by token. States are values: a row may be copied."""

    @property
    def start(self) -> Any:
        """State of a fill without tokens."""
        ...

    def allowed(self, state: Any, written: int) -> npt.NDArray[np.bool_]:
        """Say which tokens may come next.

        Args:
            state: of the fill so far.
            written: its tokens.

        Returns:
            `[V]` true where a token may come, those that end the fill among them.
        """
        ...

    def nearer(self, state: Any, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Say which of these tokens may come, `[V]`, where the model would end and may not yet."""
        ...

    def after(self, state: Any, token: int) -> Any:
        """Give the state after one more token."""
        ...

    def cut(self, tokens: Sequence[int]) -> list[int] | None:
        """Give what is left of a fill that holds a text to stop at; None of one that does not."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class FilledBlank:
    """What one blank was filled with."""

    tokens: Int32
    """`[n]` the span, without `eop`."""
    logprob: float
    """Natural log of the probability of these tokens, and of `eop` where the blank ended."""
    ended: bool
    """False where the token limit cut the blank off."""
    near_ties: tuple[int, ...] = ()
    """Places whose two best tokens lie so near that another batch may choose the other one; the
    last is that of its end."""
    others: tuple[FilledBlank, ...] = ()
    """Other fills of the same blank, the ones before it as they are; where they were asked for."""


@dataclass(slots=True)
class Reading:
    """What a row reads in one step."""

    tokens: list[int] = field(default_factory=list[int])
    """`[k]` inputs."""
    positions: list[list[int]] = field(default_factory=list[list[int]])
    """`[k]` pairs."""
    num_closed: int = 0
    """Inputs at the front that belong to closed blanks: what follows them is not asked."""
    known: list[int] = field(default_factory=list[int])
    """What comes after each of the others, as far as it is known: all of them, or all but one."""
    may_end: list[bool] = field(default_factory=list[bool])
    """Of each of the others whether the blank may end after it."""
    begins: int | None = None
    """The blank whose first token is to be chosen; None where another one is."""

    @property
    def is_open(self) -> bool:
        """Whether what comes after the last input is to be chosen."""
        return self.num_closed + len(self.known) < len(self.tokens)


@dataclass(slots=True, kw_only=True, eq=False)
class Writing:
    """Where one row stands."""

    prompt: Prompt
    scheme: PositionScheme
    enders: tuple[int, ...]
    """Tokens that end a blank."""
    limit: int
    """Longest fill of one blank."""
    held: bool = False
    """Whether every blank has exactly that many tokens."""
    stepwise: bool = False
    """Whether a blank is begun in a step of its own, even where the one before it is known."""
    before: tuple[Closed, ...] = ()
    """Blanks that stand in Part B already, in its order."""
    order: tuple[int, ...]
    """The blanks to be filled, one after the other."""
    forced: Sequence[Sequence[int]] = ()
    """Of each blank of the text, tokens that its fill begins with; one that ends a blank may close
    it."""
    rules: Sequence[Rule | None] = ()
    """Of each blank of the text what its fill has to be like."""
    tokens: list[int] = field(default_factory=list[int])
    """Of the blank that is being filled."""
    done: list[FilledBlank] = field(default_factory=list[FilledBlank])
    """Those of `order` before it."""
    logprob: float = 0.0
    """Of the tokens."""
    ties: list[int] = field(default_factory=list[int])
    """Near ties of the blank that is being filled."""
    state: Any = None
    """Of the blank's rule, from its first token on."""
    unread: int | None = 0
    """The closed blank from which on the row has still to read; None where it has read all."""
    _positions: tuple[int, list[list[int]]] = (-1, [])

    @property
    def active(self) -> bool:
        """Whether there is something left to write."""
        return len(self.done) < len(self.order)

    @property
    def blank(self) -> int:
        """The blank that is being filled."""
        return self.order[len(self.done)]

    @property
    def seen(self) -> list[int]:
        """The tokens of the text as it stands: its own, and what was written."""
        done = [token for fill in self.done for token in fill.tokens.tolist()]
        return [*self.prompt.tokens.tolist(), *done, *self.tokens]

    @property
    def rule(self) -> Rule | None:
        """What its fill has to be like."""
        return self.rules[self.blank] if self.rules else None

    @property
    def closed(self) -> list[Closed]:
        """All blanks that stand in Part B, in its order."""
        own = zip(self.order, self.done, strict=False)
        return [*self.before, *((blank, fill.tokens.tolist()) for blank, fill in own)]

    @property
    def num_kept(self) -> int:
        """Inputs of the row that are read and stay so, where some have still to be read."""
        return sum(len(tokens) + 1 for _, tokens in self.closed[: self.unread])

    def copy(self, *, order: tuple[int, ...] | None = None) -> Writing:
        """Give a row that goes on from the same place by itself, to fill the same or others."""
        return replace(
            self, tokens=self.tokens[:], done=self.done[:], ties=self.ties[:],
            order=self.order if order is None else order,
        )  # fmt: skip

    def allowed(self, *, would_end: bool) -> npt.NDArray[np.bool_] | None:
        """Say which tokens may come next, `[V]`; None where the blank has no rule.

        Args:
            would_end: whether the model would end the blank here.
        """
        if self.rule is None:
            return None
        state = self.state if self.tokens else self.rule.start
        mask = self.rule.allowed(state, len(self.tokens))
        if would_end and not mask[self.enders[0]]:
            return self.rule.nearer(state, mask)
        return mask

    def reading(self) -> Reading:
        """Give what is read next: the last token, and all that is known to follow it."""
        reading = Reading()
        closed = self.closed
        if self.unread is not None:
            for place, (blank, tokens) in enumerate(closed[self.unread :], start=self.unread):
                reading.tokens += [self.prompt.sops[blank], *tokens]
                earlier = self._lengths_left_of(blank, closed[:place])
                reading.positions += self._positions_of(blank, earlier, len(tokens) + 1)
            reading.num_closed = len(reading.tokens)
            self.unread = None
        place, position = len(self.done), len(self.tokens)
        token = self.tokens[-1] if self.tokens else self.prompt.sops[self.blank]
        while place < len(self.order):
            blank = self.order[place]
            reading.tokens.append(token)
            earlier = self._lengths_left_of(blank, closed)
            reading.positions.append(self._of_blank(blank, earlier)[position])
            reading.may_end.append(not self.held or position == self.limit)
            if blank >= len(self.forced) or position >= len(self.forced[blank]):
                reading.begins = None if position else blank
                break
            token = int(self.forced[blank][position])
            reading.known.append(token)
            position += 1
            if token in self.enders or position > self.limit:
                closed.append((blank, self.forced[blank][: position - 1]))
                place, position = place + 1, 0
                if self.stepwise:
                    break
                if place < len(self.order):
                    token = self.prompt.sops[self.order[place]]
        return reading

    def take(self, token: int, logprob: float) -> None:
        """Count one token; close the blank at its end, at the limit, or at a text to stop at."""
        ends = token in self.enders
        if ends:
            self.close(self.tokens, self.logprob + logprob, ended=True)
        elif len(self.tokens) >= self.limit:
            self.close(self.tokens, self.logprob, ended=False)
        else:
            self.logprob += logprob
            self.tokens.append(token)
            if self.rule is None:
                return
            state = self.state if len(self.tokens) > 1 else self.rule.start
            self.state = self.rule.after(state, token)
            left = self.rule.cut(self.tokens)
            if left is not None:
                self.unread = len(self.before) + len(self.done)  # it has read other tokens
                self.close(left, self.logprob, ended=True)

    def close(self, tokens: Sequence[int], logprob: float, *, ended: bool) -> None:
        """Close the blank with a fill."""
        array = np.array(tokens, dtype=np.int32)
        ties = tuple(place for place in self.ties if place <= len(tokens))
        self.done.append(FilledBlank(tokens=array, logprob=logprob, ended=ended, near_ties=ties))
        self.tokens, self.logprob, self.ties, self.state = [], 0.0, [], None

    def _lengths_left_of(self, blank: int, closed: Sequence[Closed]) -> list[int]:
        return [len(tokens) for other, tokens in closed if other < blank]

    def _of_blank(self, blank: int, earlier: Sequence[int]) -> list[list[int]]:
        """Give the positions of all inputs that a blank may have."""
        if self._positions[0] != blank:
            self._positions = (blank, self._positions_of(blank, earlier, self.limit + 1))
        return self._positions[1]

    def _positions_of(self, blank: int, earlier: Sequence[int], count: int) -> list[list[int]]:
        return input_positions(self.prompt, blank, earlier, count, self.scheme)


def input_positions(
    prompt: Prompt, blank: int, earlier: Sequence[int], count: int, scheme: PositionScheme
) -> list[list[int]]:
    """Give the positions of a blank's first inputs, `sop` and tokens, as pairs.

    Args:
        prompt: Part A.
        blank: which one.
        earlier: number of tokens of each blank that stands left of it.
        count: how many inputs.
        scheme: the convention that the model was trained with.
    """
    return blank_positions(
        scheme, prompt.kinds[blank], mask_index=int(prompt.blanks[blank]),
        part_a_length=len(prompt.tokens), earlier_lengths=earlier, num_inputs=count,
        sentinel_position=prompt.sentinel_position,
    ).T.tolist()  # fmt: skip
