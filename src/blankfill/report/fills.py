"""Sample fills of a report: held-out text with the model's answer set into its blank."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from blankfill.metrics import Sample
from blankfill.report.read import RunHistory
from blankfill.report.tables import run_mark, table
from blankfill.report.words import Language, say

__all__ = ["sample_fills"]

MAX_STEPS = 8
"""Most steps whose answers are listed."""

_Blank = tuple[str, str, str]
"""What a blank is known by: the text before it, what was cut out, and the text after it."""


def sample_fills(records: Sequence[RunHistory], names: Sequence[str], lang: Language) -> str:
    """Write the fills of every run that has some; an empty string where none has."""
    shown: list[str] = []
    for number, (name, record) in enumerate(zip(names, records, strict=True)):
        history = _history(record)
        if not history:
            continue
        last = max(step for answers in history.values() for step in answers)
        cards = "".join(
            _card(answers[last], lang) for answers in history.values() if last in answers
        )
        title = f"{run_mark(name, number)}, " if len(records) > 1 else ""
        shown.append(
            f"<h3>{title}{say('at step', lang, f'{last:,}')}</h3>"
            f'<div class="fills">{cards}</div>{_changes(history, lang)}'
        )
    if not shown:
        return ""
    return f'<p class="note">{say("fills note", lang)}</p>{"".join(shown)}'


def _history(record: RunHistory) -> dict[_Blank, dict[int, Sample]]:
    """Give the answers of each blank by step."""
    history: dict[_Blank, dict[int, Sample]] = {}
    for step, sample in record.samples:
        blank = (sample.before, sample.truth, sample.after)
        history.setdefault(blank, {})[step] = sample
    return history


def _card(sample: Sample, lang: Language) -> str:
    kind = "right" if sample.correct else "off"
    truth = "" if sample.correct else f" <s>{_shown(sample.truth, lang)}</s>"
    share = f"{100 * sample.probability:.0f}\u2009%"
    verdict = say("correct" if sample.correct else "wrong", lang)
    return (
        f'<blockquote lang="{escape(sample.language)}" class="{kind}">'
        f"<p>{escape(sample.before)}"
        f"<mark>{_shown(sample.answer, lang)}</mark>{truth}"
        f"{escape(sample.after)}</p>"
        f"<footer>{verdict}<span>p = {share}</span></footer></blockquote>"
    )


def _changes(history: dict[_Blank, dict[int, Sample]], lang: Language) -> str:
    """List the answers of each blank over the steps, the true text first."""
    steps = sorted({step for answers in history.values() for step in answers})
    if len(steps) < 2:
        return ""
    if len(steps) > MAX_STEPS:
        steps = [steps[i * (len(steps) - 1) // (MAX_STEPS - 1)] for i in range(MAX_STEPS)]
    head = [say("truth", lang), *(say("at step", lang, f"{step:,}") for step in steps)]
    rows = [
        [
            _shown(truth, lang),
            *(
                f'<span class="{"hit" if answers[step].correct else ""}">'
                f"{_shown(answers[step].answer, lang)}</span>"
                if step in answers
                else ""
                for step in steps
            ),
        ]
        for (_, truth, _), answers in history.items()
    ]
    return (
        f"<details><summary>{say('how it changed', lang)}</summary>"
        f"{table(head, rows, kind='answers')}</details>"
    )


def _shown(text: str, lang: Language) -> str:
    stripped = text.strip()
    return escape(stripped) if stripped else f"<i>{say('nothing', lang)}</i>"
