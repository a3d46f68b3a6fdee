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
    mask_ratio: float = 0.15
    """Share of a document's tokens that short spans cut out."""
    mean_span_length: float = 3.0
    """Mean of the Poisson law of short spans, before 0 is taken out."""
    min_document_share: float = 0.2
    """Shortest document blank as a share of its text (GLM-130B: 0.2)."""
    end_documents: bool = True
    """End a document blank in eop where its text really ends, so that the model learns to stop;
    false never ends it, as published."""
    positions: PositionScheme = "corrupted"
    """Position ids; see blankfill.objective.positions."""

    def __post_init__(self) -> None:
        if not 0 < self.mask_ratio <= 1:
            raise ConfigError(f"objective.mask_ratio={self.mask_ratio} must be in (0, 1]")
        if not 0 < self.mean_span_length <= 20:
            raise ConfigError(
                f"objective.mean_span_length={self.mean_span_length} must be in (0, 20]"
            )
        if not 0 <= self.min_document_share <= 1:
            raise ConfigError(
                f"objective.min_document_share={self.min_document_share} must be in [0, 1]"
            )
        if min(self.short_rate, self.document_rate) < 0:
            raise ConfigError("objective rates must not be negative")
        total = self.short_rate + self.document_rate
        if abs(total - 1.0) > 1e-6:
            raise ConfigError(f"objective rates sum to {total:g}; they must sum to 1")
