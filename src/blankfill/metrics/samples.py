"""Sample fills of a run: samples.jsonl, one filled blank per line, `step` first.

Lines are appended whole; resuming at a step drops the later lines, which the resumed run writes
again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from blankfill import atomic
from blankfill.disk.json_files import check
from blankfill.metrics.lines import read_lines

__all__ = ["Sample", "StepSample", "append_samples", "drop_samples", "read_samples"]

log = logging.getLogger(__name__)

FILE = "samples.jsonl"
_FIELDS = {
    "language": str, "before": str, "truth": str, "answer": str, "after": str,
    "probability": float, "correct": bool,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One held-out blank and what the model wrote into it."""

    language: str
    """Language of the document."""
    before: str
    """Text before the blank."""
    truth: str
    """What was cut out."""
    answer: str
    """What the model wrote."""
    after: str
    """Text after the blank."""
    probability: float
    """The model's probability of its answer, its end included."""
    correct: bool
    """Whether the two are the same text, and the answer ended there."""

    def markdown(self) -> str:
        """Show the text, the answer and the truth in one paragraph."""
        text = f"{self.before} **[{self.answer}]** (*{self.truth}*) {self.after}"
        return text.encode("utf-8", "replace").decode("utf-8")


class StepSample(NamedTuple):
    """One line: what the model wrote at a step."""

    step: int
    """Optimizer steps done."""
    sample: Sample
    """The blank and its answer."""

    def line(self) -> str:
        """Write it as JSON, `step` first."""
        fields = {"step": self.step, **asdict(self.sample)}
        return json.dumps(fields, ensure_ascii=False) + "\n"


def append_samples(run: Path, step: int, samples: Sequence[Sample]) -> None:
    """Append what the model filled at `step`; where the disk is full, only warn."""
    lines = [StepSample(step, sample).line() for sample in samples]
    try:
        with (run / FILE).open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write("".join(lines))
    except OSError as error:
        log.warning("%s cannot be written (%s); the fills of step %d are lost", run / FILE, error,
                    step)  # fmt: skip


def drop_samples(run: Path, step: int) -> None:
    """Drop the lines after `step`, and every line where the run stands at its start."""
    path = run / FILE
    if not path.is_file():
        return
    kept = [one.line() for one in read_samples(run) if step > 0 and one.step <= step]
    atomic.write_text(path, "".join(kept), errors="backslashreplace")


def read_samples(run: Path) -> list[StepSample]:
    """Read a run's samples; lines that are cut off or not of this form are left out."""
    found: list[StepSample] = []
    for row in read_lines(run / FILE):
        step = row.pop("step")
        try:
            check(row, _FIELDS)
            found.append(StepSample(cast("int", step), Sample(**cast("Any", row))))
        except (ValueError, TypeError):  # a field is missing, of another type, or unknown
            continue
    return found
