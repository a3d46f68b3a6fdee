"""From hidden states to log-probabilities, on the model's device, a bounded piece at a time.

Shapes: Q inputs of a step, D hidden, V vocabulary, n rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

import torch

from blankfill.errors import CheckpointError
from blankfill.generate.sampling import log_probabilities
from blankfill.generate.writing import Reading
from blankfill.model.glm import device_of

if TYPE_CHECKING:
    from blankfill.generate.language_model import LanguageModel

__all__ = ["KnownRow", "Scorer", "banned_tokens"]

PIECE_SCORES = 2**24
"""Scores that exist at a time where tokens are known: 64 MiB."""


@dataclass(slots=True)
class KnownRow:
    """Scores of what is known of one row."""

    logprobs: list[float] = field(default_factory=list[float])
    """Of each token."""
    are_best: list[bool] = field(default_factory=list[bool])
    """Of each whether no other is more probable; empty where that was not asked for."""


class Scorer:
    """Normalises a model's scores over the tokens that may appear.

    Args:
        lm: the model.
    """

    def __init__(self, lm: LanguageModel) -> None:
        self._lm = lm
        self._device = device_of(lm.model)
        self._enders = sorted({lm.ids.eop, lm.ids.eos})
        self._banned = banned_tokens(lm).to(self._device)

    def last(
        self, hidden: torch.Tensor, rows: Sequence[int], readings: Sequence[Reading]
    ) -> torch.Tensor:
        """Score what comes after the last input of some rows.

        Args:
            hidden: `[Q, D]` of all rows' inputs.
            rows: numbers of the rows.
            readings: what each of all rows has read.

        Returns:
            `[n, V]` log-probabilities; minus infinity where a token may not appear.
        """
        return self._log_probs(*self._last_inputs(hidden, rows, readings))

    def normalizers(
        self, hidden: torch.Tensor, rows: Sequence[int], readings: Sequence[Reading]
    ) -> torch.Tensor:
        """Give what `last` took from the model's own scores, `[n, 1]`."""
        hidden, may_end = self._last_inputs(hidden, rows, readings)
        logits = self._lm.model.logits(hidden).float()
        logits = logits.masked_fill(self._banned_after(may_end), -math.inf)
        return logits.logsumexp(dim=-1, keepdim=True)

    def known(self, hidden: torch.Tensor, readings: Sequence[Reading]) -> list[list[float]]:
        """Score what is known to come after inputs: of each row its log-probabilities.

        Raises:
            CheckpointError: they are not numbers.
        """
        return [row.logprobs for row in self.known_rows(hidden, readings)]

    def known_rows(
        self, hidden: torch.Tensor, readings: Sequence[Reading], *, ranked: bool = False
    ) -> list[KnownRow]:
        """Score what is known to come after inputs, and whether each is what would be chosen.

        Args:
            hidden: `[Q, D]` of all rows' inputs.
            readings: what each row has read.
            ranked: whether the second is asked for.

        Raises:
            CheckpointError: the scores are not numbers.
        """
        result = [KnownRow() for _ in readings]
        places: list[tuple[int, int, int, bool]] = []  # row, input, token, may end
        for row, (reading, end) in enumerate(zip(readings, _ends(readings), strict=True)):
            first = end - len(reading.tokens) + reading.num_closed
            known = zip(reading.known, reading.may_end, strict=False)
            places += [(row, first + k, *each) for k, each in enumerate(known)]
        size = max(1, PIECE_SCORES // self._lm.model.cfg.vocab_size)
        for start in range(0, len(places), size):
            rows, inputs, tokens, may_end = zip(*places[start : start + size], strict=True)
            log_probs = self._log_probs(
                hidden[torch.tensor(inputs, device=self._device)], list(may_end)
            )
            wanted = torch.tensor(tokens, device=self._device)[:, None]
            found = log_probs.gather(1, wanted)[:, 0]
            for row, value in zip(rows, found.tolist(), strict=True):
                result[row].logprobs.append(self.checked(value))
            if ranked:
                for row, is_best in zip(rows, (found >= log_probs.amax(1)).tolist(), strict=True):
                    result[row].are_best.append(is_best)
        return result

    def checked(self, logprob: float) -> float:
        """Give a log-probability that is a number.

        Raises:
            CheckpointError: it is none.
        """
        if math.isnan(logprob):
            raise CheckpointError(
                f"the scores of {self._lm.path or 'the model'} are not numbers (NaN): its weights "
                "are damaged, or its training diverged; take an earlier checkpoint"
            )
        return logprob

    def _last_inputs(
        self, hidden: torch.Tensor, rows: Sequence[int], readings: Sequence[Reading]
    ) -> tuple[torch.Tensor, list[bool]]:
        """Take the last inputs of some rows, and whether their blanks may end after them."""
        ends = _ends(readings)
        index = [ends[i] - 1 for i in rows]
        if len(index) < len(hidden):
            hidden = hidden[torch.tensor(index, device=self._device)]
        return hidden, [readings[i].may_end[-1] for i in rows]

    def _log_probs(self, hidden: torch.Tensor, may_end: list[bool]) -> torch.Tensor:
        return log_probabilities(self._lm.model.logits(hidden), self._banned_after(may_end))

    def _banned_after(self, may_end: list[bool]) -> torch.Tensor:
        """Mark what may not come, `[V]`, or `[n, V]` where some blanks may not end."""
        banned = self._banned
        if not all(may_end):
            banned = banned.repeat(len(may_end), 1)
            held = torch.tensor([i for i, may in enumerate(may_end) if not may])
            for ender in self._enders:
                banned[held.to(self._device), ender] = True
        return banned


def _ends(readings: Sequence[Reading]) -> list[int]:
    """Give where the inputs of each row end."""
    return list(accumulate(len(reading.tokens) for reading in readings))


def banned_tokens(lm: LanguageModel) -> torch.Tensor:
    """Mark what may never be generated: specials that only stand in inputs, and padding rows."""
    ids = lm.ids
    banned = torch.zeros(lm.model.cfg.vocab_size, dtype=torch.bool)
    banned[[ids.mask, ids.smask, ids.gmask, ids.sop, ids.pad, ids.dblock]] = True
    banned[[*ids.mask_sentinels, *ids.sop_sentinels]] = True
    banned[lm.tokenizer.vocab_size :] = True  # rows that only pad the matrix
    banned[[ids.eop, ids.eos]] = False  # released vocabularies give eos the id of pad
    return banned
