"""How `blankfill report` ends in a terminal."""

from __future__ import annotations

from blankfill.api.report import ReportResult
from blankfill.cli.console import Answer

__all__ = ["print_report"]


def print_report(result: ReportResult, console: Answer) -> None:
    """Print where the report is."""
    size = f"{result.num_bytes / 1000:,.0f} kB"
    console.print(f"{result.path}: {', '.join(result.runs)}, {size}")
