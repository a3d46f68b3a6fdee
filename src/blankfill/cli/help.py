"""A verb's page of help: its example, what it does, and its options, laid out by tyro."""

from __future__ import annotations

import contextlib
import inspect
import os
import shutil
from collections.abc import Callable, Generator, Sequence
from itertools import takewhile
from typing import Any

from blankfill.cli.preset import named_preset, preset_defaults
from blankfill.cli.signature import spoken

__all__ = ["asks_for_help", "print_help"]

NARROWEST, WIDEST = 40, 200
"""Columns of a page: narrower ones hold no word, wider ones are hard to read."""


def asks_for_help(words: Sequence[str]) -> bool:
    """Tell whether help is asked for, in front of what is text in any case."""
    return any(word in ("-h", "--help") for word in takewhile(lambda word: word != "--", words))


def print_help(verb: str, command: Callable[..., Any], words: Sequence[str]) -> None:
    """Print a verb's page."""
    import tyro

    from blankfill.cli.ranges import registry, with_ranges

    defaults = preset_defaults(named_preset(words)) if verb == "pretrain" else {}
    page = with_ranges(spoken(command, defaults))
    with _columns(), contextlib.suppress(SystemExit):
        tyro.cli(
            page, prog=f"blankfill {verb}", args=["--help"], description=_description(command),
            config=(tyro.conf.PositionalMetavarFromFieldName,), registry=registry(),
        )  # fmt: skip


@contextlib.contextmanager
def _columns() -> Generator[None]:
    """Tell tyro of a terminal in which a page can stand."""
    before = os.environ.get("COLUMNS")
    columns = shutil.get_terminal_size().columns
    os.environ["COLUMNS"] = str(min(max(columns, NARROWEST), WIDEST))
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _description(command: Callable[..., Any]) -> str:
    """Put the docstring's example before its summary."""
    doc = inspect.getdoc(command) or ""
    before, _, rest = doc.partition("\nExample:\n")
    lines = rest.split("\n\n", 1)[0].splitlines()
    example = "\n".join("  " + line.strip() for line in lines if line.strip())
    summary = before.split("\nArgs:")[0].strip()
    tail = "--json prints the result as one JSON object; --quiet silences the log."
    return f"Example:\n{example}\n\n{summary}\n\n{tail}" if example else f"{summary}\n\n{tail}"
