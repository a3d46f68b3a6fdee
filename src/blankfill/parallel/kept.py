"""What one process keeps of a model that is laid out, and what all of them find out of their parts.

Several processes may keep the same part of a weight: copies of the model do, and those that compute
a block together keep whole what they have not cut. In norms and counts each part is counted once.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
from torch import nn

from blankfill.config.model import ModelConfig
from blankfill.engine.gradient import layer_of
from blankfill.errors import CheckpointError
from blankfill.model.glm import GLM
from blankfill.parallel.places import Place, own, own_parameters
from blankfill.parallel.ranks import Ranks
from blankfill.parallel.tensor import cut_dimension
from blankfill.runs import Part
from blankfill.runs.parts import load_part, read_pieces

__all__ = ["Kept"]

Tensors = dict[str, torch.Tensor]
NOTHING: Final = (slice(0, 0),)
"""What is asked of a tensor that other processes keep."""


class Kept:
    """The kept part of every weight.

    Args:
        named: the weights of which this process keeps a part, by name, as they are laid out.
        cfg: the whole network.
        ranks: the processes.
        twice: those that two processes of a pipeline keep.
    """

    def __init__(
        self, named: Mapping[str, nn.Parameter], cfg: ModelConfig, ranks: Ranks,
        twice: Collection[str] = (),
    ) -> None:  # fmt: skip
        self._parameters, self._ranks, self._twice = dict(named), ranks, twice
        self.weights = own_parameters(named)
        """By name, as parameters that share the model's memory."""
        self.places = _places_of(cfg, ranks)
        """By name, what each holder of a copy keeps of a weight."""

    @property
    def here(self) -> dict[str, Place]:
        """Give by name what this process keeps of a weight."""
        return {name: of_holders[self._ranks.holder] for name, of_holders in self.places.items()}

    # -- gradients --------------------------------------------------------------------------------

    def gradients(self, *, cut: bool | None = None) -> list[torch.Tensor]:
        """List what is kept of the gradients; of all weights, or of those alone of which processes
        that compute a block together have different parts, or have the same."""
        return [
            own(parameter.grad)
            for name, parameter in self._parameters.items()
            if parameter.grad is not None and cut in (None, self._is_cut(name))
        ]

    def hand_on_gradients(self) -> None:
        """Give the weights that an optimizer moves their gradients."""
        for name, part in self.weights.items():
            gradient = self._parameters[name].grad
            part.grad = None if gradient is None else own(gradient)

    def share_of_square(self) -> torch.Tensor:
        """Give this process's share of the gradient's squared norm, `[]` float64."""
        of_copies: dict[int, list[torch.Tensor]] = {}
        for name, parameter in self._parameters.items():
            if parameter.grad is not None:
                of_copies.setdefault(self._num_copies(name), []).append(own(parameter.grad))
        squares = [
            torch.nn.utils.get_total_norm(gradients).double() ** 2 / copies
            for copies, gradients in of_copies.items()
        ]
        return torch.stack(squares).sum()

    def gradient_norms(self) -> dict[str, float]:
        """Give the gradient norm of each layer; none after the update."""
        here = {
            name: float(torch.linalg.vector_norm(own(p.grad), dtype=torch.float64)) ** 2
            for name, p in self._parameters.items()
            if p.grad is not None
        }
        if not here:
            return {}
        squares: dict[str, float] = {}
        for name, square in self._sum_by_name(here).items():
            squares[layer_of(name)] = squares.get(layer_of(name), 0.0) + square
        return {layer: math.sqrt(square) for layer, square in squares.items()}

    def _sum_by_name(self, values: Mapping[str, float]) -> dict[str, float]:
        """Add up over all processes what each of them has found of its part of some weights, of
        every weight of the model."""
        of_all = self._ranks.sum([values.get(name, 0.0) for name in self.places])
        return {
            name: total / self._num_copies(name)
            for name, total in zip(self.places, of_all, strict=True)
        }

    def _is_cut(self, name: str) -> bool:
        """Tell whether processes that compute a block together have different parts of a weight."""
        return self._ranks.tensor.size == 1 or cut_dimension(name) is not None

    def _num_copies(self, name: str) -> int:
        """Count the processes that keep the same part of a weight."""
        among = 1 if self._is_cut(name) else self._ranks.tensor.size
        return self._ranks.layout.replicate * among * (2 if name in self._twice else 1)

    # -- state ------------------------------------------------------------------------------------

    def place_of(self, name: str) -> Place | None:
        """Tell where what this process keeps of a weight, or of a moment named `<what>.<weight>`,
        belongs; None of what each process has whole, such as AdamW's number of steps."""
        return None if name.startswith("step.") else self.places[self._of(name)][self._ranks.holder]

    def copies(self) -> Tensors:
        """Copy the weights."""
        return {name: part.detach().clone() for name, part in self.weights.items()}

    @torch.no_grad()
    def take_whole(self, name: str, values: torch.Tensor) -> None:
        """Give a weight other values, of which this process may keep a part."""
        if name in self.weights:
            self.weights[name].copy_(values[self.places[name][self._ranks.holder].index])

    def read(self, folder: Path, part: Part) -> Tensors:
        """Read what this process keeps of a part of a checkpoint.

        Raises:
            CheckpointError: it cannot be read or does not fit the model.
        """
        found = load_part(folder, part, self._asked_on_disk)
        return {name: value for name, value in found.items() if self._of(name) in self.weights}

    def load_weights(self, folder: Path) -> None:
        """Take the weights of a checkpoint.

        Raises:
            CheckpointError: they cannot be read or do not fit the model.
        """
        left = set(self.weights)
        for piece in read_pieces(folder, "model", self._asked_on_disk):
            if piece.name in self.weights:  # what another process of a pipeline keeps is not
                piece.copy_to(self.weights[piece.name])
                left.discard(piece.name)
        if left:
            raise CheckpointError(f"{folder} lacks the tensor {min(left)}; restore its files")

    def _asked_on_disk(self, name: str, shape: Sequence[int]) -> tuple[slice, ...] | None:
        """Tell what of a tensor on disk this process keeps; None of what each process has whole.

        Raises:
            CheckpointError: the model has no tensor of that name and shape.
        """
        if self._of(name) not in self.places:
            raise CheckpointError(f"{name} {list(shape)} is not in the model of its run.json")
        place = self.place_of(name)
        if place is None:
            return None
        if list(place.shape) != list(shape):
            raise CheckpointError(
                f"{name} is {list(shape)} and {list(place.shape)} in the model of its run.json"
            )
        return place.index if self._of(name) in self.weights else NOTHING

    def _of(self, name: str) -> str:
        """Name the weight that a weight, or a moment named `<what>.<weight>`, is of."""
        return name if name in self.places else name.partition(".")[2]


def _places_of(cfg: ModelConfig, ranks: Ranks) -> dict[str, list[Place]]:
    """Tell of every weight, by name, what each holder of a copy keeps of it."""
    with torch.device("meta"):
        model = GLM(cfg)
    return {
        name: ranks.kept_by_holders(
            weight.shape, cut_dimension(name) if ranks.tensor.size > 1 else None
        )
        for name, weight in model.named_parameters()
    }
