"""Activations that are not kept for the backward pass, but computed again in it.

The numbers are the same, bit for bit, and so are the units that dropout takes: torch's generator is
set back to where it was. In a compiled block it is not, so dropout has to follow from addresses
there (`model.dropout`). What it costs is time.

Source: Chen et al. 2016 (whole blocks); Korthikanti et al. 2022, section 5 (attention's core alone,
which holds most of what there is to hold and takes little of the time).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch.utils.checkpoint import checkpoint

from blankfill.config.train import RecomputeKind
from blankfill.model.attention import Attention
from blankfill.model.glm import GLM

__all__ = ["recompute"]


def recompute(model: GLM, what: RecomputeKind) -> None:
    """Say of a model's blocks what they compute again, in place; names and hooks stay.

    Args:
        model: before its blocks are compiled or laid out.
        what: nothing, attention's core of each block, or each block as a whole.
    """
    for block in model.blocks.values():
        if what == "selective":
            cast("Attention", block.attention).recomputes = True
        elif what == "full":
            block.forward = _computed_again(block, block.forward)


def _computed_again(
    block: torch.nn.Module, forward: Callable[..., torch.Tensor]
) -> Callable[..., torch.Tensor]:
    """Make a form of a block's computation that keeps its inputs alone, in training."""

    def again(*args: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False) if block.training else forward(*args)

    return again
