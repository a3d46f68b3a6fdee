"""Whose a value is that is not finite: of the weights those that keep it, of a step those whose
rows have met it.

A gradient of several processes is of all their rows, and so does not tell where it was spoiled;
what comes back to a process's own hidden states does.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import torch
from torch import nn

from blankfill.engine.transfer import read_together
from blankfill.parallel.places import Place
from blankfill.parallel.ranks import Ranks

__all__ = ["ReturningGradients", "bad_weights"]


@torch.no_grad()
def bad_weights(
    own: Mapping[str, torch.Tensor], places: Mapping[str, Place], ranks: Ranks
) -> list[str]:
    """Name the weights that are not finite, with how many of their values, and the processes that
    keep those; copies need not agree, as where a machine's memory fails.

    Args:
        own: what this process keeps of each weight.
        places: where that belongs.
        ranks: the processes; all call this.
    """
    counts = read_together([(~torch.isfinite(rows)).sum() for rows in own.values()])
    here = [
        (name, places[name].begin, int(n), ranks.rank)
        for name, n in zip(own, counts, strict=True)
        if n
    ]  # fmt: skip
    of_parts: dict[str, Counter[tuple[int, ...]]] = {}
    keepers: dict[str, list[int]] = {}
    for name, begin, count, rank in ranks.gather(here):
        found = of_parts.setdefault(name, Counter())
        found[begin] = max(found[begin], count)  # of those that keep the same part
        keepers.setdefault(name, []).append(rank)
    return [
        f"{name} ({found.total()} of {math.prod(places[name].shape)} values, in "
        f"{ranks.places_of(keepers[name])})"
        for name, found in of_parts.items()
    ]


class ReturningGradients:
    """Looks whether what comes back to this process's rows is finite, without waiting for it.

    Args:
        first: the part of the model whose result is the first hidden state; None where another
            process has it.
    """

    def __init__(self, first: nn.Module | None) -> None:
        self.are_finite: list[torch.Tensor] = []
        """`[]` of each micro-batch since the step began."""
        if first is not None:
            first.register_forward_hook(self._watch)

    def forget(self) -> None:
        """Begin a step."""
        self.are_finite = []

    def _watch(self, _first: nn.Module, _given: object, hidden: torch.Tensor) -> None:
        if hidden.requires_grad:
            hidden.register_hook(self._look)

    def _look(self, gradient: torch.Tensor) -> None:
        self.are_finite.append(torch.isfinite(gradient).all())
