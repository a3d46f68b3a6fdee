"""`blankfill score` and `blankfill rank`: how probable candidates are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from blankfill.api.parameters import CheckpointName, PathLike, Texts, as_list, as_path
from blankfill.config.arguments import checks_arguments
from blankfill.config.train import DeviceKind
from blankfill.results import short_repr, to_dict
from blankfill.text.user_text import require_fills

if TYPE_CHECKING:
    from blankfill.generate import LanguageModel
    from blankfill.generate.score import ScoredCandidate

__all__ = ["ScoreResult", "rank", "score"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreResult:
    """A text and how probable candidates for its blanks are."""

    run: str
    """The run's folder."""
    step: int
    """Optimizer steps of the checkpoint that answered."""
    prompt: str
    """The text as it was given."""
    candidates: tuple[ScoredCandidate, ...]
    """As they were given, or best first where they were ranked."""

    __repr__ = short_repr
    to_dict = to_dict


@checks_arguments
def score(
    run: PathLike,
    text: str,
    candidates: Texts,
    /,
    *,
    checkpoint: CheckpointName | None = None,
    weights: Literal["last", "ema"] = "last",
    device: DeviceKind = "auto",
) -> ScoreResult:
    """Say how probable candidates for the blanks of a text are, exactly.

    The probability is that of the whole candidate, the end of each blank included; it may have any
    number of tokens. Of a text with several blanks a candidate has a fill for each, and later
    blanks see its earlier fills.

    Example:
        blankfill score runs/mine "The [MASK] fox jumps." quick "quick brown"

    Args:
        run: folder of a pretrained run, or of one of its checkpoints.
        text: one text with blanks.
        candidates: what may stand in its blank; of a text with several blanks the fills of the
            first candidate, left to right, then those of the next. Where a space stands before a
            blank, a fill is given it too.
        checkpoint: last, best (lowest validation loss), or a step; the last where not given.
        weights: the last ones, or their moving average (--optimizer.ema-decay).
        device: auto, cpu or cuda; auto takes the CUDA device where there is one.

    Raises:
        CheckpointError: the folder is not a run, or has no such checkpoint.
        ConfigError: there is no such device.
        RequestError: the text has no blank or is too long, there is not one fill for each blank,
            or one is empty or too long.
    """
    fills = as_list(candidates)
    lm = _load(run, text, fills, checkpoint, weights, device)
    scored = lm.score(text, fills)
    return ScoreResult(run=str(lm.path), step=lm.step, prompt=text, candidates=scored.candidates)


@checks_arguments
def rank(
    run: PathLike,
    text: str,
    candidates: Texts,
    /,
    *,
    by: Literal["probability", "tokens", "mean"] = "probability",
    checkpoint: CheckpointName | None = None,
    weights: Literal["last", "ema"] = "last",
    device: DeviceKind = "auto",
) -> ScoreResult:
    """Score candidates for the blanks of a text, and list the best first.

    Example:
        blankfill rank runs/mine "The [MASK] fox jumps." quick lazy "very quick" --by mean

    Args:
        run: folder of a pretrained run, or of one of its checkpoints.
        text: one text with blanks.
        candidates: as for `score`.
        by: probability of exactly these fills; tokens leaves the ends out, as GLM-130B scores
            choices; mean is per token, so that length does not decide.
        checkpoint: last, best (lowest validation loss), or a step; the last where not given.
        weights: the last ones, or their moving average (--optimizer.ema-decay).
        device: auto, cpu or cuda; auto takes the CUDA device where there is one.

    Raises:
        CheckpointError: the folder is not a run, or has no such checkpoint.
        ConfigError: there is no such device.
        RequestError: as for `score`.
    """
    fills = as_list(candidates)
    lm = _load(run, text, fills, checkpoint, weights, device)
    ranked = lm.rank(text, fills, by=by)
    return ScoreResult(run=str(lm.path), step=lm.step, prompt=text, candidates=ranked.candidates)


def _load(
    run: PathLike, text: str, fills: list[str], checkpoint: CheckpointName | None,
    weights: Literal["last", "ema"], device: DeviceKind,
) -> LanguageModel:  # fmt: skip
    """Load the model, once what can be checked without its weights is."""
    require_fills(text, fills)
    from blankfill.generate import LanguageModel
    from blankfill.generate.infill import encode_request

    return LanguageModel.load(
        as_path(run), checkpoint=checkpoint, weights=weights, device=device,
        check=lambda tokenizer, cfg: encode_request(text, tokenizer, cfg),
    )  # fmt: skip
