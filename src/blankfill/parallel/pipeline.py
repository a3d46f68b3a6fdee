"""A model in stages, in several processes; and the embedding that two of them have.

`Pipeline` is what a process has of such a model. Asked as a model is, it passes hidden states from
stage to stage and tells all processes of the pipeline what comes out of the last; a step of
training goes by a schedule (`schedule.py`).

A tied embedding is needed before the first block and after the last, so the last stage has a copy.
Both get the sum of their gradients and move by it alike, bit for bit; where one process has both
stages, one moves and the other takes its values.

Shapes: B rows, T positions, D hidden, V vocabulary, n targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn

from blankfill.config.model import ModelConfig
from blankfill.config.stages import CHUNKS, Schedule, stages_of
from blankfill.model.cache import Cache
from blankfill.model.dropout import Draws
from blankfill.model.glm import GLM
from blankfill.model.loss import Loss
from blankfill.model.masks import Mask
from blankfill.model.targets import Targets
from blankfill.parallel.places import own
from blankfill.parallel.stage import Stage

__all__ = ["WORDS", "Pipeline", "TiedEmbedding", "take_part"]

WORDS = "embed.word.weight"
"""Name of the word embedding, and of the last stage's copy of it."""


def take_part(model: GLM, first: int, end: int) -> GLM:
    """Leave of a model the blocks from `first` on and before `end`, in place; names stay.

    Args:
        model: on the meta device.
        first: number of the first block.
        end: of the first one that is left out again.
    """
    for name in list(model.blocks):
        if not first <= int(name) < end:
            del model.blocks[name]
    if first:
        words = model.head_weight
        model.embed = None
        if end == model.cfg.num_layers and model.cfg.tie_head:
            cast("nn.Module", model.head).weight = nn.Parameter(torch.empty_like(words))
    if end < model.cfg.num_layers:
        model.norm = model.head = None
    return model


class Pipeline(GLM):
    """What a process has of a model in stages; called by all processes of the pipeline alike.

    Args:
        cfg: the network.
        stages: of this process, by number.
        schedule: by which stages are dealt to processes.
        group: the processes of the pipeline.
    """

    def __init__(
        self, cfg: ModelConfig, stages: Mapping[int, Stage], schedule: Schedule, group: Any
    ) -> None:
        nn.Module.__init__(self)
        self.cfg = cfg
        self.embed = self.norm = self.head = None
        self.blocks = nn.ModuleDict()
        self.stages = nn.ModuleDict({str(index): stage for index, stage in stages.items()})
        self.of_index = dict(stages)
        """The stages by their number."""
        self._group = group
        size = dist.get_world_size(group)
        self.count = size * CHUNKS[schedule]
        """Of all stages."""
        self._owners = {
            index: rank
            for rank in range(size)
            for index in stages_of(schedule, size, rank, CHUNKS[schedule])
        }
        any_stage = next(iter(stages.values()))
        self._dtype = any_stage.dtype

    @property
    def last_owner(self) -> int:
        """Rank in the pipeline of the process that has the last stage."""
        return self._owners[self.count - 1]

    def named_weights(self) -> dict[str, nn.Parameter]:
        """Give this process's weights by the names that they have in the whole model.

        The copy of a tied embedding has the embedding's; where the embedding is here as well, that
        one alone is given.
        """
        found: dict[str, nn.Parameter] = {}
        for _, stage in sorted(self.of_index.items()):
            for name, weight in stage.part.named_parameters():
                is_copy = name == "head.weight" and self.cfg.tie_head
                found.setdefault(WORDS if is_copy else name, weight)
        return found

    def forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, mask: Mask | None,
        cache: Cache | None = None, *, targets: Targets | None = None, z_loss: float = 0.0,
        shrink: float | None = None, draws: Draws | None = None,
    ) -> torch.Tensor | Loss:  # fmt: skip
        """Compute what the whole model gives, without a gradient; arguments as the model's."""
        x: Any = tokens
        for index in range(self.count):
            stage = self.of_index.get(index)
            if stage is not None:
                x = stage(x, positions, mask, cache, targets=targets, z_loss=z_loss,
                          shrink=shrink, draws=draws)  # fmt: skip
            x = self._pass_on(x, index, (*tokens.shape, self.cfg.hidden_size), tokens.device)
        if targets is None:
            return self._tell(x, (*tokens.shape, self.cfg.hidden_size), self._dtype, tokens.device)
        flat = torch.cat([x.total.view(1), x.nats]) if isinstance(x, Loss) else None
        told = self._tell(flat, (1 + len(targets.ids),), self.wide, tokens.device)
        return Loss(told[0], told[1:])

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Score every token of the vocabulary: `[..., D]` to `[..., V]`."""
        stage = self.of_index.get(self.count - 1)
        made = None if stage is None else stage.part.logits(hidden)
        shape = (*hidden.shape[:-1], self.cfg.vocab_size)
        return self._tell(made, shape, self.wide, hidden.device)

    @property
    def wide(self) -> torch.dtype:
        """Of losses and scores that travel."""
        return torch.float64 if self._dtype == torch.float64 else torch.float32

    def _pass_on(
        self, x: torch.Tensor, index: int, shape: tuple[int, ...], device: torch.device
    ) -> torch.Tensor:
        """Send hidden states to the process of the stage after, or receive them there."""
        if index + 1 == self.count:
            return x
        source, target = self._owners[index], self._owners[index + 1]
        here = dist.get_rank(self._group)
        if source == target or here not in (source, target):
            return x
        if here == source:
            dist.send(x.contiguous(), group=self._group, group_dst=target)
            return x
        received = torch.empty(shape, dtype=self._dtype, device=device)
        dist.recv(received, group=self._group, group_src=source)
        return received

    def _tell(
        self, made: torch.Tensor | None, shape: tuple[int, ...], dtype: torch.dtype,
        device: torch.device,
    ) -> torch.Tensor:  # fmt: skip
        """Tell all processes of the pipeline what the last stage has."""
        if dist.get_rank(self._group) == self.last_owner and made is not None:
            told = made.to(dtype).contiguous()
        else:
            told = torch.empty(shape, dtype=dtype, device=device)
        dist.broadcast(told, group=self._group, group_src=self.last_owner)
        return told


class TiedEmbedding:
    """The two copies of a tied embedding, seen from a process that may have either, both or none.

    Args:
        model: what this process has of the model.
        group: the processes of the pipeline.
    """

    def __init__(self, model: Pipeline, group: Any) -> None:
        first, last = model.of_index.get(0), model.of_index.get(model.count - 1)
        tied = model.cfg.tie_head
        embed, head = first and first.part.embed, last and last.part.head
        self._first = embed.word.weight if tied and embed is not None else None
        self._last = head.weight if tied and head is not None else None
        self._group, self._owner_of_last = group, model.last_owner

    @property
    def num_movers(self) -> int:
        """Processes of the pipeline that keep and move the embedding's weights."""
        return 1 if self._owner_of_last == 0 else 2

    @torch.no_grad()
    def sum_gradients(self, share: float) -> None:
        """Give each copy that moves the sum of both gradients.

        Args:
            share: of the output layer's gradient that reaches the embedding.
        """
        if self._last is not None and self._last.grad is not None:
            own(self._last.grad).mul_(share)
        if self._first is not None and self._last is not None:
            assert self._first.grad is not None
            assert self._last.grad is not None
            own(self._first.grad).add_(own(self._last.grad))
            self._last.grad = None  # it follows
            return
        mine = self._first if self._first is not None else self._last
        if mine is None:
            return
        assert mine.grad is not None
        rows = own(mine.grad)
        if rows.numel():
            other = self._owner_of_last if mine is self._first else 0
            received = torch.empty_like(rows)
            passed = [
                dist.P2POp(do, tensor, group=self._group, group_peer=other)
                for do, tensor in ((dist.isend, rows), (dist.irecv, received))
            ]
            for work in dist.batch_isend_irecv(passed):
                work.wait()
            rows.add_(received)  # the same bits in both: a sum of two has no order

    @torch.no_grad()
    def follow(self) -> None:
        """Take the values of the copy that moves, where both are here."""
        if self._first is not None and self._last is not None:
            own(self._last).copy_(own(self._first))
