"""What a part found, a line for each job, written as soon as it is known.

A row has `part`, `job`, `status` and what was measured. Status: `passed` or `failed` for a check,
`measured` for a number, `left out` with a reason; `started` until one of these follows.
"""

from __future__ import annotations

import faulthandler
import json
import math
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Record", "read_rows"]

THE_PART = "the part"
"""What a row is about that is about no job."""


class Record:
    """Rows of one part.

    Args:
        folder: of the results.
        part: its letter.
    """

    def __init__(self, folder: Path, part: str) -> None:
        self._folder, self._part = folder, part

    def add(self, job: str, status: str, **values: Any) -> None:
        """Append a row."""
        row = {"part": self._part, "job": job, "status": status, **values}
        with (self._folder / "gpu-check.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(_plain(row), ensure_ascii=False) + "\n")
        print(f"{job}: {status} {values}", flush=True)

    def rows(self) -> list[dict[str, Any]]:
        """Give the part's rows; the last of each job counts."""
        return [row for row in read_rows(self._folder) if row["part"] == self._part]

    def jobs(self) -> set[str]:
        """Name the jobs that were begun or left out."""
        return {row["job"] for row in self.rows()} - {THE_PART}

    def do(
        self, job: str, call: Callable[[], dict[str, Any]], most_seconds: float | None = None
    ) -> None:
        """Do a job that was not begun before, and keep what it gives or raises.

        Args:
            job: its name.
            call: does it, and gives the values of its row, `status` among them.
            most_seconds: when this process ends and says where it stood, however deep in a library
                it hangs; the check then begins the part again, behind this job.
        """
        if job in self.jobs():
            return
        self.add(job, "started")
        begun = time.monotonic()
        try:
            if most_seconds is not None:
                faulthandler.dump_traceback_later(max(most_seconds, 0.1), exit=True)
            values = {"status": "measured", **call()}
        except Exception as error:  # the next job is done all the same
            traceback.print_exc()
            first = str(error).strip().split("\n")[0][:300]
            values = {"status": "failed", "error": f"{type(error).__name__}: {first}"}
        finally:
            faulthandler.cancel_dump_traceback_later()
        self.add(job, values.pop("status"), **values, took_seconds=time.monotonic() - begun)

    def cut_off(self, why: str) -> None:
        """Say why the part ended before its end: of the job at hand, or of the part."""
        jobs = [row["job"] for row in self.rows() if row["status"] == "started"]
        self.add(jobs[-1] if jobs else THE_PART, "failed", error=why)


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Read all rows, the last of each job in the place of its first."""
    path = folder / "gpu-check.jsonl"
    if not path.exists():
        return []
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # cut short by a kill
            continue
        rows[row["part"], row["job"]] = row
    return list(rows.values())


def _plain(value: Any) -> Any:
    """Round numbers to six digits; JSON has none that are not finite."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return value
