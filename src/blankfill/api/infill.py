"""`blankfill fill` and `blankfill generate`: a trained model at work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from blankfill.config.ranges import (
    NewTokens,
    Range,
    Seed,
    Temperature,
    TopP,
    checks_numbers,
)
from blankfill.config.train import DeviceKind
from blankfill.errors import RequestError
from blankfill.text.given import read_stdin

if TYPE_CHECKING:
    from blankfill.generate import FilledItem

__all__ = ["FillResult", "fill", "generate"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FillResult:
    """Texts and what they were filled or continued with."""

    run: str
    """The run's folder."""
    step: int
    """Optimizer steps of the checkpoint that answered."""
    items: list[FilledItem]
    """One per text, in order."""


@checks_numbers
def fill(
    run: Path,
    texts: list[str],
    /,
    *,
    num_candidates: Annotated[int, Range(1, 2**24)] = 1,
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

    Example:
        blankfill fill runs/mine "The [MASK] fox jumps over the [MASK] dog."

    Args:
        run: folder of a pretrained run.
        texts: texts with blanks; a single - reads stdin, one text a line.
        num_candidates: fills to list for each blank, most probable first.
        temperature: 0 takes the most probable token each time; above 0 draws.
        top_p: draw from the smallest set of tokens whose probability reaches this.
        seed: seed of the draws.
        max_new_tokens: longest fill of one blank, in tokens.
        weights: the last ones, or their moving average (--train.ema-decay).
        device: auto, cpu or cuda; auto takes the CUDA device where there is one.

    Raises:
        CheckpointError: the folder is not a run.
        ConfigError: there is no such device.
        RequestError: a text has no blank or is too long.
    """
    lines = _texts(texts)
    from blankfill.runtime import tune_process

    tune_process()
    from blankfill import progress
    from blankfill.generate import Sampling, fill_texts
    from blankfill.train import load_run

    sampling = Sampling(temperature=temperature, top_p=top_p, seed=seed)
    loaded = load_run(Path(run), weights=weights, device=device)
    with progress.bar("fill", len(lines), "texts") as meter:
        items = fill_texts(
            loaded.model, loaded.tokenizer, lines, scheme=loaded.cfg.objective.positions,
            sentinels_behind=loaded.cfg.sentinels_behind,
            max_new_tokens=max_new_tokens, num_candidates=num_candidates, sampling=sampling,
            advance=meter.advance,
        )  # fmt: skip
    return FillResult(run=str(run), step=loaded.step, items=items)


@checks_numbers
def generate(
    run: Path,
    texts: list[str],
    /,
    *,
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
        run: folder of a pretrained run.
        texts: texts to continue; a single - reads stdin, one text a line.
        temperature: 0 takes the most probable token each time; above 0 draws.
        top_p: draw from the smallest set of tokens whose probability reaches this.
        seed: seed of the draws.
        max_new_tokens: longest continuation, in tokens.
        weights: the last ones, or their moving average (--train.ema-decay).
        device: auto, cpu or cuda; auto takes the CUDA device where there is one.

    Raises:
        CheckpointError: the folder is not a run.
        ConfigError: there is no such device.
        RequestError: a text is too long.
    """
    lines = _texts(texts)
    from blankfill.runtime import tune_process

    tune_process()
    from blankfill.generate import Sampling, continue_texts
    from blankfill.train import load_run

    sampling = Sampling(temperature=temperature, top_p=top_p, seed=seed)
    loaded = load_run(Path(run), weights=weights, device=device)
    items = continue_texts(
        loaded.model, loaded.tokenizer, lines, scheme=loaded.cfg.objective.positions,
            sentinels_behind=loaded.cfg.sentinels_behind,
        max_new_tokens=max_new_tokens, sampling=sampling,
    )  # fmt: skip
    return FillResult(run=str(run), step=loaded.step, items=items)


def _texts(texts: Sequence[str]) -> list[str]:
    """Take the texts as given, or stdin's lines where the only one is `-`."""
    if list(texts) != ["-"]:
        if not texts:
            raise RequestError("no text was given; write it behind the run, or - to read stdin")
        return list(texts)
    lines = [line.removesuffix("\r") for line in read_stdin().split("\n")]
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise RequestError("stdin holds no text; give one text a line")
    return lines
