"""A run as one typed value: its model, its objective, its recipe; written beside its weights."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from blankfill.config.model import ModelConfig
from blankfill.config.objective import ObjectiveConfig
from blankfill.config.train import TrainConfig
from blankfill.errors import ConfigError

__all__ = ["RunConfig", "from_dict", "to_dict"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Everything that decides a pretraining run, except the data it reads."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """The blanks."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The recipe."""

    @property
    def sentinel_position(self) -> int | None:
        """Text position of Part B under `objective.sentinels`, after the row's last; else None."""
        return self.train.row_length if self.objective.sentinels else None

    def __post_init__(self) -> None:
        if self.train.row_length > self.model.max_position:
            raise ConfigError(
                f"train.row_length={self.train.row_length} is longer than "
                f"model.max_position={self.model.max_position}; raise max_position"
            )


def to_dict(config: Any) -> dict[str, Any]:
    """Turn a configuration into JSON-ready dictionaries."""
    return dataclasses.asdict(config)


def from_dict(cls: type[T], values: dict[str, Any], where: str = "") -> T:
    """Rebuild a configuration that `to_dict` wrote.

    Args:
        cls: the configuration's class.
        values: its fields; missing ones take their defaults.
        where: dotted name of this part, for error messages.

    Raises:
        ConfigError: a field is unknown or its value is not valid.
    """
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(f"unknown field {where + unknown[0]!r} in the configuration")
    built: dict[str, Any] = {}
    for name, value in values.items():
        built[name] = _value(hints[name], value, f"{where}{name}")
    return cls(**built)


def _value(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_dict(cast("type[Any]", hint), cast("dict[str, Any]", value), where + ".")
    if origin is tuple and isinstance(value, list | tuple):
        items = cast("list[Any]", value)
        inner = [a for a in typing.get_args(hint) if a is not Ellipsis]
        return tuple(_value(inner[min(i, len(inner) - 1)], v, where) for i, v in enumerate(items))
    if origin is typing.Literal:
        if isinstance(value, bool) and {"on", "off"} <= {*typing.get_args(hint)}:
            value = "on" if value else "off"  # as it was written before there was a third choice
        if value not in typing.get_args(hint):
            allowed = ", ".join(map(str, typing.get_args(hint)))
            raise ConfigError(f"{where}={value!r} is not one of: {allowed}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        (inner,) = (a for a in typing.get_args(hint) if a is not types.NoneType)
        return _value(inner, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and (
        not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)
    ):
        raise ConfigError(f"{where}={value!r} is not of type {hint.__name__}")
    return value
