"""How `blankfill probe` shows what it found."""

from __future__ import annotations

import math

from blankfill.api.probe import ProbeResult
from blankfill.cli.console import Answer, new_table
from blankfill.probe.outcome import ProbeScore

__all__ = ["print_probe"]


def print_probe(result: ProbeResult, console: Answer) -> None:
    """Print the scores, the layers, and where the report is."""
    cleaning = result.cleaning
    console.print(
        f"{result.target}: {result.family}, link {result.link}, {cleaning.kept:,} items of "
        f"{cleaning.groups:,} groups ({cleaning.read - cleaning.kept:,} rows left out)"
    )
    numbers = ("explained", "nats", "error", "value")
    table = new_table("from", *numbers, "measure", right=numbers, box=None, padding=(0, 2, 0, 0))
    for score in (result.score, *result.beside):
        table.add_row(score.name, *_numbers(score), score.measure)
    if result.explained is not None:
        score = result.explained.left_out
        name = f"{result.explained.components} components"
        table.add_row(name, *_numbers(score), score.measure)
    console.print_table(table)
    shares = ", ".join(f"{each.layer} {each.trained.explained:.3f}" for each in result.layers)
    console.print(f"explained by layer: {shares}; chosen {result.layer}")
    if math.isfinite(result.selectivity):
        console.print(f"selectivity {result.selectivity:.3f}")
    if result.not_explained:
        console.print(f"not explained: {result.not_explained}")
    console.print(f"report {result.page}")


def _numbers(score: ProbeScore) -> tuple[str, str, str, str]:
    return (
        f"{score.explained:.3f}", f"{score.gain:.3f}", f"{score.gain_error:.3f}",
        f"{score.value:.3f}",
    )  # fmt: skip
