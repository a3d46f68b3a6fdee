"""`blankfill score`, `rank` and `surprise`: how probable candidates, whole texts and words are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from blankfill.api.parameters import CheckpointName, PathLike, Texts, as_list, as_path
from blankfill.config.arguments import checks_arguments
from blankfill.config.ranges import Stride
from blankfill.config.train import DeviceKind
from blankfill.results import short_repr, to_dict
from blankfill.text.user_text import (
    checked,
    read_stdin,
    require_complete,
    require_fills,
    require_words,
)

if TYPE_CHECKING:
    from blankfill.config.run import RunConfig
    from blankfill.generate import LanguageModel, TextScore, WordSurprise
    from blankfill.generate.score import ScoredCandidate
    from blankfill.text.tokenizer import TextTokenizer

__all__ = ["ScoreResult", "SurpriseResult", "rank", "score", "surprise"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreResult:
    """A text and how probable candidates for its blanks are."""

    run: str
    """The run's folder."""
    step: int
    """Optimizer steps of the checkpoint that answered."""
    prompt: str
    """The text as it was given."""
    candidates: tuple[ScoredCandidate, ...] = ()
    """As they were given, or best first where they were ranked."""
    whole: TextScore | None = None
    """Of a whole text its own score."""

    __repr__ = short_repr
    to_dict = to_dict

    def _repr_html_(self) -> str:
        from blankfill.generate.notebook import candidates_html, whole_html

        if self.whole is not None:
            return whole_html(self.whole)
        return candidates_html(self.prompt, self.candidates)


@dataclass(frozen=True, kw_only=True, slots=True)
class SurpriseResult:
    """A text and how surprising each of its words is."""

    run: str
    """The run's folder."""
    step: int
    """Optimizer steps of the checkpoint that answered."""
    text: str
    """The text as it was given."""
    words: tuple[WordSurprise, ...]
    """Its words and its punctuation, left to right."""
    total: float
    """Sum of their surprises, in nats: minus the text's pseudo-log-likelihood."""
    mean: float
    """`total` per word."""

    __repr__ = short_repr
    to_dict = to_dict

    def _repr_html_(self) -> str:
        from blankfill.generate.notebook import words_html

        return words_html(self.text, self.words, self.total)


@checks_arguments
def score(
    run: PathLike,
    text: str,
    candidates: Texts = (),
    /,
    *,
    mode: Literal["bidirectional", "one-way"] | None = None,
    stride: Stride | None = None,
    trim: bool = False,
    checkpoint: CheckpointName | None = None,
    weights: Literal["last", "ema"] = "last",
    device: DeviceKind = "auto",
) -> ScoreResult:
    """Say how probable candidates for the blanks of a text are, exactly; or a whole text.

    The probability is that of the whole candidate, the end of each blank included; it may have any
    number of tokens. Of a text with several blanks a candidate has a fill for each, and later
    blanks see its earlier fills.

    A text without a blank and without candidates, of any length, is scored itself, window by
    window, each token once.

    Example:
        blankfill score runs/mine "The [MASK] fox jumps." quick "quick brown"
        blankfill score runs/mine "The quick brown fox jumps." --mode one-way

    Args:
        run: folder of a pretrained run, or of one of its checkpoints.
        text: one text with blanks, or a whole one; a single - reads it from stdin.
        candidates: what may stand in its blank; of a text with several blanks the fills of the
            first candidate, left to right, then those of the next. Where a space stands before a
            blank, a fill is given it too. None of a whole text.
        mode: how a whole text is read. bidirectional: behind a prefix that is read in both
            directions, as GLM-130B measures language modelling; that is so where not given.
            one-way: left to right only.
        stride: tokens of a whole text that each window after the first scores; half a row where
            not given. Fewer cost more windows, and each token sees more of the text before it.
        trim: of a text with blanks that is too long, read what is around them.
        checkpoint: last, best (lowest validation loss), or a step; the last where not given.
        weights: the last ones, or their moving average (--optimizer.ema-decay).
        device: auto, cpu or cuda; auto takes the CUDA device where there is one.

    Raises:
        CheckpointError: the folder is not a run, or has no such checkpoint.
        ConfigError: there is no such device; or mode or stride are given with candidates.
        RequestError: the text has no blank or is too long, there is not one fill for each blank,
            or one is empty or too long; or a whole text has a blank or is empty.
    """
    text, fills = _given(text), as_list(candidates)
    if fills:
        require_fills(text, fills)
        from blankfill.generate.whole import require_no_window

        require_no_window(mode, stride)
        lm = _load(run, checkpoint, weights, device, check=_can_fill(text, trim=trim))
        scored = lm.score(text, fills, trim=trim)
        return ScoreResult(
            run=str(lm.path), step=lm.step, prompt=text, candidates=scored.candidates
        )
    require_complete(text)
    lm = _load(run, checkpoint, weights, device)
    whole = lm.score(text, mode=mode or "bidirectional", stride=stride)
    return ScoreResult(run=str(lm.path), step=lm.step, prompt=text, whole=whole)


@checks_arguments
def rank(
    run: PathLike,
    text: str,
    candidates: Texts,
    /,
    *,
    by: Literal["probability", "tokens", "mean"] = "probability",
    trim: bool = False,
    checkpoint: CheckpointName | None = None,
    weights: Literal["last", "ema"] = "last",
    device: DeviceKind = "auto",
) -> ScoreResult:
    """Score candidates for the blanks of a text, and list the best first.

    Example:
        blankfill rank runs/mine "The [MASK] fox jumps." quick lazy "very quick" --by mean

    Args:
        run: folder of a pretrained run, or of one of its checkpoints.
        text: one text with blanks; a single - reads it from stdin.
        candidates: as for `score`.
        by: probability of exactly these fills; tokens leaves the ends out, as GLM-130B scores
            choices; mean is per token, so that length does not decide.
        trim: of a text that is too long, read what is around its blanks.
        checkpoint: last, best (lowest validation loss), or a step; the last where not given.
        weights: the last ones, or their moving average (--optimizer.ema-decay).
        device: auto, cpu or cuda; auto takes the CUDA device where there is one.

    Raises:
        CheckpointError: the folder is not a run, or has no such checkpoint.
        ConfigError: there is no such device.
        RequestError: as for `score`.
    """
    text, fills = _given(text), as_list(candidates)
    require_fills(text, fills)
    lm = _load(run, checkpoint, weights, device, check=_can_fill(text, trim=trim))
    ranked = lm.rank(text, fills, by=by, trim=trim)
    return ScoreResult(run=str(lm.path), step=lm.step, prompt=text, candidates=ranked.candidates)


@checks_arguments
def surprise(
    run: PathLike,
    text: str,
    /,
    *,
    checkpoint: CheckpointName | None = None,
    weights: Literal["last", "ema"] = "last",
    device: DeviceKind = "auto",
) -> SurpriseResult:
    """Say how surprising each word of a text is where it stands, with all of the rest in sight.

    Each word, and each character of Chinese or Japanese, is cut out in turn; its surprise is minus
    the logarithm of the probability of exactly this word in the blank, in nats. A text is read once
    for each of its words.

    Example:
        blankfill surprise runs/mine "The quick brown fox jumps over the lazy cat."

    Args:
        run: folder of a pretrained run, or of one of its checkpoints.
        text: one text without blanks, of any length; a single - reads it from stdin.
        checkpoint: last, best (lowest validation loss), or a step; the last where not given.
        weights: the last ones, or their moving average (--optimizer.ema-decay).
        device: auto, cpu or cuda; auto takes the CUDA device where there is one.

    Raises:
        CheckpointError: the folder is not a run, or has no such checkpoint.
        ConfigError: there is no such device.
        RequestError: the text has a blank, or no word.
    """
    text = _given(text)
    words = require_words(text)
    from blankfill import progress
    from blankfill.generate.surprise import surprise_words

    lm = _load(run, checkpoint, weights, device)
    with lm.lock, progress.bar("surprise", len(words), "words") as meter:
        found = surprise_words(lm, text, advance=meter.advance)
    return SurpriseResult(
        run=str(lm.path), step=lm.step, text=text, words=found.words, total=found.total,
        mean=found.mean,
    )  # fmt: skip


def _given(text: str) -> str:
    """Take a text as given, or all of stdin where it is `-`, without its last line's end."""
    if text == "-":
        text = read_stdin().removesuffix("\n").removesuffix("\r")
    return checked(text)


def _can_fill(text: str, *, trim: bool) -> Callable[[TextTokenizer, RunConfig], object]:
    """Give what finds out, without the weights, whether a model can fill a text."""
    from blankfill.generate.infill import encode_request

    return functools.partial(encode_request, text, trim=trim)


def _load(
    run: PathLike, checkpoint: CheckpointName | None, weights: Literal["last", "ema"],
    device: DeviceKind, check: Callable[[TextTokenizer, RunConfig], object] | None = None,
) -> LanguageModel:  # fmt: skip
    from blankfill.generate import LanguageModel

    return LanguageModel.load(
        as_path(run), checkpoint=checkpoint, weights=weights, device=device, check=check
    )
