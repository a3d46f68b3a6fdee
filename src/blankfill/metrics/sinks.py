"""Where the numbers of a run go: metrics.jsonl, and TensorBoard beside it. Fills: samples.py.

metrics.jsonl holds one flat object per line, `step` first, units in the keys (`loss_nats`,
`positions_per_second`); it is appended to and flushed line by line, so a killed run keeps its
history. Resuming at a step drops the lines at and after it, which the resumed run writes again.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from blankfill.metrics.samples import Sample, append_samples, drop_samples

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

__all__ = ["MetricsWriter", "read_metrics"]


class MetricsWriter:
    """Appends flat dictionaries of numbers to a run's metrics."""

    def __init__(self, run: Path, *, start_step: int = 0) -> None:
        self._path = run / "metrics.jsonl"
        kept = [row for row in read_metrics(run) if row["step"] <= start_step and start_step > 0]
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        os.replace(temporary, self._path)
        self._file = self._path.open("a", encoding="utf-8")
        self._board = _tensorboard(run / "tensorboard", start_step)
        drop_samples(run, start_step)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write the values that belong to `step`."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for key, value in values.items():
            self._board.add_scalar(key, value, step)

    def write_samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Write what the model filled at `step` to samples.jsonl and as text to TensorBoard."""
        append_samples(self._path.parent, step, samples)
        for number, sample in enumerate(samples):
            self._board.add_text(f"fills_{sample.language}/{number}", sample.markdown(), step)

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._board.close()


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Read a run's metrics.jsonl; a last line cut short by a crash is left out."""
    path = run / "metrics.jsonl"
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


def _tensorboard(folder: Path, start_step: int) -> SummaryWriter:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tensorboard imports deprecated names of its own
        from torch.utils.tensorboard.writer import SummaryWriter
    return SummaryWriter(str(folder), purge_step=start_step if start_step else None)
