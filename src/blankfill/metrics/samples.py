"""Sample fills of a run: samples.jsonl, one filled blank per line, `step` first.

Lines are appended whole; resuming at a step drops the lines behind it, which the resumed run
writes again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blankfill import atomic
from blankfill.metrics.lines import read_lines

__all__ = ["Sample", "append_samples", "drop_samples", "read_samples"]

log = logging.getLogger(__name__)

FILE = "samples.jsonl"


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
    """Text behind the blank."""
    probability: float
    """The model's probability of its answer, its end included."""
    correct: bool
    """Whether the two are the same, token by token."""

    def markdown(self) -> str:
        """Show the text, the answer and the truth in one paragraph."""
        text = f"{self.before} **[{self.answer}]** (*{self.truth}*) {self.after}"
        return text.encode("utf-8", "replace").decode("utf-8")


def append_samples(run: Path, step: int, samples: Sequence[Sample]) -> None:
    """Append what the model filled at `step`; a disk that takes no more is only warned of."""
    lines = [json.dumps({"step": step, **asdict(sample)}, ensure_ascii=False) for sample in samples]
    try:
        with (run / FILE).open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write("".join(line + "\n" for line in lines))
    except OSError as error:
        log.warning("%s cannot be written (%s); the fills of step %d are lost", run / FILE, error,
                    step)  # fmt: skip


def drop_samples(run: Path, step: int) -> None:
    """Drop the lines behind `step`, and every line where the run stands at its start."""
    path = run / FILE
    if not path.is_file():
        return
    kept = [row for row in read_samples(run) if step > 0 and row["step"] <= step]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
    atomic.write_text(path, lines, errors="backslashreplace")


def read_samples(run: Path) -> list[dict[str, Any]]:
    """Read a run's samples: the fields of `Sample`, and `step`; broken lines are left out."""
    return read_lines(run / FILE)
