"""How an evaluation looks in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blankfill.cli.console import Answer, new_table

if TYPE_CHECKING:
    from blankfill.api.evaluate import EvaluateResult
    from blankfill.evaluate.blanks import BlankReport

__all__ = ["print_evaluate", "print_report"]


def print_evaluate(result: EvaluateResult, console: Answer) -> None:
    """Print the scores of each language, then the loss under the run's own mixture."""
    console.print(f"{result.run}, step {result.step:,}")
    print_report(result.blanks, console)
    parts = "  ".join(f"{key} {value:.3f}" for key, value in sorted(result.rows.items()))
    console.print(f"packed rows, nats per target: {parts}")


def print_report(report: BlankReport, console: Answer) -> None:
    """Print one table per language."""
    for language in report.languages:
        title = (
            f"{language.language}: {language.num_blanks} blanks, "
            f"{language.num_tokens} tokens, {language.num_documents} documents"
        )
        table = new_table(
            "", right=("nats / token", "bits / byte", "exact fills", "nats of the end")
        )
        for score in language.scores:
            end = score.end_loss_nats
            table.add_row(
                score.system, f"{score.loss_nats:.3f}", f"{score.bits_per_byte:.3f}",
                f"{score.exact_match:.1%}", "given" if end is None else f"{end:.3f}",
            )  # fmt: skip
        console.print_table(table, title)
    if report.ngram_tokens < report.training_tokens:
        console.print(
            f"n-gram models estimated on {report.ngram_tokens:,} of {report.training_tokens:,} "
            "training tokens, documents drawn from all"
        )
