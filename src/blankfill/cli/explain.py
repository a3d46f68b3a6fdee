"""How an example looks in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from blankfill.api.explain import ExplainResult

__all__ = ["print_explain"]


def print_explain(result: ExplainResult, console: Console) -> None:
    """Print the table of tokens, then the mask where it is small enough."""
    spans = ", ".join(f"{start}:{end}" for start, end in result.spans)
    console.print(
        f"{result.kind} blanks at {spans}, in the order {result.order}; "
        f"{result.positions} positions",
        markup=False,
    )
    table = Table()
    table.add_column("part")
    table.add_column("token")
    table.add_column("position", justify="right")
    table.add_column("in span", justify="right")
    table.add_column("target")
    before = "A"
    for row in result.tokens:
        if row.part != before:
            table.add_section()
            before = row.part
        style = "" if row.part == "A" else "bold"
        table.add_row(
            row.part, Text(row.token), str(row.position), str(row.block_position),
            Text(row.target or ""), style=style,
        )  # fmt: skip
    console.print(table)
    if result.mask:
        console.print("who sees whom (row looks at column): # Part A, + Part B, . nothing")
        width = max(len(row.token) for row in result.tokens)
        for row, line in zip(result.tokens, result.mask, strict=True):
            console.print(Text(f"{row.token:>{min(width, 16)}.16}  {line}"))
    if result.picture:
        console.print(f"drawn: {result.picture}", markup=False)
