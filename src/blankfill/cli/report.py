"""How `blankfill report` ends in a terminal."""

from __future__ import annotations

from rich.console import Console

from blankfill.api.report import ReportResult

__all__ = ["print_report"]


def print_report(result: ReportResult, console: Console) -> None:
    """Print where the report is."""
    size = f"{result.num_bytes / 1000:,.0f} kB"
    console.print(f"{result.path}: {', '.join(result.runs)}, {size}", markup=False)
