"""The one way in which answers are printed: what a user typed or a path holds is text.

Nothing is read as markup. On a terminal long lines are folded and never cut, and characters that
would act on it are shown as their escapes; into a file or a pipe lines are as long as they are, and
texts (`print_text`) are written byte for byte.
"""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from blankfill.text.characters import visible

__all__ = ["Answer", "new_table", "visible"]

NARROWEST = 40
"""Columns below which the terminal folds lines itself: a table needs some to stand in."""
RULE = 80
"""Longest line of a heading."""
UNFOLDED = 1_000_000
"""Columns of a file or a pipe."""


class Answer(Console):
    """Where the answer of a verb is printed: stdout."""

    def __init__(self) -> None:
        self.on_terminal = sys.stdout.isatty()
        super().__init__(
            markup=False, emoji=False, highlight=False, soft_wrap=not self.on_terminal,
            force_terminal=self.on_terminal,
        )  # fmt: skip
        self.width = max(self.width, NARROWEST) if self.on_terminal else UNFOLDED

    @property
    def has_colours(self) -> bool:
        """Whether it shows colours."""
        return self.color_system is not None and not self.no_color

    def render_str(self, text: str, **options: Any) -> Text:  # pyright: ignore[reportIncompatibleMethodOverride]  # passes all of its options on
        """Make text of a string; everything that is printed comes through here."""
        return super().render_str(visible(text), **options)

    def print_text(self, text: str) -> None:
        """Print a text: into a file or a pipe as it is, on a terminal with nothing that acts."""
        if self.on_terminal:
            self.print(text)
        else:
            self.file.write(text + "\n")

    def print_table(self, table: Table, title: str = "") -> None:
        """Print a table below its title, which is as long as it is."""
        if title:
            self.print(title)
        self.print(table)

    def print_command(self, before: str, command: str) -> None:
        """Print a command in a line of its own, which the terminal may fold and a shell takes."""
        self.print(before)
        self.print(f"  {command}", soft_wrap=True)

    def print_rule(self, title: str, line: str = "\u2500") -> None:
        """Print a heading with a line after it."""
        line = "-" if self.options.ascii_only else line
        self.print(f"{title} {line * max(3, min(self.width, RULE) - len(title) - 1)}")

    def on_broken_pipe(self) -> None:
        """Leave it to the caller that the reader of the output has gone."""
        raise BrokenPipeError


def new_table(*names: str, right: tuple[str, ...] = (), **options: Any) -> Table:
    """Make a table in which nothing is cut.

    Args:
        names: of the columns.
        right: those of numbers; the ones that are not among the names stand after them.
        options: of `rich.table.Table`.
    """
    table = Table(**options)
    for name in (*names, *(name for name in right if name not in names)):
        table.add_column(
            name, justify="right" if name in right else "left", overflow="fold", min_width=2
        )
    return table
