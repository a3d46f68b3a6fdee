"""How fills and continuations look in a terminal."""

from __future__ import annotations

import logging

from blankfill.api.answers import FillResult
from blankfill.cli.console import Answer, new_table
from blankfill.cli.in_place import print_in_place, signs

__all__ = ["print_fill", "print_generate"]

log = logging.getLogger(__name__)


def print_fill(result: FillResult, console: Answer) -> None:
    """Print each filled text, then its blanks with their probabilities."""
    _print_file(result, console)
    for item in result.items:
        if item.error is not None:
            log.error("blankfill: %s", item.error)
            continue
        print_in_place(item, console, shaded=True)
        rows: list[tuple[str, str, str, str]] = []
        for number, blank in enumerate(item.blanks, start=1):
            for place, fill in enumerate(blank.candidates or [blank]):
                # Chosen token by token, the fill in the text need not be the most probable one.
                notes = ["in the text"] if place and fill.text == blank.text else []
                notes += [] if fill.ended else ["cut off by --max-new-tokens"]
                head = "" if place else f"blank {number}"
                shown = signs(fill.text) or "(nothing)"
                rows.append((head, shown, f"{fill.probability:.3f}", ", ".join(notes)))
        for number, joint in enumerate(item.joint):
            head = "" if number else "together"
            shown = " | ".join(signs(fill) or "(nothing)" for fill in joint.fills)
            rows.append((head, shown, f"{joint.probability:.3g}", ""))
        if console.on_terminal:
            table = new_table("", "", "", "", box=None, padding=(0, 2, 0, 2), show_header=False)
            for row in rows:
                table.add_row(*row)
            console.print_table(table)
        else:
            for head, *rest in rows:
                console.print_text("  ".join(["", f"{head:8}", *rest]).rstrip(" "))


def print_generate(result: FillResult, console: Answer) -> None:
    """Print each text with its continuation."""
    _print_file(result, console)
    for item in result.items:
        if item.error is not None:
            log.error("blankfill: %s", item.error)
            continue
        print_in_place(item, console)


def _print_file(result: FillResult, console: Answer) -> None:
    """Say what stands in the file that the answers were written to, where there is one."""
    if result.out is None:
        return
    found = f", {result.num_found:,} of them by an earlier call" if result.num_found else ""
    wrong = f"; {result.num_errors:,} of the new ones are errors" if result.num_errors else ""
    count = result.num_texts + result.num_found
    console.print(f"{count:,} answers are in {result.out}{found}{wrong}")
