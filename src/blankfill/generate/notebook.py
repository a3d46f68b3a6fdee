"""How results look in a notebook: HTML in which a user's text is text, whatever it holds.

Fills are marked, the greener the more probable; words the redder the more surprising. Numbers stand
in the tips of what is marked and in small tables. Style is written in place: no script, no sheet,
nothing from elsewhere.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from blankfill.text.characters import visible

if TYPE_CHECKING:
    from blankfill.generate.infill import FilledItem, TextBlank
    from blankfill.generate.score import ScoredCandidate
    from blankfill.generate.surprise import WordSurprise
    from blankfill.generate.whole import TextScore

__all__ = ["candidates_html", "fill_html", "items_html", "whole_html", "words_html"]

MOST_SHOWN = 20
"""Texts or rows that are shown; the others are counted."""
MOST_CHARACTERS = 20_000
"""Characters of a text that are shown."""
REDDEST = 8.0
"""Nats from which on a word is as red as it gets."""
_GREEN, _RED = "46, 160, 67", "215, 58, 73"
Part = tuple[int, int, str, str]
"""Of a marked part its start and end, its colour and its tip."""


def fill_html(item: FilledItem) -> str:
    """Show a filled text, and its fills with their probabilities."""
    if item.error is not None:
        return f'<div style="color: rgb({_RED})">{_escaped(item.error)}</div>'
    marks = [
        (
            blank.start, blank.start + len(blank.text),
            f"rgba({_GREEN}, {0.15 + 0.6 * blank.probability:.2f})",
            f"{blank.probability:.3f}",
        )
        for blank in item.blanks
    ]  # fmt: skip
    rows = [row for number, blank in enumerate(item.blanks, 1) for row in _fills(number, blank)]
    return _text(item.text, marks) + _table(("blank", "fill", "probability"), rows)


def items_html(items: Sequence[FilledItem]) -> str:
    """Show several filled texts."""
    return _some(items, fill_html, "<hr>")


def candidates_html(prompt: str, candidates: Sequence[ScoredCandidate]) -> str:
    """Show candidates for the blanks of a text with their probabilities."""
    rows = [
        (f"{each.probability:.3g}", f"{each.logprob:.3f}", f"{each.mean_logprob:.3f}",
         " ... ".join(each.fills))
        for each in candidates
    ]  # fmt: skip
    names = ("probability", "log", "per token", "candidate")
    return _text(prompt, []) + _table(names, rows)


def whole_html(score: TextScore) -> str:
    """Show the score of a whole text."""
    row = (
        f"{score.logprob:.3f}", f"{score.mean_logprob:.3f}", f"{score.bits_per_byte:.3f}",
        f"{len(score.tokens):,}", score.mode,
    )  # fmt: skip
    return _text(score.text, []) + _table(("log", "per token", "bits per byte", "tokens", "mode"),
                                          [row])  # fmt: skip


def words_html(text: str, words: Sequence[WordSurprise], total: float) -> str:
    """Show a text whose words are the redder the more surprising they are."""
    marks = [
        (
            word.start, word.start + len(word.text),
            f"rgba({_RED}, {min(1.0, max(0.0, word.surprise) / REDDEST):.2f})",
            f"{word.surprise:.2f} nats",
        )
        for word in words
    ]  # fmt: skip
    return f"{_text(text, marks)}<div>{total:.1f} nats in {len(words):,} words</div>"


def _fills(number: int, blank: TextBlank) -> Iterable[tuple[str, ...]]:
    for place, fill in enumerate(blank.candidates or [blank]):
        yield ("" if place else str(number), fill.text, f"{fill.probability:.3f}")


def _text(text: str, marks: Sequence[Part]) -> str:
    """Show a text with parts of it marked."""
    made, at = "", 0
    for start, end, colour, tip in marks:
        if end > MOST_CHARACTERS:
            break
        made += _escaped(text[at:start])
        made += (
            f'<span style="background: {colour}" title="{tip}">{_escaped(text[start:end])}</span>'
        )
        at = end
    made += _escaped(text[at:MOST_CHARACTERS])
    if len(text) > MOST_CHARACTERS:
        made += f".. {len(text):,} characters"
    return f'<div dir="auto" style="white-space: pre-wrap">{made}</div>'


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in names)
    shown = _some(rows, lambda row: "".join(f"<td>{_escaped(cell)}</td>" for cell in row), "", "tr")
    return f"<table><tr>{head}</tr>{shown}</table>"


def _some(items: Sequence[object], show: Callable[..., str], between: str, tag: str = "") -> str:
    """Show the first of several, and say how many there are."""
    parts = [show(item) for item in items[:MOST_SHOWN]]
    if len(items) > MOST_SHOWN:
        parts.append(f"<td>.. {len(items):,} in all</td>" if tag else f".. {len(items):,} in all")
    return between.join(f"<{tag}>{part}</{tag}>" if tag else part for part in parts)


def _escaped(text: str) -> str:
    return html.escape(visible(text))
