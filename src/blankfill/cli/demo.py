"""How the demo ends in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blankfill.cli.command import own_command
from blankfill.cli.console import Answer, new_table
from blankfill.cli.evaluate import print_report

if TYPE_CHECKING:
    from blankfill.api.demo import DemoResult

__all__ = ["print_demo"]


def print_demo(result: DemoResult, console: Answer) -> None:
    """Print the evaluation, the fills, the continuations, and where everything is."""
    print_report(result.evaluation, console)
    for language in dict.fromkeys(fill.language for fill in result.fills):
        table = new_table(
            "text", "true answer", "model's answer", "right", right=("prob.",), show_lines=True
        )
        for fill in result.fills:
            if fill.language == language:
                table.add_row(
                    fill.text, fill.truth.strip(), fill.answer.strip(),
                    "yes" if fill.correct else "no", f"{fill.probability:.2f}",
                )  # fmt: skip
        console.print_table(table, f"held-out blanks, {language}")
    console.print("continued after [gMASK]:")
    for text in result.continuations:
        console.print("  " + text)
    seconds = ", ".join(f"{part} {value:.0f} s" for part, value in result.seconds.items())
    console.print(f"took {sum(result.seconds.values()):.0f} s: {seconds}")
    console.print(
        f"everything is in {result.run}: checkpoints/, metrics.jsonl, tensorboard/, run.json, and "
        f"the pictures {', '.join(path.rsplit('/', 1)[-1] for path in result.pictures)}",
    )
    console.print(
        f"fill a blank of your own: {own_command()} fill {result.run} "
        '"On Monday Anna [MASK] three bowls from Emil."',
    )
