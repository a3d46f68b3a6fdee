"""How scores look in a terminal: of candidates, of a whole text, of its words.

The words of a text are coloured by how surprising they are. Without colours (`NO_COLOR`) those that
are stand in brackets with their surprise. In a file or a pipe each word has a line: its surprise,
where it begins, and the word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from blankfill.api.score import ScoreResult, SurpriseResult
from blankfill.cli.console import Answer, new_table, visible
from blankfill.cli.in_place import brackets_of, signs

if TYPE_CHECKING:
    from blankfill.generate.surprise import WordSurprise
    from blankfill.generate.whole import TextScore

__all__ = ["print_score", "print_surprise"]

LEVELS = ((2.0, ""), (4.0, "yellow"), (7.0, "bright_red"))
HIGHEST = "bold white on red"
"""Surprise in nats below which a word has a style: e to the 2 is a choice among seven words, to the
4 among fifty, to the 7 among a thousand."""
SHOWN_WORDS = 5
"""Most surprising words that are named below the text."""


def print_score(result: ScoreResult, console: Answer) -> None:
    """Print each candidate with its probability and its logarithm, in nats and per token."""
    if result.whole is not None:
        _print_whole(result.whole, console)
        return
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


def print_surprise(result: SurpriseResult, console: Answer) -> None:
    """Print a text with its words coloured, then the most surprising ones and the sum."""
    if not console.on_terminal:
        for word in result.words:
            console.print_text(f"{word.surprise:.3f}\t{word.start}\t{word.text}")
        return
    console.print(_shaded(result.text, result.words, colours=console.has_colours))
    worst = sorted(result.words, key=lambda word: -word.surprise)[:SHOWN_WORDS]
    console.print(f"{result.total:.1f} nats, {result.mean:.2f} a word; most surprising:")
    table = new_table("nats", "word", right=("nats",), box=None, padding=(0, 2), show_header=False)
    for word in worst:
        table.add_row(f"{word.surprise:.2f}", word.text)
    console.print_table(table)


def _print_whole(whole: TextScore, console: Answer) -> None:
    console.print(
        f"{whole.logprob:.3f} nats, {whole.mean_logprob:.3f} per token of {len(whole.tokens):,}, "
        f"{whole.bits_per_byte:.3f} bits per byte"
    )
    windows = f"in {whole.num_windows:,} windows, stride {whole.stride:,}"
    console.print(f"{whole.mode}, {'in one window' if whole.num_windows == 1 else windows}")


def _shaded(text: str, words: Sequence[WordSurprise], *, colours: bool) -> Text:
    """Colour words by their surprise, or put those that are surprising in brackets with it."""
    left, right = brackets_of(text)
    made, at = Text(), 0
    for word in words:
        made.append(visible(text[at : word.start]))
        at = word.start + len(word.text)
        style = next((style for below, style in LEVELS if word.surprise < below), HIGHEST)
        if style and not colours:
            made.append(f"{left}{visible(word.text)} {word.surprise:.1f}{right}")
        else:
            made.append(visible(word.text), style)
    return made.append(visible(text[at:]))
