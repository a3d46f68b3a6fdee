"""`blankfill fill` and `blankfill generate`: a trained model at work."""

from __future__ import annotations

import functools
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
from blankfill.results import short_repr, to_dict
from blankfill.text.user_text import (
    UserText,
    checked,
    read_stdin_lines,
    require_blank,
    to_continue,
)

if TYPE_CHECKING:
    from blankfill.config.run import RunConfig
    from blankfill.generate import FilledItem
    from blankfill.text.tokenizer import TextTokenizer

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
    to_dict = to_dict

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
        texts: one text with blanks, or several; a single - reads stdin, one text a line. On a
            terminal none opens a prompt, where one after the other is typed and filled.
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
    batch = _Batch(texts, require_blank)
    from blankfill import progress
    from blankfill.generate import LanguageModel, Sampling, fill_texts

    sampling = Sampling(temperature=temperature, top_p=top_p, seed=seed)
    lm = LanguageModel.load(
        as_path(run), checkpoint=checkpoint, weights=weights, device=device, check=batch.fit
    )
    ask = functools.partial(
        fill_texts, lm, batch.usable, max_new_tokens=max_new_tokens,
        num_candidates=num_candidates, sampling=sampling,
    )  # fmt: skip
    if len(batch.usable) > 1:
        with progress.bar("fill", len(batch.usable), "texts") as meter:
            items = ask(advance=meter.advance)
    else:
        items = ask()  # a bar would stand between the question and its answer
    return FillResult(run=str(lm.path), step=lm.step, items=batch.answers(items))


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
        texts: one text to continue, or several; a single - reads stdin, one text a line. On a
            terminal none opens a prompt, where one after the other is typed and continued.
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
    batch = _Batch(texts, asked=to_continue)
    from blankfill.generate import LanguageModel, Sampling, continue_texts

    sampling = Sampling(temperature=temperature, top_p=top_p, seed=seed)
    lm = LanguageModel.load(
        as_path(run), checkpoint=checkpoint, weights=weights, device=device, check=batch.fit
    )
    items = continue_texts(lm, batch.usable, max_new_tokens=max_new_tokens, sampling=sampling)
    return FillResult(run=str(lm.path), step=lm.step, items=batch.answers(items))


class _Batch:
    """The texts of a call, what is wrong with some of them, and the answers of the others.

    Args:
        texts: as given; a single `-` reads stdin's lines.
        check: refuses a text that cannot be used whatever the model is.
        asked: makes of a text what the model is asked.

    Raises:
        RequestError: there is no text, or none that can be used.
    """

    def __init__(
        self, texts: Texts, check: Callable[[str], object] = checked,
        asked: Callable[[str], str] = str,
    ) -> None:  # fmt: skip
        self._texts, self._asked = _user_texts(texts), asked
        self._check(lambda text: check(checked(text)))

    @property
    def usable(self) -> list[str]:
        """The texts without an error."""
        return [each.text for each in self._texts if each.error is None]

    def fit(self, tokenizer: TextTokenizer, cfg: RunConfig) -> None:
        """Find the texts that a model cannot take, before its weights are loaded.

        Raises:
            RequestError: it can take none.
        """
        from blankfill.generate.infill import encode_request

        self._check(lambda text: encode_request(self._asked(text), tokenizer, cfg))

    def answers(self, items: Sequence[FilledItem]) -> list[FilledItem]:
        """Put the answers of the usable texts between the errors of the others.

        Raises:
            RequestError: there is no answer.
        """
        from blankfill.generate import FilledItem

        done = iter(items)
        answers: list[FilledItem] = []
        for each in self._texts:
            if each.error is None:
                item = next(done)
            else:
                item = FilledItem(prompt=each.text, text="", blanks=(), error=each.error)
            answers.append(replace(item, error=_name_place(each, item.error)))
        _require_one([item.error for item in answers])
        return answers

    def _check(self, check: Callable[[str], object]) -> None:
        for i, each in enumerate(self._texts):
            if each.error is None:
                try:
                    check(each.text)
                except BlankfillError as wrong:
                    self._texts[i] = replace(each, error=str(wrong))
        _require_one([_name_place(each, each.error) for each in self._texts])


def _user_texts(texts: Texts) -> list[UserText]:
    """Take the texts as given, or stdin's lines where the only one is `-`.

    Raises:
        RequestError: there is no text.
    """
    texts = as_list(texts)
    if not texts:
        raise RequestError("no text was given; write it after the run, or - to read stdin")
    if texts == ["-"]:
        return read_stdin_lines()
    if len(texts) == 1:
        return [UserText(texts[0], "")]
    return [UserText(text, f"text {i}") for i, text in enumerate(texts, start=1)]


def _name_place(text: UserText, error: str | None) -> str | None:
    """Say in an error which of several texts it is about."""
    return f"{text.place}: {error}" if error is not None and text.place else error


def _require_one(errors: Sequence[str | None]) -> None:
    """Go on where one text is usable; else name what is wrong with each, up to a few."""
    if all(error is not None for error in errors):
        shown = "; ".join(map(str, errors[:SHOWN_ERRORS]))
        more = len(errors) - SHOWN_ERRORS
        raise RequestError(f"{shown}; and {more:,} more" if more > 0 else shown)
