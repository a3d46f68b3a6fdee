"""Batches by step index, made one step ahead on a thread of their own.

The loader has no state but the index: asking for step 1,000,000 costs what step 0 costs.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from blankfill.data.rows import RowSource
from blankfill.objective.batch import Batch

__all__ = ["Loader"]


class Loader:
    """Serves the micro-batches of each optimizer step."""

    def __init__(self, rows: RowSource, *, batch_rows: int, micro_batch_rows: int) -> None:
        self._rows, self._micro_rows = rows, micro_batch_rows
        self._num_micro = batch_rows // micro_batch_rows
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rows")
        self._ahead: dict[int, Future[list[Batch]]] = {}

    def batches(self, step: int) -> list[Batch]:
        """Return the micro-batches of `step` and start making those of the next."""
        future = self._ahead.pop(step, None) or self._pool.submit(self._make, step)
        self._ahead = {step + 1: self._pool.submit(self._make, step + 1)}
        return future.result()

    def _make(self, step: int) -> list[Batch]:
        first = step * self._num_micro
        return [self._rows.batch(first + m, self._micro_rows) for m in range(self._num_micro)]

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
