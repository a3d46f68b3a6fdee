"""Filled texts as a reader sees them: what the model wrote stands out in its place.

On a terminal with colours it is coloured; without (`NO_COLOR`) it stands in brackets, those of
Chinese in a Chinese text. In a file or a pipe the text is what it is, for whatever reads it there;
the fills are listed below it, and `--json` says where each begins. White space alone, and nothing
at all, would not be seen: they are shown as signs, and in brackets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from rich.text import Text

from blankfill.cli.console import visible
from blankfill.text.language import LANGUAGES, language_code

if TYPE_CHECKING:
    from blankfill.cli.console import Answer
    from blankfill.generate.infill import FilledItem

__all__ = ["PiecePrinter", "brackets_of", "marked", "print_answered", "print_in_place", "signs"]

STYLE = "bold green"
SHADES = ((0.9, "bold green"), (0.5, "green"), (0.1, "yellow"))
"""Probability from which on a fill has a style."""
DOUBTFUL = "red"
_BRACKETS = {"zh": ("\u300c", "\u300d")}
_SIGNS = {" ": "\u2420", "\n": "\u23ce", "\t": "\u2409", "\u3000": "\u2420"}
"""Of a space, a line break, a tab and a Chinese space."""


def brackets_of(text: str) -> tuple[str, str]:
    """Give the brackets that mark something in a text: of Chinese its own."""
    return _BRACKETS.get(LANGUAGES[language_code(text)], ("[", "]"))


def signs(fill: str) -> str:
    """Give a fill without the space around it, or signs where it is nothing else."""
    return fill.strip() or "".join(_SIGNS.get(character, character) for character in fill)


def print_in_place(
    item: FilledItem, console: Answer, indent: str = "", *, shaded: bool = False
) -> None:
    """Print a filled text, its fills marked where the reader is a person.

    Args:
        item: the text.
        console: where.
        indent: before it.
        shaded: whether a fill's colour says how probable it is.
    """
    if not console.on_terminal:
        console.print_text(indent + item.text)
        return
    spans = [(blank.start, blank.start + len(blank.text)) for blank in item.blanks]
    styles = [_shade(blank.probability) if shaded else STYLE for blank in item.blanks]
    console.print(
        Text(indent) + marked(item.text, spans, styles=styles, colours=console.has_colours)
    )


class PiecePrinter:
    """Prints a text and its continuation piece by piece, as `print_in_place` would the whole."""

    def __init__(self, console: Answer) -> None:
        self._console = console
        self._left, self._right = "", ""
        self._begun = self._open = False
        self._held = ""

    def __call__(self, piece: str) -> None:
        """Print the text, then each piece that is written behind it."""
        if not self._begun:
            self._begun = True
            self._print(piece)
            if self._console.on_terminal and not self._console.has_colours:
                self._left, self._right = brackets_of(piece)
            return
        # The space around what is written belongs to the text, and the last one is not known yet.
        piece = self._held + piece
        self._held = piece[len(piece.rstrip()) :]
        piece = piece[: len(piece) - len(self._held)]
        if piece and not self._open:
            space = piece[: len(piece) - len(piece.lstrip())]
            self._print(space + self._left)
            piece, self._open = piece[len(space) :], True
        self._print(piece, STYLE if not self._left else "")

    def end(self) -> None:
        """End the line."""
        self._print((self._right if self._open else "") + self._held + "\n")

    def _print(self, text: str, style: str = "") -> None:
        if self._console.on_terminal:
            self._console.print(Text(visible(text), style), end="", soft_wrap=True)
        else:
            self._console.file.write(text)
        self._console.file.flush()


def _shade(probability: float) -> str:
    """Give the style of a fill: the more probable, the greener."""
    return next((style for least, style in SHADES if probability >= least), DOUBTFUL)


class Answered(Protocol):
    """A blank whose text is known, and what a model wrote into it."""

    @property
    def text(self) -> str:
        """Text with `[MASK]` in it."""
        ...

    @property
    def truth(self) -> str:
        """What was cut out."""
        ...

    @property
    def answer(self) -> str:
        """What the model wrote."""
        ...

    @property
    def probability(self) -> float:
        """The model's probability of it."""
        ...


def print_answered(fill: Answered, console: Answer) -> None:
    """Print a text with the model's answer in its place, and what had stood there."""
    before, _, after = fill.text.partition("[MASK]")
    text = f"{before}{fill.answer.strip() or fill.answer}{after}"
    span = (len(before), len(text) - len(after))
    console.print(marked(text, [span], colours=console.on_terminal and console.has_colours))
    right = fill.answer.strip() == fill.truth.strip()
    said = "right" if right else f"wrong, the text had: {signs(fill.truth) or '(nothing)'}"
    console.print(f"  {fill.probability:.2f}  {said}")


def marked(
    text: str, spans: Sequence[tuple[int, int]], *, colours: bool, styles: Sequence[str] = ()
) -> Text:
    """Mark parts of a text.

    Args:
        text: the text.
        spans: `(start, end)` of each part, in order, not overlapping.
        colours: by colour; else by brackets.
        styles: of each part, where it is not the usual one.
    """
    left, right = brackets_of(text)
    made, at = Text(), 0
    for (start, end), style in zip(spans, styles or [STYLE] * len(spans), strict=True):
        part = text[start:end]
        shown = signs(part)
        if part.strip():  # the space around a word belongs to the text
            start += len(part) - len(part.lstrip())
            end = start + len(shown)
        made.append(visible(text[at:start]))
        shown = visible(shown)
        made.append(
            shown if colours and shown else f"{left}{shown}{right}", style if colours else ""
        )
        at = end
    return made.append(visible(text[at:]))
