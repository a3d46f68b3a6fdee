"""How a result shows itself at a prompt or in a notebook: in a few lines, however much it holds.

    @dataclass(frozen=True, kw_only=True, slots=True)
    class FillResult:
        ...
        __repr__ = short_repr
        to_dict = to_dict

Long texts and lists are cut and say how long they are; what is empty or None is left out; what lies
deep is named only. Every value is still there, by its field. `to_dict` has them all, as `--json`
prints them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

__all__ = ["plain", "short_repr", "to_dict"]

LONGEST_TEXT = 60
"""Characters of a text that are shown."""
MOST_ITEMS = 3
"""Items of a list that are shown."""
DEPTH = 2
"""Results inside of results that are shown field by field."""


def short_repr(self: object) -> str:
    """Show a frozen dataclass in a few lines; for its `__repr__`."""
    return _fields(self, DEPTH)


def to_dict(self: object) -> dict[str, object]:
    """Give a frozen dataclass as what JSON can hold, field by field; for its `to_dict`.

    A number that is not finite, such as the logarithm of a probability of zero, is None: JSON has
    no other word for it.
    """
    fields = dataclasses.fields(cast("Any", self))
    return {field.name: plain(getattr(self, field.name)) for field in fields}


def plain(value: object) -> object:
    """Turn a value into what JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, dict):
        pairs = cast("Mapping[object, object]", value).items()
        return {str(key): plain(item) for key, item in pairs}
    if isinstance(value, list | tuple):
        return [plain(item) for item in cast("Sequence[object]", value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def _fields(value: object, depth: int) -> str:
    fields = dataclasses.fields(cast("Any", value))
    held = {field.name: getattr(value, field.name) for field in fields if field.repr}
    shown = [f"{name}={_shown(each, depth)}" for name, each in held.items() if not _is_empty(each)]
    return f"{type(value).__name__}({', '.join(shown)})"


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str | list | tuple | dict) and not value)


def _shown(value: object, depth: int) -> str:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value, depth - 1) if depth > 1 else f"{type(value).__name__}(..)"
    if isinstance(value, str):
        cut = value[:LONGEST_TEXT]
        return repr(value) if cut == value else f"{cut!r}.. {len(value):,} characters"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value).items()
        parts = [f"{_shown(key, depth)}: {_shown(each, depth)}" for key, each in pairs]
        return "{" + _cut(parts) + "}"
    if isinstance(value, list | tuple):
        parts = [_shown(each, depth) for each in cast("Sequence[object]", value)[: MOST_ITEMS + 1]]
        inner = _cut(parts, len(cast("Sequence[object]", value)))
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' * (len(parts) == 1)})"
    if hasattr(value, "shape"):
        return f"array of {getattr(value, 'shape', '')}"
    return repr(value)


def _cut(parts: Sequence[str], count: int | None = None) -> str:
    """Join the first of several."""
    count = len(parts) if count is None else count
    if count <= MOST_ITEMS:
        return ", ".join(parts)
    return f"{', '.join(parts[:MOST_ITEMS])}, .. {count:,} in all"
