"""How `blankfill train` ends: held-out blanks filled, and the commands that come next."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blankfill.api.infill import fill
from blankfill.api.train_folder import TrainRecord
from blankfill.results import short_repr

if TYPE_CHECKING:
    from blankfill.metrics import Sample

__all__ = ["TrainFill", "commands_to_go_on", "fill_held_out"]

FILLS: Final = 3
"""Held-out blanks that are shown."""
CONTEXT: Final = 40
"""Characters on either side of them."""
EXAMPLE: Final = "The [MASK] fox jumps over the [MASK] dog."
"""For a run without a held-out blank to show."""
MAX_NEW_TOKENS: Final = 64
"""Of a continuation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainFill:
    """A held-out blank, and what the model wrote into it."""

    language: str
    """en, zh or other."""
    text: str
    """Held-out text with the blank in it."""
    truth: str
    """What was cut out."""
    answer: str
    """What the model wrote."""
    probability: float
    """The model's probability of its answer."""

    __repr__ = short_repr


def fill_held_out(run: Path, step: int) -> list[TrainFill]:
    """Fill some held-out blanks with a checkpoint of a run, as `blankfill fill` does.

    They are the first that were filled while the run trained, of each language in turn.

    Args:
        run: the run's folder.
        step: of the checkpoint.
    """
    samples = _samples(run, step)
    if not samples:
        return []
    texts = [_text(sample) for sample in samples]
    found = fill(run, texts, checkpoint=step).items
    return [
        TrainFill(
            language=sample.language, text=text, truth=sample.truth,
            answer=item.blanks[0].text, probability=item.blanks[0].probability,
        )
        for sample, text, item in zip(samples, texts, found, strict=True)
        if item.error is None
    ]  # fmt: skip


def _samples(run: Path, step: int) -> list[Sample]:
    """Take the samples of a validation, of each language in turn."""
    from blankfill.metrics import read_samples

    of_step = [found.sample for found in read_samples(run) if found.step == step]
    languages = list(dict.fromkeys(sample.language for sample in of_step))
    by_language = [[s for s in of_step if s.language == name] for name in languages]
    longest = max(map(len, by_language), default=0)
    in_turn = [group[i] for i in range(longest) for group in by_language if i < len(group)]
    return in_turn[:FILLS]


def _text(sample: Sample) -> str:
    """Give a sample's text with the blank, on one line, cut at words."""
    before = re.sub(r"\s+", " ", sample.before)
    after = re.sub(r"\s+", " ", sample.after)
    if len(before) > CONTEXT:
        before = re.sub(r"^[^\s\u3000-\u9fff\uff00-\uffef]*\s*", "", before[-CONTEXT:])
    if len(after) > CONTEXT:
        after = re.sub(r"\s*[^\s\u3000-\u9fff\uff00-\uffef]*$", "", after[:CONTEXT])
    return f"{before}[MASK]{after}".strip("\u2026 ")


def commands_to_go_on(
    run: Path, record: TrainRecord, fills: Sequence[TrainFill], step: int
) -> list[str]:
    """Give the commands that come next: fill, continue, train for longer.

    Args:
        run: the run's folder.
        record: what train.json says.
        fills: what is filled again.
        step: of its best checkpoint.
    """
    from blankfill.runs import newest_checkpoint

    best = [] if step == newest_checkpoint(run, []).step else ["--checkpoint", "best"]
    text = fills[0].text if fills else EXAMPLE
    opening = text.partition("[MASK]")[0].strip() or text.partition("[MASK]")[2].strip()
    longer = run.with_name(f"{run.name}-longer")
    of_init = ["--init-checkpoint", "best"] if best else []
    return [
        shlex.join(["blankfill", *map(str, words)])
        for words in (
            ["fill", run, text, *best],
            ["generate", run, opening, "--max-new-tokens", MAX_NEW_TOKENS, *best],
            ["pretrain", "--config", run, "--init", run, *of_init, "--minutes",
             f"{record.asked.minutes:g}", "--out", longer],
        )
    ]  # fmt: skip
