"""How `blankfill info` looks in a terminal."""

from __future__ import annotations

from blankfill.api.inspect import InfoResult
from blankfill.cli.console import Answer, new_table

__all__ = ["print_info"]


def print_info(result: InfoResult, console: Answer) -> None:
    """Print one row per fact."""
    table = new_table("", "", show_header=False)
    for name, value in result.facts.items():
        shown = f"{value:,}" if isinstance(value, int) else str(value)
        table.add_row(name, shown)
    console.print_table(table, f"{result.kind} {result.path}")
