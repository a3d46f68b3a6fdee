"""What a plan is told of the layout; what is not given is searched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from blankfill.config.common import COMMON
from blankfill.config.parallel import MOST_PROCESSES
from blankfill.config.ranges import Range, check_numbers

__all__ = ["LayoutConfig"]

Ranks = Annotated[int, Range(1, MOST_PROCESSES), COMMON]


@dataclass(frozen=True, kw_only=True, slots=True)
class LayoutConfig:
    """A layout as far as it is given."""

    replicate: Ranks | None = None
    """Copies of the model, over which gradients are summed."""
    shard: Ranks | None = None
    """Ranks that hold a copy's weights, gradients and moments together (FSDP2)."""
    tensor: Ranks | None = None
    """Ranks that compute each block together, each with some heads; at most those of a machine
    are searched."""
    pipeline: Ranks | None = None
    """Ranks that the blocks are dealt to, in stages."""
    schedule: Annotated[Literal["1f1b", "interleaved", "zbv"], COMMON] | None = None
    """Order of a pipeline's passes: 1f1b; interleaved, with several stages on each rank; zbv, which
    puts gradients of weights where a rank would wait."""
    weights: Annotated[Literal["float32", "bfloat16"], COMMON] | None = None
    """What is put together of weights for products: float32, or, where not given, bfloat16."""

    def __post_init__(self) -> None:
        check_numbers(self, "parallel")
