"""How the demo ends in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from blankfill.cli.command import own_command
from blankfill.cli.evaluate import print_report

if TYPE_CHECKING:
    from blankfill.api.demo import DemoResult

__all__ = ["print_demo"]


def print_demo(result: DemoResult, console: Console) -> None:
    """Print the evaluation, the fills, the continuations, and where everything is."""
    print_report(result.evaluation, console)
    for language in dict.fromkeys(fill.language for fill in result.fills):
        table = Table(title=f"held-out blanks, {language}", title_justify="left", show_lines=True)
        table.add_column("text", ratio=5, overflow="fold")
        for name in ("true answer", "model's answer"):
            table.add_column(name, ratio=2, overflow="fold")
        table.add_column("prob.", justify="right")
        table.add_column("")
        for fill in result.fills:
            if fill.language == language:
                table.add_row(
                    Text(fill.text), Text(fill.truth.strip()), Text(fill.answer.strip()),
                    f"{fill.probability:.2f}", "yes" if fill.correct else "no",
                )  # fmt: skip
        console.print(table)
    console.print("continued after [gMASK]:", markup=False)
    for text in result.continuations:
        console.print(Text("  " + text))
    seconds = ", ".join(f"{part} {value:.0f} s" for part, value in result.seconds.items())
    console.print(f"took {sum(result.seconds.values()):.0f} s: {seconds}", markup=False)
    console.print(
        f"everything is in {result.run}: checkpoints/, metrics.jsonl, tensorboard/, run.json, and "
        f"the pictures {', '.join(path.rsplit('/', 1)[-1] for path in result.pictures)}",
        markup=False,
    )
    console.print(
        f"fill a blank of your own: {own_command()} fill {result.run} "
        '"On Monday Anna [MASK] three bowls from Emil."',
        markup=False,
    )
