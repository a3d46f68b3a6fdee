"""Pages of help: of the command, and of each verb.

A verb's page is made of its function: the arguments and options of the signature, what the
docstring says of them, the ranges of their numbers, and for `pretrain` the values of the preset
that is named. `--help` shows the verb's own options and the common fields of a configuration,
`--help-all` every one.
"""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from blankfill.cli.docs import docs_of, example_of, paragraphs_of
from blankfill.cli.preset import named_preset, preset_defaults
from blankfill.cli.reading import INTERACTIVE
from blankfill.cli.signature import Parameter, parameters_of
from blankfill.cli.verbs import VERBS
from blankfill.config.common import SHORT_NAMES
from blankfill.config.ranges import numbers_of
from blankfill.config.run import RunConfig

__all__ = ["print_group", "print_help", "print_overview"]

NARROWEST, WIDEST = 40, 100
"""Columns of a page: narrower ones hold no word, longer lines are hard to read."""
COLUMN = 26
"""Where docs begin; a name that reaches into them has its line for itself."""
NARROW = 72
"""Columns below which docs stand below their names."""
_WORD = re.compile(r'(?:--[^\s=]+ (?!-))?(?:[^\s"]|"[^"]*")+')
"""A word of a command, or an option with its value."""
_VALUES: Final = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}

EXAMPLE = """\
blankfill train corpus/ --minutes 60 --out runs/mine
blankfill tokenizer train corpus.jsonl.gz --vocab-size 16384 --out tok
blankfill data build corpus.jsonl.gz --tokenizer tok --out store
blankfill pretrain tiny --data store --out runs/steps
blankfill fill runs/mine "The [MASK] fox jumps over the [MASK] dog."
"""
EVERYWHERE = {
    "--json": "print the result as one JSON object.",
    "--quiet": "no log; errors and the result alone.",
    "--verbose": "a log with the settings of the process and every choice.",
    "-h, --help": "this page.",
}
"""Options of every verb."""
INTERACTIVE_DOC = (
    "open a prompt, anywhere: answer the texts that are given, then one typed line after the other."
)
WITHOUT_VERB = {
    "-V, --version": "the version.",
    "--install-completion [SHELL]": "let TAB complete commands and options in bash, zsh or fish; "
    "says what it wrote and how to undo it.",
    "--show-completion [SHELL]": "print the script that would be written.",
}
"""Options of the command itself."""


def print_help(
    verb: str, command: Callable[..., Any], words: Sequence[str], *, every: bool
) -> None:
    """Print a verb's page.

    Args:
        verb: its name.
        command: its function.
        words: after it, among which a preset may be named.
        every: show every option.
    """
    arguments, options = parameters_of(command)
    defaults = preset_defaults(named_preset(words))["config"] if verb == "pretrain" else None
    page = _Page()
    page.usage(verb, arguments, options)
    page.examples(example_of(command))
    for paragraph in paragraphs_of(command):
        page.paragraph(paragraph)
    page.entries("Arguments", (_entry(each, defaults) for each in arguments))
    shown = [option for option in options if option.common]
    if every:
        shown = [option for option in options if "." not in option.name]
    shown.sort(key=lambda option: not option.required)
    page.entries("Options", (_entry(option, defaults) for option in shown))
    if VERBS[verb].asks:
        page.entries("Typing", [(INTERACTIVE, INTERACTIVE_DOC)])
    if every:
        for title, fields in _sections(options):
            page.entries(title, (_entry(field, defaults) for field in fields))
    page.entries("Options of every command", EVERYWHERE.items())
    hidden = len(options) - len(shown)
    if hidden and not every:
        preset = f" {named_preset(words)}" if verb == "pretrain" else ""
        page.paragraph(
            f"`blankfill {verb}{preset} --help-all` shows {hidden} more: every field of a run's "
            "configuration."
        )
    page.print()


def print_overview() -> None:
    """Print the page of the command itself."""
    page = _Page()
    page.examples(EXAMPLE.splitlines())
    page.paragraph("blankfill: pretrain GLM models by autoregressive blank infilling (zh, en)")
    page.entries("Commands", _summaries(VERBS))
    page.entries("Options", WITHOUT_VERB.items())
    page.paragraph(
        "`blankfill COMMAND --help` opens with an example. --json prints results as JSON, before "
        "or after the command."
    )
    page.print()


def print_group(names: Iterable[str]) -> None:
    """Print the verbs of a group, such as `data`."""
    page = _Page()
    page.entries("Commands", _summaries(names))
    page.print()


def _summaries(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    return ((f"blankfill {name}", VERBS[name].summary) for name in names)


class _Page:
    """Lines of a page, fitted into the terminal."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
        columns = shutil.get_terminal_size().columns
        self._width = min(max(columns, NARROWEST), WIDEST)
        self._console.width = max(self._width, columns)
        self._lines: list[Text] = []

    def usage(self, verb: str, arguments: list[Parameter], options: list[Parameter]) -> None:
        """Say in one line how the verb is called."""
        words = [each.spelled if each.required else f"[{each.spelled}]" for each in arguments]
        words += [f"{each.spelled} {_value(each)}" for each in options if each.required]
        head = f"usage: blankfill {verb}"
        self._fold(" ".join([head, *words, "[OPTIONS]"]), later=" " * 7)

    def paragraph(self, text: str) -> None:
        """Add a paragraph."""
        self._gap()
        self._fold(text)

    def examples(self, commands: Iterable[str]) -> None:
        """Add commands, each in lines that a shell takes as one."""
        self._title("Example")
        for command in commands:
            line = " "
            for word in _WORD.findall(command):
                if line.strip() and len(line) + len(word) + 3 > self._width:
                    self._lines.append(Text(f"{line} \\"))
                    line = "     "
                line += f" {word}"
            self._lines.append(Text(line))

    def entries(self, title: str, entries: Iterable[tuple[str, str]]) -> None:
        """Add names and what they are."""
        found = [*entries]
        if not found:
            return
        self._title(title)
        column = COLUMN if self._width >= NARROW else 6
        longest = max(len(name) for name, _ in found)
        if column < longest + 4 <= self._width // 2 and title == "Commands":
            column = longest + 4
        for name, doc in found:
            begins = len(self._lines)
            if len(name) + 4 <= column:
                self._fold(doc, first=f"  {name:{column - 2}}", later=" " * column)
            else:
                self._lines.append(Text(f"  {name}"))
                self._fold(doc, first=" " * column, later=" " * column)
            self._lines[begins].stylize("cyan", 2, 2 + len(name))

    def print(self) -> None:
        """Print what was added."""
        for line in self._lines:
            self._console.print(line, soft_wrap=True)

    def _title(self, title: str) -> None:
        self._gap()
        self._lines.append(Text(f"{title}:", "bold"))

    def _gap(self) -> None:
        if self._lines:
            self._lines.append(Text(""))

    def _fold(self, text: str, *, first: str = "", later: str = "") -> None:
        wrapped = textwrap.wrap(
            text, self._width, initial_indent=first, subsequent_indent=later,
            break_on_hyphens=False, break_long_words=False,
        )  # fmt: skip
        self._lines += [Text(line) for line in wrapped or [first.rstrip()]]


def _sections(options: Sequence[Parameter]) -> Iterator[tuple[str, list[Parameter]]]:
    """Give the sections of a run's configuration with their titles."""
    docs = docs_of(RunConfig)
    for section in RunConfig.__slots__:
        fields = [option for option in options if option.name.startswith(f"{section}.")]
        if fields:
            yield f"--{section}.*: {docs[section].rstrip('.')}", fields


def _entry(parameter: Parameter, defaults: RunConfig | None) -> tuple[str, str]:
    """Say how a parameter is spelled and what it is."""
    name = parameter.name.rpartition(".")[2]
    doc = docs_of(parameter.owner).get(name, "")
    if not doc.endswith((".", "?")):
        doc += "."
    choices = [str(choice) for choice in typing.get_args(parameter.hint)]
    if any(choice not in doc for choice in choices):
        doc += f" One of: {', '.join(choices)}."
    number = numbers_of(parameter.owner).get(name)
    if number is not None:
        text = str(number.range)
        doc += f" {text[0].upper()}{text[1:]}."
    default = _default(parameter, defaults)
    shown = _shown(parameter, default)
    if parameter.required:
        return shown, f"{doc} (required)"
    if parameter.unless:
        others = " or ".join(f"--{other}" for other in parameter.unless)
        return shown, f"{doc} (required, unless {others} is given)"
    if parameter.takes == "none":
        return shown, f"{doc} (default: on)" if default else doc
    return shown, doc if default in (
        None,
        "",
        (),
        False,
    ) else f"{doc} (default: {_written(default)})"


def _default(parameter: Parameter, defaults: RunConfig | None) -> Any:
    section, dot, field = parameter.name.partition(".")
    if not dot:
        return parameter.default
    return getattr(getattr(defaults, section), field) if defaults is not None else None


def _written(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _shown(parameter: Parameter, default: Any) -> str:
    """Write the names of a parameter and of its value."""
    if not parameter.spelled.startswith("--"):
        return parameter.spelled
    names = [f"--{short}" for short, field in SHORT_NAMES.items() if field == parameter.name]
    names.append(parameter.spelled)
    if parameter.takes == "none" and (default is True or "." in parameter.name):
        group, dot, name = parameter.spelled[2:].rpartition(".")
        names.append(f"--{group}{dot}no-{name}")
    return " ".join([", ".join(names), _value(parameter)]).rstrip()


def _value(parameter: Parameter) -> str:
    """Name what an option takes."""
    if parameter.takes == "none":
        return ""
    name = "|".join([*parameter.words, _VALUES.get(parameter.hint, "NAME")])
    return {"many": f"{name}...", "maybe": f"[{name}]"}.get(parameter.takes, name)
