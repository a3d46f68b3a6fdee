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
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from blankfill.config.ranges import hints_of

__all__ = ["Parameter", "parameters_of", "spoken"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One argument or option."""

    name: str
    """In Python; of a configuration's field with its section before it: `train.steps`."""
    spelled: str
    """On the command line: `--train.steps`, or `RUN` of an argument."""
    takes: Literal["none", "one", "many"]
    """Words that it takes: a flag none, a list many."""
    hint: Any
    """Type of a value: `str`, `int`, `float`, `Path` or a `Literal`."""
    optional: bool
    """Whether `None` is a value."""
    required: bool
    """Whether it must be given."""


def parameters_of(command: Callable[..., Any]) -> tuple[list[Parameter], list[Parameter]]:
    """List the arguments and the options of a function."""
    arguments: list[Parameter] = []
    options: list[Parameter] = []
    for name, parameter in _resolved(command).items():
        required = parameter.default is inspect.Parameter.empty
        hint = parameter.annotation
        config = _config_of(hint)
        if config is not None:
            options += [
                _parameter(f"{section}.{field}", hint, required=False)
                for section, hints in _sections(config).items()
                for field, hint in hints.items()
            ]
        elif parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            arguments.append(_parameter(name, hint, required=required, argument=True))
        else:
            options.append(_parameter(name, hint, required=required))
    return arguments, options


def spoken(command: Callable[..., Any], defaults: Mapping[str, Any]) -> Callable[..., Any]:
    """Give a function the signature that it has on the command line, for its help.

    Args:
        command: a function of the API.
        defaults: configurations whose values stand as the defaults of their options.
    """

    @functools.wraps(command)
    def call(*args: Any, **options: Any) -> Any:
        return command(*args, **options)

    parameters = [
        _with_default(parameter, defaults.get(name, parameter.default))
        for name, parameter in _resolved(command).items()
    ]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    call.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportAttributeAccessIssue]  # read by `inspect.signature`
    del call.__wrapped__
    return call


def _with_default(parameter: inspect.Parameter, default: Any) -> inspect.Parameter:
    """Give a parameter a default, of the type that it has in the help."""
    if dataclasses.is_dataclass(default):
        return parameter.replace(annotation=type(default), default=default)
    if parameter.annotation is Path and isinstance(default, str):
        default = Path(default)
    return parameter.replace(default=default)


def _resolved(command: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Give the parameters with types in place of names of types, as a command line sees them."""
    parameters = inspect.signature(command).parameters
    hints = hints_of(command)
    return {name: p.replace(annotation=_plain(hints[name])) for name, p in parameters.items()}


def _plain(hint: Any) -> Any:
    """Turn `str | Path` into `Path`, and one value or several into a list."""
    choices = _choices(hint)
    kept = [choice for choice in choices if choice is not types.NoneType]
    lists = [choice for choice in kept if _is_list(choice)]
    if lists:
        inner = next(arg for arg in typing.get_args(lists[0]) if arg is not Ellipsis)
        return tuple[_plain(inner), ...]
    if set(kept) == {str, Path}:
        kept = [Path]
    if set(kept) == {int, str}:
        kept = [str]  # a number is read where it is used
    (plain,) = kept
    return plain | None if len(choices) > len(kept) and types.NoneType in choices else plain


def _parameter(name: str, hint: Any, *, required: bool, argument: bool = False) -> Parameter:
    choices = _choices(hint)
    optional = types.NoneType in choices
    (hint,) = (choice for choice in choices if choice is not types.NoneType)
    takes: Literal["none", "one", "many"] = "one"
    if _is_list(hint):
        takes, hint = "many", typing.get_args(hint)[0]
    elif hint is bool:
        takes = "none"
    if typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]  # the range of a number is checked where it is used
    spelled = name.upper() if argument else "--" + name.replace("_", "-")
    return Parameter(
        name=name, spelled=spelled, takes=takes, hint=hint, optional=optional, required=required
    )


def _choices(hint: Any) -> tuple[Any, ...]:
    """Give the members of a union; of anything else itself."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _is_list(hint: Any) -> bool:
    return typing.get_origin(hint) in (list, tuple, Sequence)


def _sections(config: type[Any]) -> dict[str, dict[str, Any]]:
    """Give the sections of a configuration, and of each the types of its fields."""
    return {section: hints_of(kind) for section, kind in typing.get_type_hints(config).items()}


def _config_of(hint: Any) -> type[Any] | None:
    """Give the configuration that a parameter takes, if it takes one."""
    found = [choice for choice in _choices(hint) if dataclasses.is_dataclass(choice)]
    return cast("type[Any]", found[0]) if found else None
