"""Where the numbers of a run go: metrics.jsonl, and TensorBoard beside it. Fills: samples.py.

metrics.jsonl holds one flat object per line, `step` first, units in the keys (`loss_nats`,
`positions_per_second`); it is appended to and flushed line by line, so a killed run keeps its
history. Resuming at a step drops the lines at and after it, which the resumed run writes again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from blankfill import atomic
from blankfill.config.run import RunConfig
from blankfill.disk.names import readable_name
from blankfill.metrics.lines import read_lines
from blankfill.metrics.names import board_tag
from blankfill.metrics.samples import Sample, append_samples, drop_samples
from blankfill.metrics.wandb import WandbLog

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

__all__ = ["MetricsSink", "MetricsWriter", "NoMetrics", "read_metrics"]

log = logging.getLogger(__name__)


class MetricsSink(Protocol):
    """Where a training loop writes its numbers."""

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write the values that belong to `step`."""
        ...

    def write_samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Write what the model filled at `step`."""
        ...

    def sync(self) -> None:
        """Wait until the disk has every line."""
        ...

    def rewind(self, step: int) -> None:
        """Drop the lines after `step`."""
        ...

    def __enter__(self) -> MetricsSink: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class NoMetrics:
    """Takes numbers and writes nothing: another process does."""

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write nothing."""

    def write_samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Write nothing."""

    def sync(self) -> None:
        """Wait for nothing."""

    def rewind(self, step: int) -> None:
        """Drop nothing."""

    def __enter__(self) -> NoMetrics:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


class MetricsWriter:
    """Appends flat dictionaries of numbers to a run's metrics.

    A full disk does not end the run: lines wait in memory until there is room again.

    Args:
        run: the run's folder.
        start_step: step that the run stands at; later lines are dropped.
        wandb: project of Weights & Biases to send the numbers to as well; "" sends none.
        config: the run's configuration, for its page there.

    Raises:
        ConfigError: `wandb` is named and not installed.
    """

    def __init__(
        self, run: Path, *, start_step: int = 0, wandb: str = "", config: RunConfig | None = None
    ) -> None:
        self._path, self._board_folder = run / "metrics.jsonl", run / "tensorboard"
        self._waiting = b""
        self._wandb = WandbLog(run, wandb, config) if wandb else None
        self._handle, self._board = self._open(start_step, keep=start_step > 0)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write the values that belong to `step`."""
        self._waiting += (json.dumps({"step": step, **values}) + "\n").encode()
        self._flush()
        if self._wandb is not None:
            self._wandb.write(step, values)
        try:
            for key, value in values.items():
                self._board.add_scalar(board_tag(key), value, step)
        except OSError as error:
            log.warning("TensorBoard's file cannot be written (%s)", error)

    def write_samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Write what the model filled at `step` to samples.jsonl and as text to TensorBoard."""
        append_samples(self._path.parent, step, samples)
        with contextlib.suppress(OSError):
            for number, sample in enumerate(samples):
                self._board.add_text(f"fills_{sample.language}/{number}", sample.markdown(), step)

    def sync(self) -> None:
        """Wait until the disk has every line, as it must before a checkpoint of this step."""
        with contextlib.suppress(OSError):
            os.fsync(self._handle)

    def rewind(self, step: int) -> None:
        """Drop the lines after `step`, which the run returned to."""
        self._close()
        self._handle, self._board = self._open(step, keep=True)

    def _open(self, start_step: int, *, keep: bool) -> tuple[int, SummaryWriter]:
        rows = read_metrics(self._path.parent)
        kept = [row for row in rows if keep and row["step"] <= start_step]
        atomic.write_text(self._path, "".join(json.dumps(row) + "\n" for row in kept))
        drop_samples(self._path.parent, start_step)
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        self._board_name = contextlib.ExitStack()
        self._board_folder.mkdir(exist_ok=True)
        name = self._board_name.enter_context(readable_name(self._board_folder))
        return handle, _tensorboard(name, start_step)

    def _flush(self) -> None:
        try:
            while self._waiting:
                self._waiting = self._waiting[os.write(self._handle, self._waiting) :]
        except OSError as error:
            log.warning("%s cannot be written (%s); its lines wait", self._path, error)

    def _close(self) -> None:
        self._flush()
        os.close(self._handle)
        with contextlib.suppress(OSError):
            self._board.close()
        self._board_name.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()
        if self._wandb is not None:
            self._wandb.close()


def read_metrics(run: Path) -> list[dict[str, float]]:
    """Read a run's metrics.jsonl; a last line cut short by a crash is left out.

    Returns:
        Of each line its `step` and its values by name; NaN where the line holds no number.
    """
    return [
        {name: _number(value) for name, value in row.items()}
        for row in read_lines(run / "metrics.jsonl")
    ]


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return value


def _tensorboard(folder: str, start_step: int) -> SummaryWriter:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tensorboard imports deprecated names of its own
        from torch.utils.tensorboard.writer import SummaryWriter
    return SummaryWriter(folder, purge_step=start_step if start_step else None)
