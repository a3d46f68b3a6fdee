"""Sample fills of a report: held-out text with the model's answer set into its blank."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from blankfill.report.read import RunRecord
from blankfill.report.tables import run_mark, table
from blankfill.report.words import Language, say

__all__ = ["sample_fills"]

MAX_STEPS = 8
"""Most steps whose answers are listed."""

_Sample = dict[str, Any]
_Blank = tuple[str, str, str]
"""What a blank is known by: the text before it, what was cut out, and the text behind it."""


def sample_fills(records: Sequence[RunRecord], names: Sequence[str], lang: Language) -> str:
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


def _history(record: RunRecord) -> dict[_Blank, dict[int, _Sample]]:
    """Give the answers of each blank by step."""
    history: dict[_Blank, dict[int, _Sample]] = {}
    for sample in record.samples:
        blank = (
            str(sample.get("before", "")),
            str(sample.get("truth", "")),
            str(sample.get("after", "")),
        )
        history.setdefault(blank, {})[int(sample["step"])] = sample
    return history


def _card(sample: _Sample, lang: Language) -> str:
    correct = bool(sample.get("correct"))
    kind = "right" if correct else "off"
    truth = "" if correct else f" <s>{_shown(sample.get('truth'), lang)}</s>"
    chance = sample.get("probability")
    share = f"{100 * chance:.0f}\u2009%" if isinstance(chance, int | float) else ""
    verdict = say("correct" if correct else "wrong", lang)
    return (
        f'<blockquote lang="{escape(str(sample.get("language", "")))}" class="{kind}">'
        f"<p>{escape(str(sample.get('before', '')))}"
        f"<mark>{_shown(sample.get('answer'), lang)}</mark>{truth}"
        f"{escape(str(sample.get('after', '')))}</p>"
        f"<footer>{verdict}<span>p = {share}</span></footer></blockquote>"
    )


def _changes(history: dict[_Blank, dict[int, _Sample]], lang: Language) -> str:
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
                f'<span class="{"hit" if answers[step].get("correct") else ""}">'
                f"{_shown(answers[step].get('answer'), lang)}</span>"
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


def _shown(text: object, lang: Language) -> str:
    stripped = str(text or "").strip()
    return escape(stripped) if stripped else f"<i>{say('nothing', lang)}</i>"
