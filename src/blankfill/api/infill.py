"""`blankfill fill` and `blankfill generate`: a trained model at work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

from blankfill.api.parameters import CheckpointName, PathLike, Texts, as_list, as_path
from blankfill.config.arguments import checks_arguments
from blankfill.config.ranges import (
    NewTokens,
    Range,
    Seed,
    Temperature,
    TopP,
)
from blankfill.config.train import DeviceKind
from blankfill.errors import BlankfillError, RequestError
from blankfill.results import short_repr
from blankfill.text.user_text import UserText, checked, read_stdin_lines, require_blank

if TYPE_CHECKING:
    from blankfill.generate import FilledItem

__all__ = ["FillResult", "fill", "generate"]

SHOWN_ERRORS = 3
"""Errors that are named where no text is usable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FillResult:
    """Texts and what they were filled or continued with."""

    run: str
    """The run's folder."""
    step: int
    """Optimizer steps of the checkpoint that answered."""
    items: list[FilledItem]
    """One per text, in order; one that could not be filled has its `error` instead."""

    __repr__ = short_repr

    @property
    def exit_code(self) -> int:
        """2 where a text could not be filled."""
        return 2 if any(item.error is not None for item in self.items) else 0


@checks_arguments
def fill(
    run: PathLike,
    texts: Texts,
    /,
    *,
    checkpoint: CheckpointName | None = None,
    num_candidates: Annotated[int, Range(1, 10**6)] = 1,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    max_new_tokens: NewTokens = 64,
    weights: Literal["last", "ema"] = "last",
    device: DeviceKind = "auto",
) -> FillResult:
    """Fill the blanks of texts with a trained model.

    [MASK] stands for a word or phrase, [sMASK] for a sentence, [gMASK] for a long passage; a text
    may hold several. Texts are filled left to right and earlier fills are seen by later blanks.
    Of several texts, one that cannot be filled gets its error for an answer and the exit code is 2;
    the others are filled.

    Example:
        blankfill fill runs/mine "The [MASK] fox jumps over the [MASK] dog."

    Args:
        run: folder of a pretrained run, or of one of its checkpoints.
        texts: one text with blanks, or several; a single - reads stdin, one text a line.
        checkpoint: last, best (lowest validation loss), or a step; the last where not given.
        num_candidates: fills to list for each blank, most probable first; as many as there are
            where these are fewer.
        temperature: 0 takes the most probable token each time; above 0 draws.
        top_p: draw from the smallest set of tokens whose probability reaches this.
        seed: seed of the draws.
        max_new_tokens: longest fill of one blank, in tokens.
        weights: the last ones, or their moving average (--optimizer.ema-decay).
        device: auto, cpu or cuda; auto takes the CUDA device where there is one.

    Raises:
        CheckpointError: the folder is not a run, or has no such checkpoint.
        ConfigError: there is no such device.
        RequestError: no text can be filled: each has no blank or is too long.
    """
    user_texts = _user_texts(texts, require_blank)
    from blankfill import progress
    from blankfill.generate import LanguageModel, Sampling, fill_texts

    sampling = Sampling(temperature=temperature, top_p=top_p, seed=seed)
    lm = LanguageModel.load(as_path(run), checkpoint=checkpoint, weights=weights, device=device)
    lines = [each.text for each in user_texts if each.error is None]
    with progress.bar("fill", len(lines), "texts") as meter:
        items = fill_texts(
            lm, lines, max_new_tokens=max_new_tokens, num_candidates=num_candidates,
            sampling=sampling, advance=meter.advance,
        )  # fmt: skip
    return FillResult(run=str(lm.path), step=lm.step, items=_answers(user_texts, items))


@checks_arguments
def generate(
    run: PathLike,
    texts: Texts,
    /,
    *,
    checkpoint: CheckpointName | None = None,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    max_new_tokens: NewTokens = 128,
    weights: Literal["last", "ema"] = "last",
    device: DeviceKind = "auto",
) -> FillResult:
    """Continue texts with a trained model, after [gMASK].

    Example:
        blankfill generate runs/mine "Once upon a time"

    Args:
        run: folder of a pretrained run, or of one of its checkpoints.
        texts: one text to continue, or several; a single - reads stdin, one text a line.
        checkpoint: last, best (lowest validation loss), or a step; the last where not given.
        temperature: 0 takes the most probable token each time; above 0 draws.
        top_p: draw from the smallest set of tokens whose probability reaches this.
        seed: seed of the draws.
        max_new_tokens: longest continuation, in tokens.
        weights: the last ones, or their moving average (--optimizer.ema-decay).
        device: auto, cpu or cuda; auto takes the CUDA device where there is one.

    Raises:
        CheckpointError: the folder is not a run, or has no such checkpoint.
        ConfigError: there is no such device.
        RequestError: no text can be continued: each is too long.
    """
    user_texts = _user_texts(texts)
    from blankfill.generate import LanguageModel, Sampling, continue_texts

    sampling = Sampling(temperature=temperature, top_p=top_p, seed=seed)
    lm = LanguageModel.load(as_path(run), checkpoint=checkpoint, weights=weights, device=device)
    lines = [each.text for each in user_texts if each.error is None]
    items = continue_texts(lm, lines, max_new_tokens=max_new_tokens, sampling=sampling)
    return FillResult(run=str(lm.path), step=lm.step, items=_answers(user_texts, items))


def _user_texts(texts: Texts, check: Callable[[str], object] = checked) -> list[UserText]:
    """Take the texts as given, or stdin's lines where the only one is `-`; check each of them.

    Raises:
        RequestError: there is no text, or none that can be used.
    """
    texts = as_list(texts)
    if not texts:
        raise RequestError("no text was given; write it after the run, or - to read stdin")
    if texts == ["-"]:
        read = read_stdin_lines()
    elif len(texts) == 1:
        read = [UserText(texts[0], "")]
    else:
        read = [UserText(text, f"text {i}") for i, text in enumerate(texts, start=1)]
    found: list[UserText] = []
    for each in read:
        error = each.error
        if error is None:
            try:
                check(checked(each.text))
            except BlankfillError as wrong:
                error = str(wrong)
        found.append(replace(each, error=error))
    _require_one([_name_place(each, each.error) for each in found])
    return found


def _answers(user_texts: Sequence[UserText], items: Sequence[FilledItem]) -> list[FilledItem]:
    """Put the answers of the usable texts between the errors of the others.

    Raises:
        RequestError: there is no answer.
    """
    from blankfill.generate import FilledItem

    done = iter(items)
    answers: list[FilledItem] = []
    for each in user_texts:
        if each.error is None:
            item = next(done)
        else:
            item = FilledItem(prompt=each.text, text="", blanks=(), error=each.error)
        answers.append(replace(item, error=_name_place(each, item.error)))
    _require_one([item.error for item in answers])
    return answers


def _name_place(text: UserText, error: str | None) -> str | None:
    """Say in an error which of several texts it is about."""
    return f"{text.place}: {error}" if error is not None and text.place else error


def _require_one(errors: Sequence[str | None]) -> None:
    """Go on where one text is usable; else name what is wrong with each, up to a few."""
    if all(error is not None for error in errors):
        shown = "; ".join(map(str, errors[:SHOWN_ERRORS]))
        more = len(errors) - SHOWN_ERRORS
        raise RequestError(f"{shown}; and {more:,} more" if more > 0 else shown)
