"""What `--config` names: a whole run whose like is to begin, or some fields of one's own.

A run is named by its folder, by that of one of its checkpoints, or by its run.json, wherever that
lies. A file of one's own has the form of run.json's `config`, as much of it as is wanted, and may
name the preset that the rest is taken from:

    {"preset": "tiny", "train": {"steps": 4000}, "schedule.peak_lr": 0.002}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from blankfill.config.run import RunConfig
from blankfill.disk.json_files import read_object
from blankfill.errors import ConfigError
from blankfill.runs import RunRecord, locate, read_record, read_run
from blankfill.runs.record import RUN

__all__ = ["GivenConfig", "read_config"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenConfig:
    """What a run's configuration is to be made of."""

    preset: str | None = None
    """The preset that it names."""
    values: Mapping[str, object] = field(default_factory=dict[str, object])
    """Its fields by dotted name."""
    record: RunRecord | None = None
    """All of a run, where it is that of a run."""


def read_config(path: Path) -> GivenConfig:
    """Read a run, or a file with some fields.

    Raises:
        CheckpointError: a folder is not a run, or a run.json is damaged or of another version.
        ConfigError: a file holds neither.
    """
    if not path.exists():
        raise ConfigError(
            f"--config {path}: there is no such file or folder; name a run, its run.json, or a "
            "JSON file with some of its fields"
        )
    if path.is_dir():
        return _of_run(read_run(locate(path).run))
    try:
        value = read_object(path)
    except OSError as error:
        raise ConfigError(f"--config {path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ConfigError(
            f"--config {path} is no configuration: {error}; write it as the config of a run.json is"
        ) from error
    if value.get(RUN.field) == RUN.value:
        return _of_run(read_record(path))
    return _of_fields(path, value)


def _of_run(record: RunRecord) -> GivenConfig:
    return GivenConfig(preset=record.preset, record=record)


def _of_fields(path: Path, value: dict[str, Any]) -> GivenConfig:
    """Read a file of one's own."""
    preset = value.pop("preset", None)
    if preset is not None and not isinstance(preset, str):
        raise ConfigError(f"--config {path}: its 'preset' is {preset!r}, not the name of a preset")
    inner = value.pop("config", None)
    found: dict[str, object] = {}
    for part in (value, inner if isinstance(inner, dict) else {}):
        for name, held in cast("dict[str, object]", part).items():
            if "." in name:
                found[name] = held
            elif name in RunConfig.__slots__ and isinstance(held, dict):
                fields = cast("dict[str, object]", held)
                found |= {f"{name}.{key}": inside for key, inside in fields.items()}
            else:
                raise ConfigError(
                    f"--config {path}: {name!r} is not a section of a run with its fields; the "
                    f"sections are {', '.join(RunConfig.__slots__)}"
                )
    if inner is not None and not isinstance(inner, dict):
        raise ConfigError(f"--config {path}: its 'config' is {inner!r}, not an object of sections")
    return GivenConfig(preset=preset, values=found)
