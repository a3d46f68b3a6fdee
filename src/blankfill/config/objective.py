"""What is cut out of a document, how often, and which positions its parts get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from blankfill.errors import ConfigError

__all__ = ["ObjectiveConfig", "PositionScheme"]

PositionScheme = Literal["corrupted", "linear", "original"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveConfig:
    """The blanks of a run."""

    short_rate: float = 0.7
    """Share of examples with short spans behind [MASK]."""
    document_rate: float = 0.3
    """Share of examples with one long blank behind [gMASK]."""
    positions: PositionScheme = "corrupted"
    """Position ids; see blankfill.objective.positions."""

    def __post_init__(self) -> None:
        total = self.short_rate + self.document_rate
        if abs(total - 1.0) > 1e-6:
            raise ConfigError(f"objective rates sum to {total:g}; they must sum to 1")
