"""How an evaluation looks in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from blankfill.cli.console import Answer, new_table
from blankfill.cli.evaluate_tasks import print_comparison, print_harness, print_tasks

if TYPE_CHECKING:
    from blankfill.api.evaluate import EvaluateResult
    from blankfill.api.evaluate_held_out import RunEvaluation
    from blankfill.runs.evaluation import BlankReport, BlankScores, Estimate, LanguageReport

__all__ = ["print_evaluate", "print_report"]

NOT_ASKED = "-"
"""Stands where a system is not asked."""


def print_evaluate(result: EvaluateResult, console: Answer) -> None:
    """Print scores on held-out text, all runs together; on tasks; and what two runs differ in."""
    if result.runs:
        _print_held_out(result.runs, console)
    if result.tasks:
        names = _names([one.run for one in result.tasks])
        if not result.runs:
            _print_runs([(one.run, one.step) for one in result.tasks], names, console)
        print_tasks(list(zip(names, result.tasks, strict=True)), console)
    if result.harness:
        print_harness(result.harness, console)
    if result.comparison:
        print_comparison(result.comparison, console)


def _print_held_out(runs: Sequence[RunEvaluation], console: Answer) -> None:
    names = _names([one.run for one in runs])
    _print_runs([(one.run, one.step) for one in runs], names, console)
    print_reports(list(zip(names, (one.blanks for one in runs), strict=True)), console)
    for name, one in zip(names, runs, strict=True):
        parts = "  ".join(f"{key} {value:.3f}" for key, value in sorted(one.rows.items()))
        before = f"{name}: " if name else ""
        if parts:
            console.print(f"{before}packed rows, nats per target: {parts}")


def _names(runs: Sequence[str]) -> list[str]:
    """Give short names of several runs; of one none."""
    from blankfill.metrics.names import unique_names

    return unique_names([Path(run) for run in runs]) if len(runs) > 1 else [""]


def _print_runs(runs: Sequence[tuple[str, int]], names: Sequence[str], console: Answer) -> None:
    for name, (run, step) in zip(names, runs, strict=True):
        console.print(f"{name + ': ' if name else ''}{run}, step {step:,}")


def print_report(report: BlankReport, console: Answer) -> None:
    """Print the scores of one run."""
    print_reports([("", report)], console)


def print_reports(reports: Sequence[tuple[str, BlankReport]], console: Answer) -> None:
    """Print two tables for each language: what was filled, and the loss.

    Args:
        reports: name and scores of each run, all on the same blanks; "" for the name of one.
        console: where to.
    """
    max_words = reports[0][1].law.max_words
    for language in dict.fromkeys(one.language for _, each in reports for one in each.languages):
        found = [
            (name, one) for name, report in reports for one in report.languages
            if one.language == language
        ]  # fmt: skip
        _print_language(found, max_words, console)
    console.print("\u00b1 is one standard error; blanks of one document count as one draw")
    for name, report in reports:
        if report.ngram_tokens < report.training_tokens:
            before = f"{name}: " if name else ""
            console.print(
                f"{before}n-gram models estimated on {report.ngram_tokens:,} of "
                f"{report.training_tokens:,} training tokens, documents drawn from all"
            )


def _print_language(
    reports: Sequence[tuple[str, LanguageReport]], max_words: int, console: Answer
) -> None:
    first_name, first = reports[0]
    title = (
        f"{first.language}: {first.num_blanks:,} blanks of 1 to {max_words} words in "
        f"{first.num_blank_documents:,} documents; {first.num_words:,} words, "
        f"{first.num_characters:,} characters"
    )
    several = ("run",) if first_name else ()
    fills = new_table(*several, "system", "reads", right=("exact", "exact, length given"))
    losses = new_table(
        *several, "system", "reads",
        right=("nats / character", "nats / token", "bits / byte", "nats of the end"),
    )  # fmt: skip
    for name, report in reports:
        for score in report.scores:
            head = (*([name] if several else []), score.system, score.reads)
            fills.add_row(
                *head, _percent(score.exact_match), _percent(score.exact_match_given_length)
            )
            losses.add_row(*head, *_losses(score))
    console.print_table(fills, title)
    console.print(losses)
    for name, report in reports:
        before = f"{name}: " if several else ""
        if report.num_shortened:
            console.print(
                f"{before}of {report.num_shortened:,} texts the model read less than they give: "
                "its rows are too short for more"
            )


def _losses(score: BlankScores) -> list[str]:
    return [
        _number(score.loss_nats_per_character), _number(score.loss_nats_per_token),
        f"{score.bits_per_byte.value:.3f}", _number(score.end_loss_nats),
    ]  # fmt: skip


def _percent(estimate: Estimate | None) -> str:
    if estimate is None:
        return NOT_ASKED
    error = estimate.standard_error
    return f"{estimate.value:.1%}" + ("" if error is None else f" \u00b1{100 * error:.1f}")


def _number(estimate: Estimate | None) -> str:
    if estimate is None:
        return NOT_ASKED
    error = estimate.standard_error
    return f"{estimate.value:.3f}" + ("" if error is None else f" \u00b1{error:.3f}")
