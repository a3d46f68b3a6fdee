"""The engine of several processes: the same methods as the local one, and the same numbers.

Each process, or each group of them that compute a block together, reads rows of its own; each keeps
a part of every tensor. Torch's FSDP2 puts a block's weights together and sums gradients; what is
decided (norm, clipping, verdicts, the loss scale)
follows from numbers that were summed over all processes, so that all decide alike.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from blankfill.config.run import RunConfig
from blankfill.config.train import AttentionKind
from blankfill.engine.compiled import mark_varying
from blankfill.engine.device import choose_attention, choose_precision, update_precision
from blankfill.engine.engine import Portion, StepNumbers, UnreadNumbers, misfit
from blankfill.engine.gradient import (
    draws_by_row,
    lend,
    lost_to_scale,
    move_average,
)
from blankfill.engine.local import must_read_each_step
from blankfill.engine.transfer import TensorBatch, to_tensors
from blankfill.errors import CheckpointError
from blankfill.model.glm import GLM
from blankfill.objective.batch import Batch
from blankfill.optim import LossScaler, build_optimizer_of, matrices_of, shrink_at
from blankfill.parallel.deal import deal, first_rows, weigh_first_rows
from blankfill.parallel.kept import Kept
from blankfill.parallel.layout import draw_weights, lay_out
from blankfill.parallel.muon import OwnedMatrices
from blankfill.parallel.ranks import Ranks
from blankfill.parallel.save import save_together
from blankfill.parallel.stage import Passes
from blankfill.parallel.tensor import sum_over_group
from blankfill.parallel.unsound import ReturningGradients, bad_weights
from blankfill.runs import Checkpoint, Part
from blankfill.runs.save import NewCheckpoint

__all__ = ["ParallelEngine"]

T = TypeVar("T")
Tensors = dict[str, torch.Tensor]


class ParallelEngine:
    """The engine of one of several processes.

    The model is built without values. Every tensor's first values are drawn by one process, each in
    its turn, and sent to those that keep parts of them: they are those of one process, bit for bit,
    all draw about equally much, and memory holds one layer's part of them at a time.

    Args:
        cfg: the run.
        ranks: the processes.
        dtype: of matrix products; what `train.precision` comes to unmeasured where not given.
        attention: how attention is computed; what `train.attention` comes to unmeasured where not
            given.
        compiled: whether the blocks are compiled.
        weights: type of the weights, and of the sums of gradients.
        reads_each_step: whether each step waits for its loss and gradient norm; what the device,
            the loss scale and the guard come to where not given (`must_read_each_step`).

    Raises:
        ConfigError: the device does not have that precision or attention.
    """

    def __init__(
        self,
        cfg: RunConfig,
        ranks: Ranks,
        *,
        dtype: torch.dtype | None = None,
        attention: AttentionKind | None = None,
        compiled: bool = False,
        weights: torch.dtype = torch.float32,
        reads_each_step: bool | None = None,
    ) -> None:
        train = cfg.train
        self.device, self.compiled = ranks.device, compiled
        self.dtype = dtype or choose_precision(cfg.precision, self.device)
        self.attention: AttentionKind = attention or choose_attention(
            train.attention, self.device.type, self.dtype, dropout=cfg.model.attention_dropout_rate
        )
        self._cfg, self._ranks = cfg, ranks
        # What is narrow needs no cast.
        self._autocast = torch.float32 if cfg.parallel.weights == "bfloat16" else self.dtype
        self._way = lay_out(
            cfg, ranks, weights, compiled=compiled, one_graph=self.attention != "flex"
        )
        self.model = self._way.model
        self._kept = kept = Kept(self._way.weights, cfg.model, ranks, self._way.twice)
        draw_weights(cfg.model, kept.weights, kept.places, train.seed, ranks)
        self._way.follow()
        named = list(kept.weights.items())
        places = [kept.places[name] for name, _ in matrices_of(named)]
        self.optimizer = build_optimizer_of(
            named, cfg.optimizer, lr=cfg.schedule.peak_lr,
            muon_dtype=update_precision(self.device, weights),
            orthogonalizer=OwnedMatrices(places, ranks),
        )  # fmt: skip
        self.scaler = LossScaler(train.loss_scale_window) if self.dtype == torch.float16 else None
        self.ema = self._kept.copies() if cfg.optimizer.ema_decay else {}
        self._norm: torch.Tensor | None = None
        self._spoiled: torch.Tensor | None = None
        self._returning = ReturningGradients(self._way.embed)
        self.reads_each_step = (
            must_read_each_step(cfg, self.device, self.dtype)
            if reads_each_step is None
            else reads_each_step
        )
        self.model.train()

    # -- what all processes know alike ------------------------------------------------------------

    @property
    def processes(self) -> Ranks:
        """The processes of the run, of which this is one."""
        return self._ranks

    @property
    def leads(self) -> bool:
        """Whether this process writes the run's files and speaks for it."""
        return self._ranks.leads

    def once(self, decide: Callable[[], T]) -> T:
        """Let the leading process find something out, and tell it to all."""
        return self._ranks.once(decide)

    def gather(self, items: Sequence[T]) -> list[T]:
        """Give all processes what each of them has, in the order of their rows; of those that have
        the same rows, one."""
        return self._ranks.gather(items if self._ranks.speaks_for_rows else [])

    def has_largest(self, value: float) -> bool:
        """Tell whether a number is the largest of those that the processes give; it is so in one
        process, which speaks for those that have its rows."""
        of_all = self._ranks.gather([math.inf if math.isnan(value) else value])
        largest = of_all.index(max(of_all))
        return self._ranks.speaks_for_rows and self._ranks.reader_of(largest) == self._ranks.reader

    def sum_over_data(self, values: Sequence[float]) -> list[float]:
        """Add up what processes have of some numbers; of those that have the same rows, one."""
        return self._ranks.sum(values if self._ranks.speaks_for_rows else [0.0] * len(values))

    def any_of(self, flags: Sequence[bool]) -> list[bool]:
        """Tell of each of some things whether it is so in any process."""
        return [total > 0 for total in self._ranks.sum(flags)]

    # -- one step ---------------------------------------------------------------------------------

    def deal(self, first: int, num_rows: int) -> list[Portion]:
        """Give this process's micro-batches of a step."""
        return deal(
            first, num_rows, micro_batch_rows=self._cfg.train.micro_batch_rows,
            rank=self._ranks.reader, count=self._ranks.num_readers,
        )  # fmt: skip

    def transfer(self, batch: Batch, part: Portion) -> TensorBatch:
        """Copy a batch to the device; rows that do not count get weight 0."""
        made = to_tensors(weigh_first_rows(batch, part.num_rows), self.attention, self.device)
        return replace(made, source=first_rows(batch, part.num_rows), first_row=part.first)

    def forward_backward(
        self, batches: Sequence[TensorBatch], total_weight: float, *, step: int
    ) -> StepNumbers | UnreadNumbers:
        """Compute the gradient of a step, and wait for its numbers once, if they are read."""
        train = self._cfg.train
        self._ranks.begin_step(step)
        self._returning.forget()
        share = self._cfg.model.embedding_gradient_shrink
        if self.compiled:
            for batch in batches:
                mark_varying(batch.mask, batch.targets.index)
        losses, of_targets = self._way.compute(
            Passes(
                batches=batches, dtype=self._autocast, total_weight=total_weight,
                z_loss=train.z_loss, shrink=shrink_at(step, share, self._cfg.schedule),
                scale=self.scaler.scale if self.scaler else None,
                draws=draws_by_row(
                    self._cfg, step, self._ranks.tensor.rank, self._ranks.tensor.size
                ),
                begun=functools.partial(self._ranks.mark, in_step=True),
            )
        )  # fmt: skip
        sum_over_group(self._kept.gradients(cut=False), self._ranks.tensor)
        loss = torch.stack(losses).double().sum()
        loss, square = self._ranks.sum_on_device(
            torch.stack([
                loss if self._ranks.speaks_for_rows else torch.zeros_like(loss),
                self._kept.share_of_square(),
            ])
        )  # fmt: skip
        self._norm = square.sqrt()
        pairs = zip(of_targets, batches, strict=True)
        numbers = UnreadNumbers(
            norm=self._norm, losses=losses, loss_of_all=loss,
            nlls=[nll[: batch.source.num_targets] for nll, batch in pairs],
            own_gradients_are_finite=self._returning.are_finite,
        )  # fmt: skip
        if not self.reads_each_step:
            self._spoiled = numbers.is_spoiled()
            return numbers
        found = numbers.read()
        overflowed = lost_to_scale(self.scaler, found.loss_nats, found.grad_norm)
        return replace(found, overflowed=overflowed)

    def clip(self, max_norm: float) -> None:
        """Scale the gradient down to a global norm of at most this; 0 leaves it as it is."""
        assert self._norm is not None, "there is no gradient to clip"
        share = ((max_norm or math.inf) / (self._norm + 1e-6)).clamp(max=1.0)  # as torch clips
        if gradients := self._kept.gradients():  # in one launch on a GPU, which wants one type
            torch._foreach_mul_(gradients, share.to(gradients[0].dtype))  # pyright: ignore[reportPrivateUsage] - as torch's own clipping

    def step(self, lr: float) -> None:
        """Move the weights, and their average where one is kept; drop the gradient."""
        self._kept.hand_on_gradients()
        self.optimizer.set_lr(lr)
        spoiled = self._spoiled
        self.optimizer.step(spoiled)
        self._way.follow()
        self.drop_gradient()
        move_average(self.ema, self._kept.weights, self._cfg.optimizer.ema_decay, unless=spoiled)

    def drop_gradient(self) -> None:
        """Forget the gradient of a step that is not applied."""
        self.optimizer.zero_grad()
        self.model.zero_grad(set_to_none=True)
        self._norm = self._spoiled = None
        self._ranks.mark(in_step=False)

    # -- what is asked between steps --------------------------------------------------------------

    def bad_weights(self) -> list[str]:
        """Name the weights that are not finite, with how many of their values, and the processes
        that keep them."""
        return bad_weights(self._kept.weights, self._kept.here, self._ranks)

    def gradient_norms(self) -> dict[str, float]:
        """Give the gradient norm of each layer; none after the update."""
        return self._kept.gradient_norms()

    @contextmanager
    def evaluation(self) -> Generator[GLM]:
        """Lend the model in evaluation mode, uncompiled; training mode comes back.

        Every process has to call it alike: a block's weights are put together for each call.
        """
        self._ranks.pause()
        with lend(self.model, compiled=self.compiled) as model:
            yield model
        self._way.rest()

    def metrics(self) -> dict[str, float]:
        """Give the loss scale of float16, and the step time by process."""
        scale = {} if self.scaler is None else {"loss_scale": self.scaler.scale}
        return scale | self._ranks.step_times()

    # -- state ------------------------------------------------------------------------------------

    def tensors(self) -> dict[Part, Tensors]:
        """Give what this process keeps of the tensors of a checkpoint."""
        self._ranks.pause()
        weights = {name: part.detach() for name, part in self._kept.weights.items()}
        return {"model": weights, "optimizer": self.optimizer.tensors(), "ema": self.ema}

    def write(self, new: NewCheckpoint, parts: dict[Part, Tensors]) -> None:
        """Write what `tensors` gave, or a copy of it, as a checkpoint; may run on a thread.

        Each process writes what it keeps, and the leading one commits.

        Raises:
            CheckpointError: a disk does not take it, in all processes; older checkpoints are
                untouched.
        """
        save_together(new, parts, self._kept.place_of, self._ranks)

    @property
    def kept(self) -> Kept:
        """What this process keeps of the weights."""
        return self._kept

    def loss_scale(self) -> tuple[float, ...] | None:
        """Give the state of the loss scale of float16, for a checkpoint."""
        return None if self.scaler is None else self.scaler.state()

    def load(self, checkpoint: Checkpoint) -> None:
        """Take up what `tensors` and `loss_scale` gave, on whatever layout: each process reads its
        own rows.

        Raises:
            CheckpointError: the checkpoint does not fit the model.
        """
        folder = checkpoint.path
        self._kept.load_weights(folder)
        self._way.follow()
        try:
            self.optimizer.load(self._kept.read(folder, "optimizer"))
        except CheckpointError as error:
            raise misfit(folder, error) from error
        if self.ema and checkpoint.holds("ema"):
            average = self._kept.read(folder, "ema")
            self.ema = {name: value.to(self.device) for name, value in average.items()}
        elif self.ema:
            self.ema = self._kept.copies()
        training = checkpoint.state.training
        if self.scaler is not None and training is not None and training.loss_scale is not None:
            self.scaler.load(training.loss_scale)

    def load_weights(self, folder: Path) -> None:
        """Start from the weights in a checkpoint's folder, with everything else fresh.

        Raises:
            CheckpointError: a file cannot be read or does not fit the model.
        """
        self._kept.load_weights(folder)
        self._way.follow()
        self.ema = self._kept.copies() if self.ema else {}

    def take_whole(self, name: str, values: torch.Tensor) -> None:
        """Give a weight other first values, of which this process keeps its part."""
        self._kept.take_whole(name, values)
        self._way.follow()
        self.ema = self._kept.copies() if self.ema else {}
