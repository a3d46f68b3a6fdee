"""Batches by row index, made one step ahead on a thread of their own, masks included.

The loader has no state: asking for row 1,000,000 costs what row 0 costs.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from blankfill.data.mixture import RowStream
from blankfill.engine.engine import Engine
from blankfill.engine.transfer import TensorBatch

__all__ = ["Loader"]


class Loader:
    """Serves the micro-batches of optimizer steps.

    Args:
        rows: the stream.
        engine: says which rows are this process's, and copies them to where the model computes,
            masks included.
    """

    def __init__(self, rows: RowStream, engine: Engine) -> None:
        self._rows, self._engine = rows, engine
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rows")
        self._ahead: dict[tuple[int, int], Future[list[TensorBatch]]] = {}

    def batches(self, first: int, num_rows: int) -> list[TensorBatch]:
        """Return this process's part of the rows `[first, first + num_rows)` as micro-batches.

        Those of the next step are begun.
        """
        future = self._ahead.pop((first, num_rows), None)
        future = future or self._pool.submit(self._make, first, num_rows)
        for stale in self._ahead.values():
            stale.cancel()
        after = (first + num_rows, num_rows)
        self._ahead = {after: self._pool.submit(self._make, *after)}
        return future.result()

    def _make(self, first: int, num_rows: int) -> list[TensorBatch]:
        return [
            self._engine.transfer(self._rows.rows(part.first, part.size), part)
            for part in self._engine.deal(first, num_rows)
        ]

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
