"""The recorded evaluations of a report: the model beside n-gram models, per language.

Runs stand side by side where they were asked the same. Where they were not, none is shown, and a
sentence says in what they differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from blankfill.report.read import RunHistory
from blankfill.report.tables import run_mark, table
from blankfill.report.words import Language, say
from blankfill.runs.evaluation import BlankScores, Estimate, LanguageReport, differences
from blankfill.text.language import LANGUAGES

__all__ = ["evaluation_tables", "of_language", "unlike"]


def evaluation_tables(records: Sequence[RunHistory], names: Sequence[str], lang: Language) -> str:
    """Write one table for each language; an empty string where no run was evaluated."""
    reason = unlike(records, names, lang)
    if reason:
        return f'<p class="warning">{escape(reason)}</p>'
    several = len(records) > 1
    head = [say("system", lang), say("reads", lang), say("exact fills", lang),
            say("exact given length", lang), say("nats per character", lang),
            say("nats per token", lang), say("bits per byte", lang)]  # fmt: skip
    shown: list[str] = []
    for language in sorted(LANGUAGES):
        found = [(n, report) for n, record in enumerate(records)
                 if (report := of_language(record, language)) is not None]  # fmt: skip
        if not found:
            continue
        rows = [
            [*([run_mark(names[n], n)] if several else []), *_row(score, lang)]
            for n, report in found for score in report.scores
        ]  # fmt: skip
        body = table([say("run", lang), *head] if several else head, rows, kind="scores")
        shown.append(f"<div><h4>{say(language, lang)}</h4>{body}{_note(found[0][1], lang)}</div>")
    if not shown:
        return ""
    steps = ", ".join(
        (f"{names[n]}: " if several else "") + say("at step", lang, f"{record.evaluation.step:,}")
        for n, record in enumerate(records) if record.evaluation is not None
    )  # fmt: skip
    return (
        f'<div class="parts scored">{"".join(shown)}</div>'
        f'<p class="note">{escape(steps)}. {say("evaluation note", lang)}</p>'
    )


def of_language(record: RunHistory, language: str) -> LanguageReport | None:
    """Find a run's recorded evaluation in one language."""
    reports = record.evaluation.blanks.languages if record.evaluation else ()
    return next((report for report in reports if report.language == language), None)


def unlike(records: Sequence[RunHistory], names: Sequence[str], lang: Language) -> str:
    """Say why the evaluations of runs cannot stand side by side; "" where they can."""
    laws = {
        name: record.evaluation.blanks.law
        for name, record in zip(names, records, strict=True)
        if record.evaluation is not None
    }
    parts = [
        say(f"unlike {part}", lang) + ": "
        + ", ".join(f"{value} ({', '.join(owners)})" for value, owners in values.items())
        for part, values in differences(laws).items()
    ]  # fmt: skip
    if not parts:
        return ""
    command = f"blankfill evaluate {' '.join(str(record.path) for record in records)} --data STORE"
    return say("unlike", lang, "; ".join(parts), command)


def _row(score: BlankScores, lang: Language) -> list[str]:
    return [
        say(score.system, lang), say(f"reads {score.reads}", lang), _percent(score.exact_match),
        _percent(score.exact_match_given_length), _number(score.loss_nats_per_character),
        _number(score.loss_nats_per_token), _number(score.bits_per_byte),
    ]  # fmt: skip


def _note(report: LanguageReport, lang: Language) -> str:
    words = say("blanks note", lang, f"{report.num_blanks:,}", f"{report.num_blank_documents:,}")
    return f"<p class='note'>{words}</p>"


def _percent(estimate: Estimate | None) -> str:
    if estimate is None:
        return "\u2013"
    return f"{estimate.value:.1%}" + _error(estimate, 100, 1)


def _number(estimate: Estimate) -> str:
    return f"{estimate.value:.3f}" + _error(estimate, 1, 3)


def _error(estimate: Estimate, scale: float, digits: int) -> str:
    error = estimate.standard_error
    return "" if error is None else f" <small>\u00b1\u2009{scale * error:.{digits}f}</small>"
