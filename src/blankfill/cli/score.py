"""How scored candidates look in a terminal."""

from __future__ import annotations

from blankfill.api.score import ScoreResult
from blankfill.cli.console import Answer, new_table
from blankfill.cli.in_place import signs

__all__ = ["print_score"]


def print_score(result: ScoreResult, console: Answer) -> None:
    """Print each candidate with its probability and its logarithm, in nats and per token."""
    rows = [
        (
            f"{each.probability:.3g}", f"{each.logprob:.3f}", f"{each.mean_logprob:.3f}",
            " ... ".join(signs(fill) for fill in each.fills),
        )
        for each in result.candidates
    ]  # fmt: skip
    if not console.on_terminal:
        for row in rows:
            console.print_text("  ".join(row))
        return
    numbers = ("probability", "log", "per token")
    table = new_table(*numbers, "candidate", right=numbers, box=None, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    console.print_table(table)
