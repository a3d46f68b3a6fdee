"""How `blankfill info` looks in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from blankfill.api.inspect import InfoResult

__all__ = ["print_info"]


def print_info(result: InfoResult, console: Console) -> None:
    """Print one row per fact."""
    table = Table(title=f"{result.kind} {result.path}", title_justify="left", show_header=False)
    for name, value in result.facts.items():
        shown = f"{value:,}" if isinstance(value, int) else str(value)
        table.add_row(Text(name), Text(shown))
    console.print(table)
