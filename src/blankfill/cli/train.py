"""How `blankfill train` ends in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blankfill.cli.command import own_command
from blankfill.cli.console import Answer
from blankfill.cli.evaluate import print_report
from blankfill.cli.in_place import print_answered
from blankfill.progress import duration

if TYPE_CHECKING:
    from blankfill.api.train import TrainResult

__all__ = ["print_train"]

NEXT = ("fill this text again, or one of yours:", "continue a text:", "train it for longer:")
"""What the commands that come next do."""


def print_train(result: TrainResult, console: Answer) -> None:
    """Print the evaluation, filled blanks, where everything is, and what comes next."""
    if not result.finished:
        console.print(
            f"{result.run}: stopped at step {result.step:,} of {result.steps:,}; the same command "
            "goes on from there"
        )
        return
    if result.evaluation is not None:
        print_report(result.evaluation, console)
    for number, fill in enumerate(result.fills, start=1):
        console.print_rule(f"held-out blank {number} of {len(result.fills)}, {fill.language}")
        print_answered(fill, console)
    seconds = ", ".join(f"{part} {duration(value)}" for part, value in result.seconds.items())
    console.print(f"took {seconds}")
    console.print(
        f"{result.run} holds the run, its tokenizer and stores (data/), and {result.report}"
    )
    if result.best_step != result.step:
        console.print(f"best on held-out text was step {result.best_step:,} of {result.steps:,}")
    for before, command in zip(NEXT, result.next, strict=True):
        console.print_command(before, f"{own_command()}{command.removeprefix('blankfill')}")
