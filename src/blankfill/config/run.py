"""A run as one typed value: its model, its objective, its recipe; written beside its weights."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

from blankfill.config.checkpoint import CheckpointConfig
from blankfill.config.guard import GuardConfig
from blankfill.config.model import ModelConfig
from blankfill.config.objective import ObjectiveConfig
from blankfill.config.on_resume import FREE, NEVER
from blankfill.config.optimizer import OptimizerConfig
from blankfill.config.parallel import ParallelConfig
from blankfill.config.ranges import words_of
from blankfill.config.schedule import ScheduleConfig
from blankfill.config.train import PrecisionKind, TrainConfig
from blankfill.config.validation import ValidationConfig
from blankfill.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["RunConfig", "from_dict", "to_dict"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Everything that decides a pretraining run, except the data it reads."""

    model: Annotated[ModelConfig, NEVER] = field(default_factory=ModelConfig)
    """The network."""
    objective: Annotated[ObjectiveConfig, NEVER] = field(default_factory=ObjectiveConfig)
    """The blanks."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """How long, on which batches, and how they are computed."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How weights move."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """The learning rate from step to step."""
    validation: Annotated[ValidationConfig, FREE] = field(default_factory=ValidationConfig)
    """How the run is watched on held-out data."""
    checkpoint: Annotated[CheckpointConfig, FREE] = field(default_factory=CheckpointConfig)
    """What is saved when, and what stays."""
    guard: GuardConfig = field(default_factory=GuardConfig)
    """What follows a spike of the loss."""
    parallel: Annotated[ParallelConfig, FREE] = field(default_factory=ParallelConfig)
    """How several processes, which torchrun starts, share the work."""

    @property
    def sentinel_position(self) -> int | None:
        """Text position of Part B under `objective.sentinels`, after the row's last; else None."""
        return self.train.row_length if self.objective.sentinels else None

    @property
    def validate_every(self) -> int:
        """Steps between two validations; 0 where there are none between the first and the last."""
        return self.validation.every_steps(self.train.steps)

    @property
    def precision(self) -> PrecisionKind:
        """Arithmetic of matrix products: `train.precision`, or that of weights that are narrow."""
        return "bfloat16" if self.parallel.weights == "bfloat16" else self.train.precision

    def __post_init__(self) -> None:
        if self.train.row_length > self.model.max_position:
            raise ConfigError(
                f"train.row_length={self.train.row_length} is longer than "
                f"model.max_position={self.model.max_position}; raise max_position"
            )
        if self.checkpoint.keep_best and not self.validate_every:
            raise ConfigError("checkpoint.keep_best=True needs validations; set validation.every")
        if self.parallel.weights == "bfloat16" and self.train.precision in ("float16", "float32"):
            raise ConfigError(
                f"parallel.weights=bfloat16 computes in bfloat16, and train.precision="
                f"{self.train.precision}; take --parallel.weights float32, or leave "
                "train.precision out"
            )
        self.schedule.check_end(self.train.steps)
        self._check_decay()

    def _check_decay(self) -> None:
        """Refuse a decay and a rate that are in their ranges and together turn weights over."""
        # Decay multiplies a weight by one less this product, which must stay above 0.
        decay, peak = self.optimizer.weight_decay, self.schedule.peak_lr
        ratio = self.optimizer.embedding_lr_ratio
        shrinks = decay * peak * max(1.0, ratio)
        if shrinks >= 1:
            raise ConfigError(
                f"optimizer.weight_decay={decay:g} takes {shrinks:g} of each weight at the peak "
                f"learning rate; its product with schedule.peak_lr={peak:g} and, where that is "
                f"above 1, optimizer.embedding_lr_ratio={ratio:g} must be below 1"
            )

    def values(self) -> dict[str, object]:
        """Give the value of every field by its dotted name, such as `schedule.peak_lr`."""
        sections = dataclasses.asdict(self).items()
        return {f"{part}.{name}": value for part, of in sections for name, value in of.items()}

    def changed(self, values: Mapping[str, object]) -> RunConfig:
        """Give this run with other values of some fields.

        Args:
            values: by dotted name, such as `schedule.peak_lr`.

        Raises:
            ConfigError: a field is unknown, or a value cannot be used.
        """
        of_sections: dict[str, dict[str, object]] = {}
        for dotted, value in values.items():
            section, _, name = dotted.partition(".")
            known = section in RunConfig.__slots__
            if not known or name not in getattr(self, section).__slots__:
                raise ConfigError(f"a run has no field {dotted!r}")
            hint = typing.get_type_hints(type(getattr(self, section)))[name]
            # Numbers of any kind are checked, and made plain ones, by their section.
            checked = value if hint in (int, float) else _value(hint, value, dotted)
            of_sections.setdefault(section, {})[name] = checked
        return dataclasses.replace(
            self,
            **{
                section: dataclasses.replace(getattr(self, section), **named)
                for section, named in of_sections.items()
            },
        )


def to_dict(config: DataclassInstance) -> dict[str, Any]:
    """Turn a configuration into JSON-ready dictionaries."""
    return dataclasses.asdict(config)


def from_dict(cls: type[T], values: Mapping[str, object], where: str = "") -> T:
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
    built: dict[str, object] = {}
    for name, value in values.items():
        built[name] = _value(hints[name], value, f"{where}{name}")
    return cls(**built)


def _value(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_dict(cast("type[Any]", hint), cast("dict[str, object]", value), where + ".")
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
        choices = [a for a in typing.get_args(hint) if a is not types.NoneType]
        words = [word for a in choices for word in words_of(a)]
        if isinstance(value, str) and value in words:
            return value
        (inner,) = (a for a in choices if not words_of(a)) if len(choices) > 1 else choices
        if words and isinstance(value, str):
            raise ConfigError(f"{where}={value!r} is neither a number nor {' or '.join(words)}")
        return _value(inner, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and (
        not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)
    ):
        raise ConfigError(f"{where}={value!r} is not of type {hint.__name__}")
    return value
