"""What a function that callers see does with its arguments: each is checked by its declared type.

    @checks_arguments
    def fill(run: PathLike, texts: Texts, /, *, temperature: Temperature = 0.0, ...)

The same declarations make the command line. A mistake of the caller is one sentence that names the
parameter, before anything is done: a number outside its range, a word that is none of the choices,
a path that cannot be one, a list of the wrong things. A keyword that does not exist is Python's own
`TypeError`.

What stands in place of a list may be any iterable but a text or a mapping: a tuple, a generator, an
array. The function gets a list; numbers come as plain `int` and `float`.
"""

from __future__ import annotations

import functools
import inspect
import operator
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    ParamSpec,
    SupportsIndex,
    TypeVar,
    cast,
    get_args,
    get_origin,
)

from blankfill.config.ranges import hints_of, numbers_of, shown
from blankfill.errors import ConfigError, refused_by_system

__all__ = ["checks_arguments", "is_checked"]

P = ParamSpec("P")
R = TypeVar("R")

_MARK = "__blankfill_checks_arguments__"
LONGEST_INTEGER = 64
"""Bits of a number that no range bounds, such as a step or an id; Python writes out no long one."""


def checks_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function check every argument by its declared type before it does anything.

    Raises:
        ConfigError: when called with an argument that its parameter does not take.
        FileError: when the system refuses a file, and the function did not say it better.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        numbers, hints = numbers_of(function), hints_of(function)
        for name, value in bound.arguments.items():
            if name in numbers:
                bound.arguments[name] = numbers[name].check(name, value)
            elif name in hints:
                bound.arguments[name] = _taken(name, value, hints[name])
        try:
            return function(*bound.args, **bound.kwargs)
        except OSError as error:
            refused = refused_by_system(error)
            if refused is None:
                raise
            raise refused from error

    setattr(checked, _MARK, True)
    return checked


def is_checked(function: Callable[..., object]) -> bool:
    """Tell whether a function checks its arguments so."""
    return getattr(function, _MARK, False)


def _taken(name: str, value: Any, hint: Any) -> Any:
    """Give a value as a parameter takes it.

    Raises:
        ConfigError: the parameter does not take it.
    """
    choices = _choices(hint)
    if any(_is_single(value, choice) for choice in choices):
        return _path(name, value) if Path in choices and isinstance(value, str | Path) else value
    lists = [get_args(choice)[0] for choice in choices if get_origin(choice) is Sequence]
    if lists and _is_many(value):
        items = cast("Iterable[object]", value)
        inner = _joined(lists)
        return [_taken(f"{name}[{i}]", item, inner) for i, item in enumerate(items)]
    raise ConfigError(f"{name} must be {_described(choices)}, not {shown(value)}")


def _is_single(value: Any, choice: Any) -> bool:
    """Tell whether a value is what one type of a union names; lists apart."""
    origin = get_origin(choice)
    if choice is types.NoneType:
        return value is None
    if origin is Literal:
        known = isinstance(value, str | int) and not isinstance(value, bool)
        return known and value in get_args(choice)
    if choice in (int, SupportsIndex):
        return _is_whole(value)
    if origin is Mapping:
        return isinstance(value, Mapping)
    if origin is Callable:
        return callable(value)
    if origin is tuple:
        return isinstance(value, tuple | list) and _fits(cast("Sequence[Any]", value), choice)
    return isinstance(choice, type) and isinstance(value, choice)


def _fits(values: Sequence[Any], choice: Any) -> bool:
    """Tell whether values are those of a tuple's type, one by one."""
    inner = get_args(choice)
    return len(values) == len(inner) and all(map(_is_single, values, inner))


def _is_whole(value: Any) -> bool:
    """Tell whether a value is a whole number of at most 64 bits, of Python's or of an array."""
    if isinstance(value, bool | str):
        return False
    try:
        return operator.index(value).bit_length() <= LONGEST_INTEGER
    except TypeError:
        return False


def _is_many(value: Any) -> bool:
    if isinstance(value, str | bytes | bytearray | Mapping | Path):
        return False
    try:
        iter(value)
    except TypeError:
        return False
    return True


def _path(name: str, value: Any) -> Any:
    """Check that a value can be a path.

    Raises:
        ConfigError: it is empty, or the system could not be asked for it.
    """
    text = str(value)
    if not text:
        raise ConfigError(f"{name} is empty; name a path")
    try:
        known = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        known = False
    if not known:
        raise ConfigError(f"{name} cannot be a path: {shown(value)}")
    return value


def _choices(hint: Any) -> tuple[Any, ...]:
    """Give the members of a union, without their ranges; of anything else itself."""
    if get_origin(hint) is Annotated:
        return _choices(get_args(hint)[0])
    if get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(choice for inner in get_args(hint) for choice in _choices(inner))
    return (hint,)


def _joined(hints: Sequence[Any]) -> Any:
    """Join the types that lists of a union may hold: `Sequence[str] | Sequence[int]`."""
    return functools.reduce(operator.or_, hints)


def _described(choices: Sequence[Any]) -> str:
    """Say what a parameter takes."""
    words = [_word(choice) for choice in choices]
    if Path in choices:  # a path may be a text, which need not be said
        words = [word for word in words if word != "a text"]
    return " or ".join(dict.fromkeys(words))


def _word(choice: Any) -> str:
    known = {bool: "True or False", str: "a text", int: "a whole number", Path: "a path",
             SupportsIndex: "a whole number",             types.NoneType: "None"}  # fmt: skip
    origin, inner = get_origin(choice), get_args(choice)
    if origin is Literal:
        return f"one of: {', '.join(map(str, inner))}"
    if origin is Sequence:
        return f"a list of them, each {_described(_choices(inner[0]))}"
    if origin is Mapping:
        return "values by name"
    if origin is Callable:
        return "a function"
    if origin is tuple:
        return f"{len(inner)} numbers"
    return known.get(choice) or f"a {getattr(choice, '__name__', choice)}"
