"""What TAB offers: the words that may stand next on a command line.

A shell asks `blankfill --complete WORDS...`, the last word being the one that is typed, and gets a
candidate a line; or `//files`, where a name of a file stands and the shell knows them itself. It is
made of the same signatures as the reading and the help, so a new option is offered without a list.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from blankfill.cli.reading import INTERACTIVE, UNIVERSAL, options_of
from blankfill.cli.signature import Parameter, parameters_of
from blankfill.cli.verbs import VERBS, load
from blankfill.config.presets import PRESETS

__all__ = ["FILES", "candidates"]

FILES: Final = "//files"
"""Stands for the names of files; no candidate begins so."""
WITHOUT_VERB: Final = (
    "--help", "--version", "--install-completion", "--show-completion", *UNIVERSAL
)  # fmt: skip
SHELLS: Final = ("bash", "zsh", "fish")


def candidates(words: Sequence[str]) -> list[str]:
    """Give what may stand in the place of the last word.

    Args:
        words: what is typed after the command's name, up to the cursor.
    """
    *before, current = words or [""]
    before = [word for word in before if word != "="]  # bash cuts `--device=cpu` into three
    while before and before[0] in UNIVERSAL:
        before.pop(0)
    if current == "=":
        current = ""
    found = _next(before, current)
    return [FILES] if FILES in found else [word for word in found if word.startswith(current)]


def _next(before: list[str], current: str) -> list[str]:
    if not before:
        if current.startswith("-"):
            return [*WITHOUT_VERB]
        return [*dict.fromkeys(name.split()[0] for name in VERBS)]
    if before[-1] in ("--install-completion", "--show-completion"):
        return [*SHELLS]
    name = next((n for n in (" ".join(before[:2]), before[0]) if n in VERBS), None)
    if name is None:
        group = [n.split()[1] for n in VERBS if n.startswith(before[0] + " ")]
        return group if len(before) == 1 else []
    return _of_verb(name, before[len(name.split()) :], current)


def _of_verb(name: str, before: list[str], current: str) -> list[str]:
    arguments, options = parameters_of(load("blankfill.api", VERBS[name].function))
    known = options_of(options)
    if "--" in before:
        return [FILES]
    spelled, equals, _ = current.partition("=")
    if equals and spelled in known:
        values = _values(known[spelled][0])
        return values if values == [FILES] else [f"{spelled}={value}" for value in values]
    if current.startswith("-"):
        offered = [word for word, (option, _) in known.items() if option.common]
        if not any(word.startswith(current) for word in offered) or len(current) > len("--"):
            offered = [*known]
        asks = [INTERACTIVE] * VERBS[name].asks
        return [*offered, *asks, *UNIVERSAL, "--help", "--help-all"]
    # The option whose value is typed: the word before, or of a list any before that.
    last = next((i for i in reversed(range(len(before))) if before[i] in known), None)
    if last is not None:
        option = known[before[last]][0]
        given = len(before) - last - 1
        if option.takes == "many" or (option.takes in ("one", "maybe") and not given):
            return _values(option)
    return [value for argument in arguments for value in _values(argument)] or [FILES]


def _values(parameter: Parameter) -> list[str]:
    """Give the values that a parameter may have: words to choose from, files, or none to offer."""
    if parameter.name == "preset":
        return [*PRESETS]
    if choices := typing.get_args(parameter.hint):
        return [str(choice) for choice in choices]
    return [FILES] if parameter.hint is Path else []
