"""Part a: the tests that are marked `gpu`, and `multi_gpu` where there are several cards."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from gpu_check import Settings
from gpu_check.record import Record

ROOT = Path(__file__).resolve().parents[2]


def run(settings: Settings, record: Record) -> None:
    """Run the marked tests in this process, a row for each."""
    # What else is installed beside pytest must not have a say in it.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    import pytest

    # Only files that have such a test: the others need packages that a GPU machine may lack.
    files = [
        str(path)
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "mark.gpu" in path.read_text(encoding="utf-8")
    ]
    done = [f"--deselect={job}" for job in record.jobs()]
    # Without a card a test that needs none stands in: does this part run?
    chosen = ["-m", "gpu"] if settings.device == "cuda" else ["-k", "auto_takes", "-m", "not slow"]
    code = pytest.main(
        [*files, *done, *chosen, "-rA", "-v", "--tb=short", "-p", "no:cacheprovider",
         "--continue-on-collection-errors",
         # A warning of a newer torch is worth reading; it is not worth the test.
         "-W", "default", "--rootdir", str(ROOT)],
        plugins=[_Listener(record)],
    )  # fmt: skip
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        record.add("pytest", "failed", error=f"pytest ended with {pytest.ExitCode(code).name}")


class _Listener:
    """Writes a row for each test."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Put last what waits for a compiler: it is what a short time would cut off."""
        items.sort(key=lambda item: "flex" in item.nodeid)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Begin a test."""
        self._record.add(nodeid, "started")

    def pytest_runtest_logreport(self, report: Any) -> None:
        """End a test's call, or what failed around it."""
        if report.when != "call" and report.passed:
            return
        values: dict[str, Any] = {"took_seconds": report.duration}
        if report.failed:
            lines = str(report.longrepr).strip().splitlines()
            values["error"] = " | ".join(line.strip() for line in lines if line.startswith("E"))[
                :600
            ] or "".join(lines[-1:])
        status = {"passed": "passed", "failed": "failed"}.get(report.outcome, "left out")
        self._record.add(report.nodeid, status, **values)

    def pytest_collectreport(self, report: Any) -> None:
        """A file that cannot be read."""
        if report.failed:
            self._record.add(report.nodeid, "failed", error=str(report.longrepr)[-600:])
            print(report.longrepr, file=sys.stderr)
