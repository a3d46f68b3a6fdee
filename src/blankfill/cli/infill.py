"""How fills and continuations look in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from blankfill.api.infill import FillResult

__all__ = ["print_fill", "print_generate"]


def print_fill(result: FillResult, console: Console) -> None:
    """Print each filled text, then its blanks with their probabilities."""
    for item in result.items:
        console.print(Text(item.text))
        table = Table(box=None, padding=(0, 2, 0, 2), show_header=False)
        for number, blank in enumerate(item.blanks, start=1):
            note = "" if blank.ended else "cut off by --max-new-tokens"
            table.add_row(
                Text(f"blank {number}"), Text(blank.text.strip()), f"{blank.probability:.3f}", note
            )
            for candidate in blank.candidates:
                if candidate.text != blank.text:
                    table.add_row(
                        "", Text(candidate.text.strip()), f"{candidate.probability:.3f}", ""
                    )
        console.print(table)


def print_generate(result: FillResult, console: Console) -> None:
    """Print each text with its continuation."""
    for item in result.items:
        console.print(Text(item.text))
