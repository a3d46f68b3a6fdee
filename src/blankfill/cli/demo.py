"""How the demo ends in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blankfill.cli.command import own_command
from blankfill.cli.console import Answer
from blankfill.cli.evaluate import print_report
from blankfill.cli.in_place import print_answered
from blankfill.progress import duration

if TYPE_CHECKING:
    from blankfill.api.demo import DemoResult

__all__ = ["print_demo"]

PYTHON = (
    "import blankfill",
    "lm = blankfill.load({run!r})",
    'print(lm.fill("Bruno, the [MASK] of Lotus Lake, went to Anna on [MASK] and bought two '
    'hats.").text)',
)
"""The first lines of the README's."""


def print_demo(result: DemoResult, console: Answer) -> None:
    """Print the evaluation, the fills, the continuations, and where everything is."""
    print_report(result.evaluation, console)
    for language in dict.fromkeys(fill.language for fill in result.fills):
        fills = [fill for fill in result.fills if fill.language == language]
        right = sum(fill.correct for fill in fills)
        console.print(f"held-out blanks, {language}: {right} of these {len(fills)} are right")
        for fill in fills:
            print_answered(fill, console)
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
        '"On Monday Anna bought three hats from Emil. A hat costs four coins, so Anna paid [MASK] '
        'coins."',
    )
    console.print("or in Python:")
    for line in PYTHON:
        console.print("  " + line.format(run=result.run), soft_wrap=True)
