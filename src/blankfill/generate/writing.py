"""One row while it is written: which blank it is in, what it reads next, what it has become.

A row fills the blanks of its text from left to right. Each appends its `sop` and tokens to Part B,
so that later blanks see what earlier ones were filled with (GLM `generate_samples.py`). `eop` ends
a blank and is not fed back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from blankfill.config.objective import PositionScheme
from blankfill.objective.batch import Int32
from blankfill.objective.blank import Prompt
from blankfill.objective.positions import blank_positions

__all__ = ["FilledBlank", "Reading", "Writing", "input_positions"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FilledBlank:
    """What one blank was filled with."""

    tokens: Int32
    """`[n]` the span, without `eop`."""
    logprob: float
    """Natural log of the probability of these tokens, and of `eop` where the blank ended."""
    ended: bool
    """False where the token limit cut the blank off."""
    others: tuple[FilledBlank, ...] = ()
    """Other fills of the same blank, the ones before it as they are; where they were asked for."""


@dataclass(slots=True)
class Reading:
    """What a row reads in one step."""

    tokens: list[int] = field(default_factory=list[int])
    """`[k]` inputs."""
    positions: list[list[int]] = field(default_factory=list[list[int]])
    """`[k]` pairs."""
    known: list[int] = field(default_factory=list[int])
    """What comes after each of them, as far as it is known: `[k]` or `[k - 1]`."""
    may_end: list[bool] = field(default_factory=list[bool])
    """`[k]` whether the blank may end after each."""
    begins: int | None = None
    """The blank whose first token is to be chosen; None where another one is."""

    @property
    def is_open(self) -> bool:
        """Whether what comes after the last input is to be chosen."""
        return len(self.known) < len(self.tokens)


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
    forced: Sequence[Sequence[int]] = ()
    """Of each blank, tokens that its fill begins with; one that ends a blank may close it."""
    last: int
    """The last blank that is asked for."""
    tokens: list[int] = field(default_factory=list[int])
    """Of the blank that is being filled."""
    done: list[FilledBlank] = field(default_factory=list[FilledBlank])
    """The blanks before it."""
    _logprob: float = 0.0
    _positions: tuple[int, list[list[int]]] = (-1, [])

    @property
    def active(self) -> bool:
        """Whether there is something left to write."""
        return len(self.done) <= self.last

    def another(self, forced: Sequence[Sequence[int]], *, last: int) -> Writing:
        """Start the same text anew, with other forced tokens, up to a blank."""
        return replace(
            self, forced=forced, last=last, tokens=[], done=[], _logprob=0.0, _positions=(-1, [])
        )

    def reading(self) -> Reading:
        """Give what is read next: the last token, and all that is known to follow it."""
        lengths = [len(blank.tokens) for blank in self.done]
        token = self.tokens[-1] if self.tokens else self.prompt.sops[len(lengths)]
        position = len(self.tokens)
        reading = Reading()
        while len(lengths) <= self.last:
            blank = len(lengths)
            reading.tokens.append(token)
            reading.positions.append(self._positions_of(blank, lengths)[position])
            reading.may_end.append(not self.held or position == self.limit)
            if blank >= len(self.forced) or position >= len(self.forced[blank]):
                reading.begins = None if position else blank
                break
            token = int(self.forced[blank][position])
            reading.known.append(token)
            position += 1
            if token in self.enders or position > self.limit:
                lengths.append(position - 1)
                position = 0
                token = self.prompt.sops[blank + 1] if blank < self.last else -1
        return reading

    def take(self, token: int, logprob: float) -> None:
        """Count one token; close the blank at its end or at the limit."""
        ends = token in self.enders
        if not ends and len(self.tokens) < self.limit:
            self.tokens.append(token)
            self._logprob += logprob
            return
        self.done.append(
            FilledBlank(
                tokens=np.array(self.tokens, dtype=np.int32),
                logprob=self._logprob + (logprob if ends else 0.0),
                ended=ends,
            )
        )
        self.tokens, self._logprob = [], 0.0

    def _positions_of(self, blank: int, earlier: Sequence[int]) -> list[list[int]]:
        """Give the positions of all inputs that a blank may have."""
        if self._positions[0] != blank:
            positions = input_positions(self.prompt, blank, earlier, self.limit + 1, self.scheme)
            self._positions = (blank, positions)
        return self._positions[1]


def input_positions(
    prompt: Prompt, blank: int, earlier: Sequence[int], count: int, scheme: PositionScheme
) -> list[list[int]]:
    """Give the positions of a blank's first inputs, `sop` and tokens, as pairs.

    Args:
        prompt: Part A.
        blank: which one.
        earlier: number of tokens of each blank before it.
        count: how many inputs.
        scheme: the convention that the model was trained with.
    """
    return blank_positions(
        scheme, prompt.kinds[blank], mask_index=int(prompt.blanks[blank]),
        part_a_length=len(prompt.tokens), earlier_lengths=earlier, num_inputs=count,
        sentinel_position=prompt.sentinel_position,
    ).T.tolist()  # fmt: skip
