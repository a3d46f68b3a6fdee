"""The JSON files that describe what blankfill writes: one way to write them, one to read them.

Paths are kept as the system gives them. One that is not UTF-8 reaches Python with lone surrogates
in place of its bytes; these are written as the escapes of JSON (`\\udce9`), so every file is UTF-8
and gives the same path back when it is read.

Every field that is needed is checked, so that a file that was cut off, emptied or replaced raises
an error here, and no reader meets a value of another type than it expects.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, TypeAlias, cast

from blankfill.disk.pointer import is_pointer, pointer_sentence

__all__ = ["Description", "EarlierFormatError", "Needs", "check", "encode", "read_object"]

Needs: TypeAlias = Mapping[str, Any]
"""What an object must hold: for each field a type; the fields of the object that it is; or, in a
list of one, what each of its items is. A field whose name ends in `?` may be missing or null; what
is not named may be anything."""

_NAMES: dict[type, str] = {
    int: "a whole number", float: "a number", str: "a text", bool: "true or false",
    list: "a list", dict: "an object", NoneType: "null",
}  # fmt: skip


class Description(NamedTuple):
    """What a file says of itself where it is one of ours."""

    field: str
    """The field that names its format."""
    value: str
    """The value of that field, if it is present: early files may lack it."""
    version: int
    """The latest version that this blankfill knows; the first is 1."""
    needs: Needs
    """What else it holds."""
    oldest: int = 1
    """The earliest version that this blankfill still reads."""


class EarlierFormatError(ValueError):
    """A file is ours and of a version that is not read any more.

    Args:
        found: its version.
        oldest: the earliest one that is read.
    """

    def __init__(self, found: int, oldest: int) -> None:
        super().__init__(
            f"it was written by an earlier blankfill, in format {found}, and this one reads "
            f"{oldest} and later"
        )
        self.found, self.oldest = found, oldest

    def __reduce__(self) -> tuple[type[EarlierFormatError], tuple[int, int]]:
        """Be told to other processes as it is."""
        return type(self), (self.found, self.oldest)


def encode(value: Any, *, indent: int | None = 2) -> bytes:
    """Give a value as JSON in UTF-8, with a line end."""
    text = json.dumps(value, indent=indent, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "backslashreplace")


def read_object(path: Path, description: Description | None = None) -> dict[str, Any]:
    """Read a JSON object and check that it is what it has to be.

    Args:
        path: the file.
        description: what it must say of itself; any object will do where not given.

    Raises:
        OSError: it cannot be read.
        EarlierFormatError: its version is not read any more.
        ValueError: it is something else; the message begins with "it".
    """
    data = path.read_bytes()
    if not data.strip():
        raise ValueError("it is empty")
    if is_pointer(data):
        raise ValueError(pointer_sentence("it"))
    try:
        value: Any = json.loads(data.decode())
    except UnicodeDecodeError as error:
        raise ValueError("it is not a text in UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON, or was cut off: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"it holds {_name(value)}, not an object")
    if description is not None:
        _check_description(value, description)
        check(value, description.needs)
    return value


def check(value: Mapping[str, Any], needs: Needs, where: str = "") -> None:
    """Check that an object holds what it must.

    Args:
        value: the object.
        needs: its fields.
        where: what stands before a field's name in messages.

    Raises:
        ValueError: a field is missing or of another type; the message begins with "it".
    """
    for name, wanted in needs.items():
        field, optional = name.removesuffix("?"), name.endswith("?")
        if value.get(field) is not None:
            _check_value(value[field], wanted, where + field)
        elif not optional:
            lack = "null" if field in value else "missing"
            raise ValueError(f"its {where + field!r} is {lack}")


def _check_value(value: Any, wanted: Any, where: str) -> None:
    expected = dict if isinstance(wanted, Mapping) else list if isinstance(wanted, list) else wanted
    fits: bool = isinstance(value, (int, float) if expected is float else expected)
    if not fits or (isinstance(value, bool) and expected is not bool):
        raise ValueError(f"its {where!r} is {_name(value)}, not {_NAMES[expected]}")
    if isinstance(wanted, Mapping):
        check(cast("dict[str, object]", value), wanted, f"{where}.")
    elif isinstance(wanted, list):
        for index, item in enumerate(cast("list[Any]", value)):
            _check_value(item, wanted[0], f"{where}[{index}]")


def _check_description(value: Mapping[str, object], description: Description) -> None:
    field, name, version, _, oldest = description
    if value.get(field, name) != name:
        raise ValueError(f"it is not that of a {name}: its {field!r} is {str(value[field])[:40]!r}")
    found = value.get("version")
    if not isinstance(found, int) or isinstance(found, bool):
        raise ValueError("it has no version")
    if found < 1:
        raise ValueError(f"its version {found} is none that blankfill ever wrote")
    if found < oldest:
        raise EarlierFormatError(found, oldest)
    if found > version:
        raise ValueError(
            f"its version {found} is newer than this blankfill knows ({version}); update blankfill"
        )


def _name(value: Any) -> str:
    return _NAMES.get(type(value), type(value).__name__)
