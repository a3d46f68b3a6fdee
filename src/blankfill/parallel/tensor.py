"""Blocks that several processes compute together (tensor and sequence parallelism).

Each has some of the heads, of the feed-forward units and of the vocabulary: rows of Q, K, V, of the
feed-forward layer's inner halves, of the embedding and of the head; columns of what leads back, the
attention's output and `down`. Their results are parts of a sum. Between the products, where norms,
dropout and residuals are, each has some positions of every row. So a block sends what blocks cut by
heads alone would send, and keeps only its share of everything (Shoeybi et al. 2019; Korthikanti et
al. 2022, section 4.2.2).

The last block keeps all positions in every process, since it goes on with those alone that have a
target, and so does a model that is asked and not trained: its texts have any length. There, and for
whatever else all processes have alike, gradients are parts of a sum (`exchange.py`). Hence one rule
for all weights that are not cut (norms, learned positions, and the biases of what leads back, which
are added after the sum): their gradient is the sum over the processes.

The model is changed from outside, before it is compiled or laid out: cut matrices, two modules that
sum over the processes, and hooks where positions are put together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
import torch.distributed as dist
from torch import nn

from blankfill.model.block import Block
from blankfill.model.glm import GLM
from blankfill.model.linear import Linear, product
from blankfill.parallel.exchange import gather, share, total

__all__ = ["TensorGroup", "cut_dimension", "cut_model", "sum_over_group"]

BY_ROWS: Final = ("q", "k", "v", "up", "gate")
"""Layers whose results are heads or units."""
BY_COLUMNS: Final = ("out", "down")
"""Layers that lead from them back to the residual stream."""
Arguments = tuple[Any, ...]


def cut_dimension(name: str) -> int | None:
    """Tell along which dimension a weight is cut; None of one that each process has whole."""
    if name in ("embed.word.weight", "head.weight"):
        return 0
    *_, layer, what = name.split(".")
    if layer in BY_ROWS:
        return 0
    return 1 if layer in BY_COLUMNS and what == "weight" else None


@dataclass(frozen=True, slots=True, eq=False)
class TensorGroup:
    """The processes that compute a block together, seen from one of them."""

    group: Any
    """Of torch."""
    rank: int
    """Which one this is."""
    size: int
    """How many they are."""

    @property
    def name(self) -> str:
        """What operators call the group by."""
        return self.group.group_name

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        """Put positions together."""
        return gather(x, self.size, self.name)

    def share(self, x: torch.Tensor) -> torch.Tensor:
        """Sum over the processes, and keep some positions."""
        return share(x, self.size, self.name)

    def total(self, x: torch.Tensor) -> torch.Tensor:
        """Sum over the processes."""
        return total(x, self.size, self.name)


@dataclass(frozen=True, slots=True, eq=False)
class _Vocabulary:
    """The tokens that this process scores (`model.loss.VocabularyPart`)."""

    tensor: TensorGroup
    """The processes."""
    first: int
    """Id of the first of them."""

    def largest_(self, x: torch.Tensor) -> torch.Tensor:
        dist.all_reduce(x, dist.ReduceOp.MAX, group=self.tensor.group)
        return x

    def total_(self, x: torch.Tensor) -> torch.Tensor:
        dist.all_reduce(x, group=self.tensor.group)
        return x

    def joined(self, scores: torch.Tensor) -> torch.Tensor:
        whole = self.tensor.gather(scores.reshape(-1, scores.shape[-1]))
        return whole.view(*scores.shape[:-1], -1)


class _Lookup(nn.Module):
    """Looks words up of which this process has some rows; the others add theirs."""

    def __init__(self, table: nn.Embedding, tensor: TensorGroup) -> None:
        super().__init__()
        self.weight, self._tensor = table.weight, tensor

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map `[B, T]` to `[B, T, D]`, or to this process's positions of it."""
        rows = len(self.weight)
        at = tokens - self._tensor.rank * rows
        is_here = (at >= 0) & (at < rows)
        found = nn.functional.embedding(torch.where(is_here, at, 0), self.weight)
        found = found * is_here[..., None]
        return self._tensor.share(found) if self.training else self._tensor.total(found)


class _Back(nn.Module):
    """Leads back to the residual stream: a product with some columns, and a sum over processes."""

    def __init__(self, layer: nn.Linear, tensor: TensorGroup, *, shares: bool) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self._tensor, self._shares = tensor, shares

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `[B, T, F]` to `[B, p, D]` of this process's positions, or any positions to all."""
        part = product(x, self.weight)
        summed = self._tensor.share if self._shares and self.training else self._tensor.total
        return summed(part) + self.bias


def cut_model(model: GLM, tensor: TensorGroup) -> None:
    """Leave this process's part of a model, in place; names stay.

    Args:
        model: on the meta device. Heads, feed-forward units, vocabulary, and the positions of the
            rows that it is trained on can be cut into equal parts.
        tensor: the processes.
    """
    for name, weight in list(model.named_parameters()):
        cut = cut_dimension(name)
        if cut is not None:
            path, _, leaf = name.rpartition(".")
            part = weight.detach().chunk(tensor.size, dim=cut)[tensor.rank].clone()
            model.get_submodule(path).register_parameter(leaf, nn.Parameter(part))
    blocks = list(model.blocks.values())
    for block in blocks:
        _cut_block(cast("Block", block), tensor, shares=block is not blocks[-1] or not model.head)
    if model.embed is not None:
        embed = model.embed
        embed.word = cast("nn.Embedding", _Lookup(embed.word, tensor))
        for table in (embed.position, embed.block_position):
            if table is not None:
                table.register_forward_pre_hook(_in_training(_own_positions(tensor)))
    if model.head is not None:
        if blocks:
            blocks[-1].register_forward_pre_hook(_in_training(tensor.gather))
        model.head.part = _Vocabulary(tensor, tensor.rank * (model.cfg.vocab_size // tensor.size))


def sum_over_group(gradients: Sequence[torch.Tensor], tensor: TensorGroup) -> None:
    """Sum gradients of which each process has a part, in place and at once."""
    if tensor.size == 1 or not gradients:
        return
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat, group=tensor.group)
    sizes = [gradient.numel() for gradient in gradients]
    for gradient, summed in zip(gradients, flat.split(sizes), strict=True):
        gradient.copy_(summed.view_as(gradient))


def _cut_block(block: Block, tensor: TensorGroup, *, shares: bool) -> None:
    """Let a block sum over the processes; and share out positions between its products."""
    attention, mlp = block.attention, block.mlp
    attention.out = cast("Linear", _Back(attention.out, tensor, shares=shares))
    mlp.down = cast("Linear", _Back(mlp.down, tensor, shares=shares))
    if shares:
        for layer in (attention, mlp):
            layer.register_forward_pre_hook(_in_training(tensor.gather))


def _own_positions(tensor: TensorGroup) -> Callable[[torch.Tensor], torch.Tensor]:
    """Give what takes this process's positions of `[B, T]`."""
    return lambda x: x.chunk(tensor.size, dim=1)[tensor.rank]


def _in_training(
    change: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[nn.Module, Arguments], Arguments | None]:
    """Give a hook that changes a module's first argument in training alone."""

    def hook(module: nn.Module, args: Arguments) -> Arguments | None:
        return (change(args[0]), *args[1:]) if module.training else None

    return hook
