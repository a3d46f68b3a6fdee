"""How the passes of a step are done: one after the other through the whole model, or in stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule

from blankfill.config.model import ModelConfig
from blankfill.config.stages import Schedule
from blankfill.engine.gradient import divide_gradients, forward_backward, require_targets
from blankfill.engine.transfer import TensorBatch
from blankfill.model.glm import GLM
from blankfill.parallel.pipeline import WORDS, Pipeline, TiedEmbedding
from blankfill.parallel.ranks import Ranks
from blankfill.parallel.schedule import Timetable
from blankfill.parallel.stage import Passes, Stage

__all__ = ["InStages", "InTurn", "Way"]

Found = tuple[list[torch.Tensor], list[torch.Tensor]]
"""Of each micro-batch its part of the loss in nats, and `[n]` nats of its targets."""


class Way(Protocol):
    """A way to do the passes of a step."""

    @property
    def model(self) -> GLM:
        """What this process has of the model, laid out."""
        ...

    @property
    def weights(self) -> Mapping[str, nn.Parameter]:
        """What this process moves of it, by the names of the whole model."""
        ...

    @property
    def twice(self) -> frozenset[str]:
        """Weights that two processes of a pipeline keep and move alike."""
        ...

    @property
    def embed(self) -> nn.Module | None:
        """The part whose result is the first hidden state; None where another process has it."""
        ...

    def compute(self, passes: Passes) -> Found:
        """Leave the gradient of a step in the weights; what it gives, all processes know that
        compute the same rows.

        Raises:
            DataError: the step has no targets.
        """
        ...

    def follow(self) -> None:
        """Do what is due when weights have got other values."""
        ...

    def rest(self) -> None:
        """Drop whole weights after calls outside of a step."""
        ...


class InTurn:
    """Every process has the whole model, or its part of every block.

    Args:
        model: laid out.
    """

    def __init__(self, model: GLM) -> None:
        self.model, self.weights = model, dict(model.named_parameters())
        self.embed: nn.Module | None = model.embed
        self.twice: frozenset[str] = frozenset()

    def compute(self, passes: Passes) -> Found:
        """Do one pass after the other."""
        return forward_backward(
            self.model, self._in_turn(passes), passes.dtype, passes.total_weight,
            z_loss=passes.z_loss, shrink=passes.shrink, scale=passes.scale, draws=passes.draws,
        )  # fmt: skip

    def _in_turn(self, passes: Passes) -> Iterator[TensorBatch]:
        """Give micro-batches; before the last, say that copies are to sum their gradients now."""
        batches = passes.batches
        for left, batch in zip(reversed(range(len(batches))), batches, strict=True):
            cast("FSDPModule", self.model).set_requires_all_reduce(left == 0)
            passes.begun()
            yield batch

    def follow(self) -> None:
        """Do nothing: every weight is moved."""

    def rest(self) -> None:
        """Drop the root's weights; blocks have dropped theirs."""
        cast("FSDPModule", self.model).reshard()


class InStages:
    """Every process of a pipeline has some blocks, in one stage or two.

    Args:
        cfg: the network.
        stages: of this process, by number, laid out.
        schedule: the order of passes.
        ranks: the processes.
        in_halves: whether backward passes can be done in two halves.
    """

    def __init__(
        self, cfg: ModelConfig, stages: dict[int, Stage], schedule: Schedule, ranks: Ranks, *,
        in_halves: bool,
    ) -> None:  # fmt: skip
        self.model = self._pipeline = Pipeline(cfg, stages, schedule, ranks.pipeline)
        self.weights = self.model.named_weights()
        self.embed: nn.Module | None = stages[0].part.embed if 0 in stages else None
        self._tied = TiedEmbedding(self.model, ranks.pipeline)
        self.twice = frozenset({WORDS}) if cfg.tie_head and self._tied.num_movers == 2 else (
            frozenset[str]()
        )  # fmt: skip
        self._ranks = ranks
        self._timetable = Timetable(
            schedule, stages, self.model.count, ranks.pipeline, ranks.device,
            width=cfg.hidden_size, in_halves=in_halves,
        )  # fmt: skip

    def compute(self, passes: Passes) -> Found:
        """Do the passes by the schedule, and tell all processes what the last stage has found."""
        require_targets(passes.total_weight)
        length = passes.batches[0].tokens.shape[1]
        self._timetable.run(passes, length // self._ranks.tensor.size)
        if passes.scale is not None:
            divide_gradients(self.model, passes.scale)
        cfg = self._pipeline.cfg
        self._tied.sum_gradients(passes.shrink if cfg.shrink_head else 1.0)
        return self._tell(passes)

    def follow(self) -> None:
        """Let the copy of a tied embedding that is not moved take its values."""
        self._tied.follow()

    def rest(self) -> None:
        """Drop whole weights."""
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def _tell(self, passes: Passes) -> Found:
        """Tell all processes of the pipeline the losses that the last stage has found."""
        counts = [len(batch.targets.ids) for batch in passes.batches]
        dtype, device = self._pipeline.wide, self._ranks.device
        flat = torch.empty(len(counts) + sum(counts), dtype=dtype, device=device)
        if passes.found:
            of_each = [passes.found[number] for number in range(len(counts))]
            torch.cat(
                [torch.stack([loss.total for loss in of_each]), *(loss.nats for loss in of_each)],
                out=flat,
            )
        dist.broadcast(flat, group=self._ranks.pipeline, group_src=self._pipeline.last_owner)
        losses, *nlls = flat.split([len(counts), *counts])
        return list(losses.unbind()), nlls
