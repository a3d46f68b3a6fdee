"""Answers that are printed as they come, of a verb whose texts may have no end.

As JSON they are one object as well: its items are written some at a time.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from blankfill.cli.streams import can_write, writing_stdout
from blankfill.results import plain

if TYPE_CHECKING:
    from blankfill.cli.in_place import PiecePrinter

__all__ = ["HandedOver", "json_of"]


class HandedOver:
    """Where answers are printed.

    Args:
        show: prints a result.
        as_json: print one JSON object, whatever comes.
    """

    def __init__(self, show: Callable[[Any], None], *, as_json: bool) -> None:
        self._show, self._as_json = show, as_json
        self._begun = False
        self._printer: PiecePrinter | None = None

    def piece(self, text: str) -> None:
        """Print a text, or a piece of its continuation.

        Raises:
            OSError: stdout cannot be written.
        """
        with writing_stdout():
            if self._printer is None:
                from blankfill.cli.console import Answer
                from blankfill.cli.in_place import PiecePrinter

                self._printer = PiecePrinter(Answer())
            self._printer(text)

    def each(self, part: Any) -> None:
        """Print a result with some of the answers.

        Raises:
            OSError: stdout cannot be written.
        """
        if self._printer is not None:  # it stands there already
            with writing_stdout():
                self._printer.end()
            self._printer = None
            return
        if not self._as_json:
            self._show(part)
            with writing_stdout():
                sys.stdout.flush()
            return
        value = cast("dict[str, Any]", plain(part))
        items = ", ".join(map(json_of, value["items"]))
        with writing_stdout():
            if self._begun:
                sys.stdout.write(", ")
            else:
                head = {"run": value["run"], "step": value["step"]}
                sys.stdout.write(json_of(head).removesuffix("}") + ', "items": [')
            sys.stdout.write(items)
            sys.stdout.flush()
        self._begun = True

    def finish(self, result: Any) -> None:
        """Print what is known at the end."""
        if not self._begun:
            self._show(result)
            return
        rest: Mapping[str, object] = cast("dict[str, object]", plain(result))
        rest = {key: rest[key] for key in rest if key not in ("run", "step", "items")}
        with writing_stdout():
            print("], " + json_of(rest).removeprefix("{"))


def json_of(value: object) -> str:
    """Write JSON in characters that stdout has."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text if can_write(text, sys.stdout) else json.dumps(value, allow_nan=False)
