"""What a continuation may not repeat, and the texts that end it.

`no_repeat_ngram`: a run of so many tokens is written once only (Paulus et al. 2018; GLM
`generation_utils.py`, GLM-130B `BeamSearchStrategy`, which both leave out runs of one token). What
ends the text may always come. Stop strings are found in the text, wherever the borders of tokens
lie; the text ends before the first of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from blankfill.text.tokenizer import TextTokenizer

__all__ = ["ContinuationRule", "Stops"]


@dataclass(frozen=True, slots=True)
class Stops:
    """Texts that end a continuation.

    Args:
        texts: not empty ones.
        tokenizer: the model's.
    """

    texts: tuple[str, ...]
    tokenizer: TextTokenizer

    def first_in(self, text: str, start: int = 0) -> tuple[int, str] | None:
        """Find the stop string that begins first in a text, the longest of them; and where."""
        found = [(at, stop) for stop in self.texts if (at := text.find(stop, start)) >= 0]
        return min(found, key=lambda each: (each[0], -len(each[1])), default=None)

    def is_new(self, tokens: Sequence[int]) -> bool:
        """Tell whether the last token completes one."""
        if not self.texts:
            return False
        # Of the tokens that a stop string can lie in, each but the last holds a byte of it.
        longest = max(len(stop.encode()) for stop in self.texts)
        tail = self.tokenizer.decode(tokens[-longest - 1 :])
        return self.first_in(tail) is not None

    def held_back(self, text: str) -> int:
        """Give how many of a text's last characters may be the beginning of a stop string."""
        longest = max(map(len, self.texts), default=0)
        for size in range(min(longest - 1, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self.texts):
                return size
        return 0


@dataclass(slots=True, eq=False)
class ContinuationRule:
    """What the next tokens of a continuation have to be like (`writing.Rule`).

    Args:
        stops: texts that end it.
        enders: tokens that end it.
        vocab_size: rows of the model's head.
        ngram: length of the runs of tokens that are written once only; 0 allows all.
        before: tokens that were written before, behind earlier prefixes.
    """

    stops: Stops
    enders: tuple[int, ...]
    vocab_size: int
    ngram: int
    before: list[int] = field(default_factory=list[int])

    @property
    def start(self) -> tuple[int, ...]:
        """What was written before."""
        return tuple(self.before)

    def after(self, state: tuple[int, ...], token: int) -> tuple[int, ...]:
        """Add one token."""
        return (*state, token)

    def allowed(self, state: Any, written: int) -> npt.NDArray[np.bool_]:
        """Say which tokens may come next, `[V]`; what ends the text always may."""
        del written
        allowed = np.ones(self.vocab_size, np.bool_)
        count = len(state) - self.ngram + 1
        if self.ngram and count > 0:
            tokens = np.array(state, np.int64)
            repeats = np.ones(count, np.bool_)
            for k in range(self.ngram - 1):  # the run so far, wherever it stands
                repeats &= tokens[k : k + count] == tokens[count + k]
            allowed[tokens[self.ngram - 1 :][repeats]] = False
            allowed[list(self.enders)] = True
        return allowed

    def nearer(self, state: Any, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Give the same tokens: the text may always end."""
        del state
        return mask

    def cut(self, tokens: Sequence[int]) -> list[int] | None:
        """End the text where a stop string is complete; which tokens are its own, the text says."""
        return [*tokens] if self.stops.is_new([*self.before, *tokens]) else None
