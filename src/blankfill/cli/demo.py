"""How the demo ends in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blankfill.cli.command import own_command
from blankfill.cli.console import Answer
from blankfill.cli.evaluate import print_report
from blankfill.cli.in_place import marked, signs
from blankfill.progress import duration

if TYPE_CHECKING:
    from blankfill.api.demo import DemoFill, DemoResult

__all__ = ["print_demo"]


def print_demo(result: DemoResult, console: Answer) -> None:
    """Print the evaluation, the fills, the continuations, and where everything is."""
    print_report(result.evaluation, console)
    for language in dict.fromkeys(fill.language for fill in result.fills):
        fills = [fill for fill in result.fills if fill.language == language]
        right = sum(fill.correct for fill in fills)
        console.print(f"held-out blanks, {language}: {right} of these {len(fills)} are right")
        for fill in fills:
            _print_fill(fill, console)
    console.print("continued after [gMASK]:")
    for text in result.continuations:
        console.print("  " + text)
    seconds = ", ".join(f"{part} {duration(value)}" for part, value in result.seconds.items())
    console.print(f"took {duration(sum(result.seconds.values()))}: {seconds}")
    console.print(
        f"everything is in {result.run}: checkpoints/, metrics.jsonl, tensorboard/, run.json, and "
        f"the pictures {', '.join(path.rsplit('/', 1)[-1] for path in result.pictures)}",
    )
    console.print(
        f"fill a blank of your own: {own_command()} fill {result.run} "
        '"On Monday Anna [MASK] three bowls from Emil."',
    )


def _print_fill(fill: DemoFill, console: Answer) -> None:
    """Print a text with the model's answer in its place, and what had stood there."""
    before, _, after = fill.text.partition("[MASK]")
    text = f"{before}{fill.answer.strip() or fill.answer}{after}"
    span = (len(before), len(text) - len(after))
    console.print(marked(text, [span], colours=console.on_terminal and console.has_colours))
    said = "right" if fill.correct else f"wrong, the text had: {signs(fill.truth) or '(nothing)'}"
    console.print(f"  {fill.probability:.2f}  {said}")
