"""What `blankfill evaluate` leaves in a run's folder: evaluation.json, as values.

Two evaluations may stand side by side where they asked the same: the same law, seed and held-out
text, and so the same blanks. `differences` says in what they differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from blankfill.atomic import write_json
from blankfill.disk.json_files import Description, EarlierFormatError, read_object
from blankfill.disk.typed_json import from_json, to_json
from blankfill.errors import CheckpointError
from blankfill.results import short_repr

__all__ = [
    "BlankLaw",
    "BlankReport",
    "BlankScores",
    "Estimate",
    "Evaluation",
    "LanguageReport",
    "check_evaluation",
    "differences",
    "read_evaluation",
    "write_evaluation",
]

FILE = "evaluation.json"
VERSION = 2
"""Version of the file. In version 1 every run had blanks of its own, drawn by its objective."""
EVALUATION = Description("format", "blankfill evaluation", VERSION, {}, oldest=VERSION)
EARLIER = EVALUATION._replace(oldest=1)

Reads = Literal["both sides", "left side", "two tokens", "nothing"]
"""What a system is told of the text around a blank."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A score over many blanks."""

    value: float
    """The mean."""
    standard_error: float | None = None
    """Of the mean, blanks of one document taken together; None where there is one document."""

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"its 'value' is {self.value}, not a finite number")


@dataclass(frozen=True, kw_only=True, slots=True)
class BlankScores:
    """How one system did on the blanks of one language."""

    system: str
    """model, trigram or unigram."""
    reads: Reads
    """What it is told of the text around a blank."""
    exact_match: Estimate | None = None
    """Share of blanks filled exactly, their end found as well; None where nothing tells the end."""
    exact_match_given_length: Estimate
    """Share of blanks filled exactly by a system that is told how many tokens to write."""
    loss_nats_per_token: Estimate
    """Nats per token of the blanks; tokens of another tokenizer are others."""
    loss_nats_per_character: Estimate
    """Nats per character of the blanks, whatever the tokenizer."""
    loss_nats_per_word: Estimate
    """Nats per word, or character of Chinese and Japanese."""
    bits_per_byte: Estimate
    """Bits per byte of the blanks' text in UTF-8."""
    end_loss_nats: Estimate | None = None
    """Nats of the end of a blank after its true text; None where nothing tells the end."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageReport:
    """The blanks of one language and every system's scores on them."""

    language: str
    """en, zh or other."""
    num_documents: int
    """Held-out documents of this language."""
    num_blank_documents: int
    """Documents that the blanks stand in: these are the clusters of the standard errors."""
    num_blanks: int
    """Blanks scored."""
    num_words: int
    """Words (in Chinese and Japanese characters) in the blanks."""
    num_characters: int
    """Characters in the blanks."""
    num_tokens: int
    """Tokens in the blanks, by the run's tokenizer."""
    num_shortened: int = 0
    """Texts of which the model read less than the law gives, because its rows hold no more."""
    scores: tuple[BlankScores, ...]
    """The model first."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class BlankLaw:
    """What was asked: with the same law, the very same blanks."""

    name: str
    """Name of the law."""
    version: int
    """Its version; docs/evaluation.md says what it is."""
    seed: int
    """Seed of the blanks."""
    max_blanks: int
    """Most blanks of one language."""
    max_words: int
    """Most words of a blank; each number from one up is as likely."""
    window_characters: dict[str, int]
    """Characters of text that are shown on either side of a blank, by language."""
    text_fingerprint: str
    """Of the held-out text, in whatever order its documents stand."""
    blanks_fingerprint: str
    """Of the blanks."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class BlankReport:
    """An evaluation on held-out blanks."""

    law: BlankLaw
    """Which blanks."""
    languages: tuple[LanguageReport, ...]
    """One per language that has blanks."""
    ngram_tokens: int = 0
    """Training tokens that the n-gram models were estimated on; 0 where there are none."""
    training_tokens: int = 0
    """Tokens of the training text that these were drawn from."""

    __repr__ = short_repr

    def score(self, language: str, system: str, reads: Reads | None = None) -> BlankScores:
        """Find one system's scores in one language; the first where `reads` does not say which."""
        report = next(r for r in self.languages if r.language == language)
        return next(
            s for s in report.scores if s.system == system and reads in (None, s.reads)
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """The last evaluation of a run."""

    step: int
    """Optimizer steps of the checkpoint that was scored."""
    weights: str = "last"
    """The last weights, or their moving average (`ema`)."""
    blanks: BlankReport
    """Its scores."""
    notes: tuple[str, ...] = ()
    """What was left out, and why."""


def write_evaluation(run: Path, evaluation: Evaluation) -> None:
    """Write a run's evaluation.json.

    Raises:
        OSError: the folder does not take it.
    """
    value = {"format": EVALUATION.value, "version": VERSION, **to_json(evaluation)}
    write_json(run / FILE, value)


def read_evaluation(run: Path) -> Evaluation | None:
    """Read what `blankfill evaluate` has recorded of a run; None where it has not.

    Raises:
        CheckpointError: evaluation.json is damaged, another's, or of an earlier blankfill.
    """
    try:
        value = _read(run, EVALUATION)
        return None if value is None else from_json(Evaluation, value)
    except EarlierFormatError as error:
        raise CheckpointError(
            f"{run / FILE} was written by an earlier blankfill, which drew the blanks of every run "
            "by its own objective, so its scores compare with none; evaluate the run again"
        ) from error
    except ValueError as error:
        raise _foreign(run, error) from error


def check_evaluation(run: Path) -> None:
    """Check that an evaluation.json, where there is one, is ours and may be replaced.

    Raises:
        CheckpointError: it is damaged, or another's.
    """
    try:
        _read(run, EARLIER)
    except ValueError as error:
        raise _foreign(run, error) from error


def differences(laws: Mapping[str, BlankLaw]) -> dict[str, dict[str, list[str]]]:
    """Find what evaluations that cannot stand side by side differ in; nothing where they can.

    Args:
        laws: what was asked of each run, by the run's name.

    Returns:
        The runs that have each value, of each part that differs: `law`, `seed`, `max blanks`,
        `text` and, where these are equal, `blanks`.
    """
    parts = {
        "law": [f"{law.name} {law.version}" for law in laws.values()],
        "seed": [str(law.seed) for law in laws.values()],
        "max blanks": [f"{law.max_blanks:,}" for law in laws.values()],
        "text": [law.text_fingerprint[:12] for law in laws.values()],
    }
    found = {name: _owners(laws, values) for name, values in parts.items() if len(set(values)) > 1}
    shown = {
        (law.blanks_fingerprint, law.max_words, *sorted(law.window_characters.items()))
        for law in laws.values()
    }
    if not found and len(shown) > 1:
        found["blanks"] = _owners(laws, [law.blanks_fingerprint[:12] for law in laws.values()])
    return found


def _owners(names: Iterable[str], values: Sequence[str]) -> dict[str, list[str]]:
    owners: dict[str, list[str]] = {}
    for name, value in zip(names, values, strict=True):
        owners.setdefault(value, []).append(name)
    return owners


def _read(run: Path, description: Description) -> dict[str, object] | None:
    path = run / FILE
    try:
        return read_object(path, description)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from error


def _foreign(run: Path, error: ValueError) -> CheckpointError:
    return CheckpointError(
        f"{run / FILE} is not what `blankfill evaluate` writes: {error}; move it away and evaluate "
        "the run again"
    )
