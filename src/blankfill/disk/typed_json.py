"""JSON objects as frozen dataclasses and back.

The dataclass says what a file must hold: a field without a default has to be there, every value has
to be of its field's type, and the sentence about one that is not names it (`data[0].tokens`). What
the dataclass does not know is passed over. An optional field without a value is left out.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from blankfill.disk.json_files import check

__all__ = ["from_json", "to_json"]

T = TypeVar("T")

Readers = Mapping[type, Callable[[Any, str], object]]
"""How values of some types are read: given the value and its name; raises `ValueError`."""


def from_json(
    cls: type[T], value: Mapping[str, Any], where: str = "", *, readers: Readers | None = None
) -> T:
    """Build a dataclass of an object's fields.

    Args:
        cls: the dataclass. Its fields may be whole numbers, numbers, texts, truth values, some
            texts alone (`Literal`), `object` for anything, other dataclasses, `tuple`s and `dict`s
            of these, or one of these or None.
        value: the object.
        where: what stands before a field's name in messages.
        readers: types that are read in their own way.

    Raises:
        ValueError: a field is missing or of another type; the message begins with "its".
    """
    hints = typing.get_type_hints(cls)
    built: dict[str, object] = {}
    for field in dataclasses.fields(cast("Any", cls)):
        if value.get(field.name) is not None:
            name = where + field.name
            built[field.name] = _read(hints[field.name], value[field.name], name, readers or {})
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            check(value, {field.name: object}, where)  # it says whether it is missing or null
    return cls(**built)


def to_json(value: object) -> Any:
    """Give what `from_json` reads: dataclasses as objects, tuples as lists."""
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {name: to_json(held) for name, held in fields.items() if held is not None}
    if isinstance(value, Mapping):
        held = cast("Mapping[str, object]", value)
        return {name: to_json(inner) for name, inner in held.items()}
    if isinstance(value, tuple | list):
        return [to_json(inner) for inner in cast("tuple[object, ...]", value)]
    return value


def _read(hint: Any, value: Any, name: str, readers: Readers) -> object:
    if hint in readers:
        return readers[hint](value, name)
    if dataclasses.is_dataclass(hint):
        _require(dict, value, name)
        return from_json(cast("type[object]", hint), value, f"{name}.", readers=readers)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType or origin is typing.Union:
        (only,) = (of for of in inner if of is not types.NoneType)
        return _read(only, value, name, readers)
    if origin is typing.Literal:
        if value not in inner:
            raise ValueError(f"its {name!r} is {value!r}, not one of: {', '.join(map(str, inner))}")
        return value
    if origin is tuple:
        _require(list, value, name)
        return _read_tuple(inner, value, name, readers)
    if origin is dict:
        _require(dict, value, name)
        return {key: _read(inner[1], held, f"{name}.{key}", readers) for key, held in value.items()}
    if hint is not object:
        _require(hint, value, name)
    return float(value) if hint is float else value


def _read_tuple(inner: tuple[Any, ...], value: list[Any], name: str, readers: Readers) -> object:
    hints = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
    if len(hints) != len(value):
        raise ValueError(f"its {name!r} has {len(value)} items, not {len(hints)}")
    return tuple(
        _read(hint, held, f"{name}[{i}]", readers)
        for i, (hint, held) in enumerate(zip(hints, value, strict=True))
    )


def _require(expected: type, value: Any, name: str) -> None:
    """Have the one check of a value's type say what is wrong, under the value's whole name."""
    check({name: value}, {name: expected})
