"""Where the numbers and fills of a run go: metrics.jsonl, samples.jsonl, and TensorBoard.

metrics.jsonl holds one flat object per line, `step` first, units in the keys (`loss_nats`,
`positions_per_second`); samples.jsonl holds one filled blank per line. Both are appended to and
flushed line by line, so a killed run keeps its history. Resuming at a step drops the lines after
it, which the resumed run writes again.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

__all__ = ["MetricsWriter", "Sample", "read_metrics", "read_samples"]


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


class MetricsWriter:
    """Appends flat dictionaries of numbers to a run's metrics."""

    def __init__(self, run: Path, *, start_step: int = 0) -> None:
        self._file = _reopen(run / "metrics.jsonl", start_step)
        self._samples = _reopen(run / "samples.jsonl", start_step)
        self._board = _tensorboard(run / "tensorboard", start_step)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write the values that belong to `step`."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for key, value in values.items():
            self._board.add_scalar(key, value, step)

    def write_samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Write what the model filled at `step`."""
        for sample in samples:
            row = {"step": step, **asdict(sample)}
            self._samples.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._samples.flush()
        for number, sample in enumerate(samples):
            text = f"{sample.before} **[{sample.answer}]** (*{sample.truth}*) {sample.after}"
            self._board.add_text(f"fills_{sample.language}/{number}", text, step)

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._samples.close()
        self._board.close()


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Read a run's metrics.jsonl; a last line cut short by a crash is left out."""
    return _read(run / "metrics.jsonl")


def read_samples(run: Path) -> list[dict[str, Any]]:
    """Read a run's samples.jsonl: the fields of `Sample`, and `step`."""
    return _read(run / "samples.jsonl")


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def _reopen(path: Path, start_step: int) -> IO[str]:
    """Open a file of lines to append to, without the lines after `start_step`."""
    kept = [row for row in _read(path) if row["step"] <= start_step and start_step > 0]
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
    temporary.write_text(lines, encoding="utf-8")
    os.replace(temporary, path)
    return path.open("a", encoding="utf-8")


def _tensorboard(folder: Path, start_step: int) -> SummaryWriter:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tensorboard imports deprecated names of its own
        from torch.utils.tensorboard.writer import SummaryWriter
    return SummaryWriter(str(folder), purge_step=start_step if start_step else None)
