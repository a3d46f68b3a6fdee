"""The probability of a whole text, window by window, each token scored once.

`bidirectional`, as GLM-130B measures language modelling (`evaluation/dataset.py`, `LMTask`): the
first window scores a row of text behind an empty Part A, `[gMASK]` alone; each later one scores the
next `stride` tokens behind a Part A of the text before them, which is read in both directions.
`one-way`: the text before them stands behind `[gMASK]` and `sop` too, read left to right only. (The
released one-way script scored what windows share in each of them; here it is context.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from blankfill.errors import ConfigError, RequestError
from blankfill.generate.known import known_logprobs
from blankfill.generate.notebook import whole_html
from blankfill.generate.writing import Writing
from blankfill.objective.batch import Int32
from blankfill.objective.blank import build_prompt
from blankfill.results import short_repr, to_dict
from blankfill.text.user_text import checked, require_complete

if TYPE_CHECKING:
    from blankfill.generate.language_model import LanguageModel

__all__ = ["TextMode", "TextScore", "require_no_window", "score_text"]

TextMode = Literal["bidirectional", "one-way"]
"""What a window of a whole text sees of the text before it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextScore:
    """How probable a whole text is."""

    text: str
    """As it was given."""
    mode: TextMode
    """What a window sees of the text before it."""
    stride: int
    """Tokens that each window after the first scores."""
    num_windows: int
    """Windows that the text was read in."""
    logprob: float
    """Natural log of the probability of the text's tokens."""
    mean_logprob: float
    """`logprob` per token; `exp(-mean_logprob)` is the perplexity per token."""
    bits_per_byte: float
    """Bits for each byte of its UTF-8, which does not depend on the tokenizer."""
    tokens: tuple[str, ...]
    """Its pieces."""
    token_logprobs: tuple[float, ...]
    """Of each piece."""

    __repr__ = short_repr
    to_dict = to_dict

    def _repr_html_(self) -> str:
        return whole_html(self)


def score_text(
    lm: LanguageModel, text: str, *, mode: TextMode = "bidirectional", stride: int | None = None
) -> TextScore:
    """Score a whole text of any length.

    Args:
        lm: the model.
        text: without a blank.
        mode: what a window sees of the text before it: see the top of this file.
        stride: tokens that each window after the first scores; half a row where not given.

    Raises:
        RequestError: the text is empty or has a blank, or the stride is longer than a row.
        CheckpointError: the model's scores are not numbers.
    """
    require_complete(text)
    tokens = lm.tokenizer.encode(checked(text))
    if not len(tokens):
        raise RequestError("the text is empty; give one to score")
    row = lm.row_length
    stride = row // 2 if stride is None else stride
    if not 1 <= stride <= row - 2:
        raise RequestError(f"stride={stride} must be from 1 to {row - 2:,}: this model's rows have "
                           f"{row:,} positions")  # fmt: skip
    windows = list(_windows(len(tokens), row, stride))
    writings = [_writing(lm, tokens, window, mode) for window in windows]
    found = known_logprobs(lm, writings)
    # Of a one-way window what stands before the new tokens is context.
    new = [
        values[len(values) - (end - start) :]
        for values, (_, start, end) in zip(found, windows, strict=True)
    ]
    logprobs = [value for values in new for value in values]
    total = math.fsum(logprobs)
    return TextScore(
        text=text, mode=mode, stride=stride, num_windows=len(windows), logprob=total,
        mean_logprob=total / len(logprobs),
        bits_per_byte=-total / math.log(2) / len(text.encode()),
        tokens=tuple(map(lm.tokenizer.token, tokens.tolist())), token_logprobs=tuple(logprobs),
    )  # fmt: skip


def require_no_window(mode: str | None, stride: int | None) -> None:
    """Refuse what is for whole texts where candidates are scored.

    Raises:
        ConfigError: one is given.
    """
    for name, value in (("mode", mode), ("stride", stride)):
        if value is not None:
            raise ConfigError(f"{name}={value} is for a whole text, and candidates are scored in "
                              "the place of its blanks; leave one of the two out")  # fmt: skip


def _windows(num_tokens: int, row: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Give the windows: where each begins to read, to score, and where it ends.

    A row holds `[gMASK]`, `sop` and everything else but the last token, which is a target only.
    """
    end = min(num_tokens, row - 1)
    yield 0, 0, end
    while end < num_tokens:
        start, end = end, min(num_tokens, end + stride)
        yield max(0, end - (row - 1)), start, end


def _writing(
    lm: LanguageModel, tokens: Int32, window: tuple[int, int, int], mode: TextMode
) -> Writing:
    first, start, end = window
    split = start if mode == "bidirectional" else first  # where Part B begins
    prompt = build_prompt(
        np.append(tokens[first:split], np.int32(lm.ids.gmask)), lm.ids,
        sentinel_position=lm.sentinel_position,
    )  # fmt: skip
    return Writing(
        prompt=prompt, scheme=lm.scheme, enders=(lm.ids.eop, lm.ids.eos),
        limit=end - split - 1, order=(0,), forced=[tokens[split:end].tolist()],
    )  # fmt: skip
