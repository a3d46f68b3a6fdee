"""From the words of a command line to the values of a function's parameters.

The rules, the same for every verb:

- options may stand anywhere: `--name value`, `--name=value`, `--flag`, `--no-flag`; `_` is `-`;
- an option that takes a list takes every word up to the next option, and adds to what it was given
  before: `--data a b`, `--data a --data b` and `--data=a b` are one; any other option that is given
  twice is refused;
- some fields of a configuration have a short name besides, `--steps` (`config.common.SHORT_NAMES`);
- a list at the end leaves the verb the arguments that it still needs: `evaluate --data valid RUN`;
- a number that need not be whole may be a percentage: `--hold-out 1%` is 0.01;
- `--` ends the options: what follows is text, whatever it begins with. So is a word that no option
  can be: `-`, a negative number, `- an item`.

Every mistake is one sentence.
"""

from __future__ import annotations

import re
import typing
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from blankfill.cli.signature import Parameter, parameters_of
from blankfill.config.closest import closest, did_you_mean
from blankfill.config.common import SHORT_NAMES
from blankfill.errors import ConfigError

__all__ = ["INTERACTIVE", "UNIVERSAL", "Reading", "asks_for_help", "options_of", "read"]

_OPTION = re.compile(r"--?[A-Za-z][A-Za-z0-9_.-]*(=.*)?", re.DOTALL)
_NO_OPTION = re.compile(r"-(inf|infinity|nan)", re.IGNORECASE)
UNIVERSAL = ("--json", "--quiet", "--verbose")
"""Flags of every verb."""
INTERACTIVE = "--interactive"
"""Flag of the verbs that ask for texts."""
SHOWN_VALUE = 60
"""Characters of a value that a message shows."""


@dataclass(slots=True)
class Reading:
    """What a command line says."""

    arguments: list[Any] = field(default_factory=list[Any])
    """Values of the positional parameters that were given."""
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    """Values of the other parameters that were given, a configuration's fields by dotted name."""
    flags: set[str] = field(default_factory=set[str])
    """The flags of every verb that were given."""


def asks_for_help(words: Sequence[str]) -> Literal["", "common", "all"]:
    """Tell which page of help is asked for, in front of what is text in any case."""
    options = [*takewhile(lambda word: word != "--", words)]
    if "--help-all" in options:
        return "all"
    return "common" if "-h" in options or "--help" in options else ""


def read(
    verb: str, command: Callable[..., Any], words: Sequence[str], *, asks: bool = False,
    may_ask: bool = False,
) -> Reading:  # fmt: skip
    """Read the words after a verb.

    Args:
        verb: its name.
        command: its function.
        words: what stands after it.
        asks: whether the last arguments, a list, may be left out: they are asked for.
        may_ask: whether `--interactive` makes it ask.

    Raises:
        ConfigError: they are not what the verb takes; the message names the word and the way out.
    """
    flags = (*UNIVERSAL, INTERACTIVE) if may_ask else UNIVERSAL
    asks = asks or (may_ask and INTERACTIVE in takewhile(lambda word: word != "--", words))
    return _Reader(verb, command, flags, asks=asks).read(words)


def options_of(options: Sequence[Parameter]) -> dict[str, tuple[Parameter, bool]]:
    """Give every way to spell an option, with what a flag becomes by it."""
    found: dict[str, tuple[Parameter, bool]] = {}
    for option in options:
        found[option.spelled] = (option, True)
        if option.takes in ("none", "maybe"):
            found[_negated(option.spelled)] = (option, False)
    fields = {option.name: option for option in options}
    for short, name in SHORT_NAMES.items():
        if name in fields:
            found.setdefault(f"--{short}", (fields[name], True))
    return found


class _Reader:
    """One command line being read."""

    def __init__(
        self, verb: str, command: Callable[..., Any], flags: Sequence[str], *, asks: bool
    ) -> None:
        self._verb, self._flags = verb, flags
        self._arguments, options = parameters_of(command)
        if asks:
            self._arguments[-1] = replace(self._arguments[-1], required=False, unless=())
        self._options = options_of(options)
        self._words: deque[str] = deque()
        self._given: list[str] = []
        self._spelled: dict[str, str] = {}
        self._reading = Reading()

    def read(self, words: Sequence[str]) -> Reading:
        self._words.extend(words)
        while self._words:
            word = self._words.popleft()
            if word == "--":
                self._given += self._words
                break
            if _is_option(word):
                self._take_option(word)
            else:
                self._given.append(word)
        self._settle_arguments()
        self._require()
        if {"--quiet", "--verbose"} <= self._reading.flags:
            raise ConfigError("--quiet and --verbose ask for opposite things; give one of them")
        return self._reading

    def _take_option(self, word: str) -> None:
        name, equals, value = word.partition("=")
        spelled = name if name in self._options else name.replace("_", "-")
        is_flag = spelled in self._flags or self._takes(spelled) == "none"
        if is_flag and equals:
            raise ConfigError(f"{spelled} takes no value, and {_shown(word)} gives it one")
        if spelled in self._flags:
            self._reading.flags.add(spelled)
            return
        if spelled not in self._options:
            raise ConfigError(self._unknown(name))
        option, positive = self._options[spelled]
        values = self._reading.options
        if option.takes == "many":
            values.setdefault(option.name, ())  # it excuses arguments from its own words on
            more = [value, *self._list()] if equals else self._list()
            if not more:
                raise ConfigError(f"{spelled} lacks its value")
            values[option.name] += tuple(_convert(option, each) for each in more)
            return
        new = positive
        if option.takes == "maybe" and positive and (equals or self._value_follows()):
            new = _convert(option, value if equals else self._words.popleft())
        if option.takes == "one":
            if not equals and not self._value_follows():
                raise ConfigError(
                    f"{spelled} lacks its value; one that begins with a dash is written "
                    f"{spelled}=VALUE"
                )
            new = _convert(option, value if equals else self._words.popleft())
        if option.name in values and (option.takes == "one" or values[option.name] != new):
            before = self._spelled[option.name]
            if option.takes == "one" and before != spelled:
                raise ConfigError(f"{before} and {spelled} are the same option; give it once")
            raise ConfigError(f"{option.spelled} is given twice; give it once")
        self._spelled[option.name] = spelled
        values[option.name] = new

    def _value_follows(self) -> bool:
        return bool(self._words) and not _ends(self._words[0])

    def _takes(self, spelled: str) -> str:
        """Tell how many words an option takes; none of them where there is no such option."""
        option, positive = self._options.get(spelled, (None, True))
        if option is None:
            return ""
        return option.takes if positive else "none"

    def _list(self) -> list[str]:
        """Take the words up to the next option, and leave those that the arguments need."""
        waiting = list(self._words)
        end = next((i for i, word in enumerate(waiting) if _ends(word)), len(waiting))
        ended = waiting[end : end + 1] in ([], ["--"])
        if ended:
            needed = sum(map(self._expects, self._arguments))
            missing = needed - len(self._given) - len(waiting[end + 1 :])
            end -= max(0, min(missing, end - 1))
        return [self._words.popleft() for _ in range(end)]

    def _expects(self, parameter: Parameter) -> bool:
        """Tell whether a parameter is to be given, as far as the words so far tell.

        An option without its value, as `--resume`, repeats a whole command.
        """
        given = self._reading.options
        excused = any(given.get(name, False) not in (False, True) for name in parameter.unless)
        return parameter.required or bool(parameter.unless and not excused)

    def _lacks(self, parameter: Parameter) -> bool:
        """Tell whether a parameter that was not given is needed, now that all words are read."""
        excused = any(self._reading.options.get(name, False) for name in parameter.unless)
        return parameter.required or bool(parameter.unless and not excused)

    def _settle_arguments(self) -> None:
        """Give the words that are no options to the positional parameters, in order."""
        left = deque(self._given)
        for argument in self._arguments:
            if not left:
                break
            if argument.takes == "many":
                self._reading.arguments.append(tuple(_convert(argument, word) for word in left))
                return
            self._reading.arguments.append(_convert(argument, left.popleft()))
        if left:
            takes = " ".join(argument.spelled for argument in self._arguments) or "none"
            raise ConfigError(
                f"there is no place for the argument {_shown(left[0])}: the arguments of "
                f"{self._verb} are {takes}"
            )

    def _require(self) -> None:
        lacking = [
            argument
            for argument in self._arguments[len(self._reading.arguments) :]
            if self._lacks(argument)
        ]
        hint = f"see `blankfill {self._verb} --help`"
        lists = [
            option.spelled
            for option, _ in self._options.values()
            if option.takes == "many" and len(self._reading.options.get(option.name, ())) > 1
        ]
        if lacking and lists:
            hint = f"{lists[0]} takes every word up to the next option, so write it before"
        if not lacking:
            lacking = [
                option
                for option, positive in self._options.values()
                if self._lacks(option) and positive and option.name not in self._reading.options
            ]
        if lacking:
            names = ", ".join(parameter.spelled for parameter in lacking)
            raise ConfigError(f"{self._verb} lacks {names}; {hint}")

    def _unknown(self, name: str) -> str:
        """Say that there is no such option, and which is the closest."""
        wanted = name.replace("_", "-")
        # A field under another section is nearer than another field of the same section.
        last = wanted.lstrip("-").rpartition(".")[2]
        alike = [option for option in self._options if option.rpartition(".")[2] == last]
        alike += [option for option in self._options if option == f"--{last}"]
        names = {option.lstrip("-"): option for option in (*self._options, *self._flags)}
        if not alike and (found := closest(wanted.lstrip("-"), names)):
            alike = [names[found]]
        if not alike:  # the name of a field alone, misspelt
            of_field = {option.rpartition(".")[2]: option for option in names.values()}
            alike = [of_field[found]] if (found := closest(last, of_field)) else []
        hint = f"did you mean {alike[0]}?" if alike else f"see `blankfill {self._verb} --help-all`"
        texts = "; -- before a text that begins with a dash makes it one" * bool(self._arguments)
        return f"{self._verb} has no option {_shown(name)}; {hint}{texts}"


def _is_option(word: str) -> bool:
    return bool(_OPTION.fullmatch(word)) and not _NO_OPTION.fullmatch(word)


def _ends(word: str) -> bool:
    """Tell whether a word ends the values of the option before it."""
    return word == "--" or _is_option(word)


def _negated(spelled: str) -> str:
    """Spell the opposite of a flag: `--no-resume`, `--checkpoint.no-keep-best`."""
    group, dot, name = spelled.removeprefix("--").rpartition(".")
    return f"--{group}{dot}no-{name}"


def _convert(parameter: Parameter, word: str) -> Any:
    """Turn a word into a value of the parameter's type."""
    hint = parameter.hint
    if typing.get_origin(hint) is Literal:
        values = {str(value): value for value in typing.get_args(hint)}
        if word in values:
            return values[word]
        if not (parameter.optional and word == "None"):
            choices, meant = ", ".join(values), did_you_mean(word, values)
            raise ConfigError(
                f"{parameter.spelled} {_shown(word)}: {meant}it is not one of: {choices}"
            )
    if word in parameter.words:
        return word
    if parameter.optional and word == "None" and hint is not str:
        return None
    if hint is Path:
        if not word:
            raise ConfigError(f"{parameter.spelled} is empty; name a path")
        return word  # as it was written: `./tiny` is a folder, `tiny` may be a preset
    try:
        if hint is float and word.endswith("%"):
            return float(word[:-1]) / 100
        return hint(word)
    except ValueError as error:
        kind = "a whole number" if hint is int else "a number"
        kind += "".join(f", nor {each}" for each in parameter.words)
        raise ConfigError(f"{parameter.spelled} {_shown(word)} is not {kind}") from error


def _shown(word: str) -> str:
    """Quote a word of the user's, shortened."""
    return repr(word if len(word) <= SHOWN_VALUE else word[:SHOWN_VALUE] + "...")
