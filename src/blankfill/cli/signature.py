"""What the parameters of a function are on a command line: its arguments and its options.

A positional parameter is an argument, a keyword one an option (`max_new_tokens` is
`--max-new-tokens`); a run's configuration gives an option for each field of its sections
(`--train.steps`). The API takes `str | Path` where a path is meant, and one value or several; here
that is a path, and a list.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import operator
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from blankfill.config.common import is_common, unless
from blankfill.config.ranges import hints_of, words_of

__all__ = ["Parameter", "config_of", "parameters_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One argument or option."""

    name: str
    """In Python; of a configuration's field with its section before it: `train.steps`."""
    spelled: str
    """On the command line: `--train.steps`, or `RUN` of an argument."""
    takes: Literal["none", "maybe", "one", "many"]
    """Words that it takes: a flag none, one whose value may be left out maybe one, a list many."""
    hint: Any
    """Type of a value: `str`, `int`, `float`, `Path` or a `Literal`."""
    optional: bool
    """Whether `None` is a value."""
    required: bool
    """Whether it must be given."""
    words: tuple[str, ...]
    """Words that a number may be as well."""
    unless: tuple[str, ...]
    """Parameters one of which must be given in its place, where there are such."""
    default: Any
    """Its value where it is not given; of a configuration's field the class's own."""
    common: bool
    """Whether `--help` shows it: all of a function's parameters, and fields that say so."""
    owner: Callable[..., Any]
    """The function or the section's class that declares it."""


def parameters_of(command: Callable[..., Any]) -> tuple[list[Parameter], list[Parameter]]:
    """List the arguments and the options of a function."""
    arguments: list[Parameter] = []
    options: list[Parameter] = []
    hints = hints_of(command)
    for name, parameter in _resolved(command).items():
        hint = parameter.annotation
        config = config_of(hint)
        if config is not None:
            options += _fields(config)
            hint = functools.reduce(operator.or_, (c for c in _choices(hint) if c is not config))
            if hint is types.NoneType:
                continue
        made = _parameter(
            name, hint, parameter.default, owner=command,
            argument=parameter.kind is inspect.Parameter.POSITIONAL_ONLY,
        )  # fmt: skip
        made = dataclasses.replace(made, unless=unless(hints[name]))
        (options if made.spelled.startswith("--") else arguments).append(made)
    return arguments, options


def _resolved(command: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Give the parameters with types in place of names of types, as a command line sees them."""
    parameters = inspect.signature(command).parameters
    hints = hints_of(command)
    return {
        name: parameter.replace(annotation=_plain(hints[name]))
        for name, parameter in parameters.items()
        # Values by name are options of their own on a command line, and functions are ours.
        if not any(
            typing.get_origin(choice) in (Mapping, Callable) for choice in _choices(hints[name])
        )
    }


def _plain(hint: Any) -> Any:
    """Turn `str | Path` into `Path`, and one value or several into a list."""
    choices = _choices(hint)
    kept = [choice for choice in choices if choice is not types.NoneType]
    lists = [choice for choice in kept if _is_list(choice)]
    if lists:
        inner = next(arg for arg in typing.get_args(lists[0]) if arg is not Ellipsis)
        return tuple[_plain(inner), ...]
    if {str, Path} <= {*kept}:
        kept.remove(str)
    if set(kept) == {int, str}:
        kept = [str]  # a number is read where it is used
    plain = functools.reduce(operator.or_, kept)
    return plain | None if types.NoneType in choices else plain


def _fields(config: type[Any]) -> list[Parameter]:
    """Give an option for each field of each section of a configuration."""
    return [
        dataclasses.replace(
            _parameter(f"{section}.{name}", hint, None, owner=kind), common=is_common(hint)
        )
        for section, kind in typing.get_type_hints(config).items()
        for name, hint in hints_of(kind).items()
    ]


def _parameter(
    name: str, hint: Any, default: Any, *, owner: Callable[..., Any], argument: bool = False
) -> Parameter:
    choices = _choices(hint)
    optional = types.NoneType in choices
    # A value that may be left out is of its kind, or true.
    kinds = [each for each in choices if each not in (types.NoneType, bool)] or [bool]
    words = tuple(word for each in kinds for word in words_of(each)) if len(kinds) > 1 else ()
    (hint,) = [each for each in kinds if not words or not words_of(each)]
    if typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]  # the range of a number is checked where it is used
    takes: Literal["none", "maybe", "one", "many"] = "one"
    if _is_list(hint):
        takes, hint = "many", typing.get_args(hint)[0]
    elif bool in choices:
        takes = "none" if hint is bool else "maybe"
    required = default is inspect.Parameter.empty
    spelled = "--" + name.replace("_", "-")
    if argument:  # one of several texts is a TEXT
        spelled = f"{name.upper().removesuffix('S')}..." if takes == "many" else name.upper()
    return Parameter(
        name=name, spelled=spelled, takes=takes, hint=hint, optional=optional, required=required,
        words=words, unless=(), default=None if required else default, common=True, owner=owner,
    )  # fmt: skip


def _choices(hint: Any) -> tuple[Any, ...]:
    """Give the members of a union; of anything else itself."""
    inner = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
    is_union = typing.get_origin(inner) in (typing.Union, types.UnionType)
    return typing.get_args(inner) if is_union else (hint,)


def _is_list(hint: Any) -> bool:
    return typing.get_origin(hint) in (list, tuple, Sequence)


def config_of(hint: Any) -> type[Any] | None:
    """Give the configuration that a parameter takes, if it takes one."""
    found = [choice for choice in _choices(hint) if dataclasses.is_dataclass(choice)]
    return cast("type[Any]", found[0]) if found else None
