"""Part e: the engine of several processes, joined by one alone, beside the engine of one process.

Torch's FSDP2 puts weights together, sums gradients and hands both over through the card's own
backend (NCCL), though nothing has to travel: what remains is what the wrappers cost. Both engines
begin with the same weights and do the same steps, in bfloat16 by autocast, and are then timed in
turn, a few steps each, so that a card that grows slower does so for both. The command itself never
takes this engine for one process.
"""

from __future__ import annotations

import contextlib
import functools
import re
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist

from blankfill.config.parallel import ParallelConfig
from blankfill.config.run import RunConfig
from blankfill.config.schedule import ScheduleConfig
from blankfill.config.train import TrainConfig
from blankfill.engine.engine import StepNumbers
from blankfill.engine.local import LocalEngine
from blankfill.model.glm import GLM
from blankfill.train import Trainer
from gpu_check import Settings
from gpu_check.measure import count_synchronisations, median_seconds, peak_bytes
from gpu_check.record import Record
from gpu_check.rows import row_source
from gpu_check.steps import POSITIONS, SIZES, SYNCHRONISED_STEPS, fastest_way, forget

STEPS = 20
"""Steps whose losses are compared."""
TOLERANCES = {
    "first_loss_difference": 1e-4, "loss_difference": 0.01, "norm_difference": 0.05,
    "weights_apart": 0.1,
}  # fmt: skip
"""What the engines may be apart: losses of the first step and of any (nats), gradient norms, and
the weights (both as shares). The first loss is the same arithmetic on the same weights. A norm is
summed in another order, so that clipping differs in the last bit, which the rounding of later
steps to bfloat16 magnifies: at `--quick`, 8e-4 nats and 0.2 % of the way of the weights."""
LEARNING_RATE = 3e-4
"""From the first step on, so that the losses fall."""
GOAL = 0.97
"""Of the local engine's positions a second."""
ROUNDS = 4
"""In which both are timed."""
HUNG = 3.0
"""A job that takes so many times what it needs is ended, because exchanges between processes hang
rather than fail; a quick one when the part is."""

Side = Literal["sharded", "local"]


@dataclass(frozen=True)
class Pair:
    """One line of the table: a model that both engines train."""

    size: str
    """Of SIZES."""
    length: int
    """Positions of a row."""
    needs: float
    """Seconds on a card."""
    optimizer: str = "adamw"
    """Kind of the optimizer."""
    compiled: bool = False
    """Whether blocks are compiled."""

    @property
    def name(self) -> str:
        """As it is printed."""
        how = ", muon" if self.optimizer == "muon" else ""
        return f"{self.size}, rows of {self.length:,}: sharded beside local{how}" + (
            ", compiled" if self.compiled else ""
        )


PAIRS = (
    Pair("110M", 512, 12),
    Pair("337M", 512, 24),
    Pair("110M", 512, 14, "muon"),
    Pair("110M", 512, 40, compiled=True),
)
"""Most telling first: what there is no time for is left out from the end."""
QUICK = (Pair("tiny", 128, 20), Pair("tiny", 128, 20, "muon"))


def run(settings: Settings, record: Record) -> None:
    """Compare the engines on each model."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def ranks() -> Any:  # by the first job, so that what fails there is told of it
            return stack.enter_context(joined_alone(settings.device))

        for pair in QUICK if settings.quick else PAIRS:
            if not re.search(settings.jobs, pair.name):
                continue
            if settings.left() < pair.needs and not settings.quick:
                record.add(pair.name, "left out", error="there was no time for it")
                continue
            most = settings.left() if settings.quick else HUNG * pair.needs
            record.do(pair.name, lambda pair=pair: compare(pair, settings, ranks()), most)


@contextlib.contextmanager
def joined_alone(device: str) -> Iterator[Any]:
    """Make this process the only one of a run of several, as no command does.

    Args:
        device: cuda or cpu.
    """
    from blankfill.parallel import Ranks

    place = torch.device(device, 0) if device == "cuda" else torch.device(device)
    store = dist.TCPStore("127.0.0.1", 0, world_size=1, is_master=True)
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        yield Ranks(ParallelConfig(), place)
    finally:
        dist.destroy_process_group()


def compare(pair: Pair, settings: Settings, ranks: Any) -> dict[str, Any]:
    """Train a model on both engines, and time them in turn."""
    try:
        with contextlib.ExitStack() as stack:
            return _compare(pair, settings, ranks, stack)
    finally:
        forget(settings.device)


def _compare(
    pair: Pair, settings: Settings, ranks: Any, stack: contextlib.ExitStack
) -> dict[str, Any]:
    cfg = _config(pair, settings)
    build = functools.partial(_build, cfg, pair, settings, ranks, stack)
    sharded = build("sharded", {})
    first = {name: rows.detach().to("cpu", copy=True) for name, rows in sharded.weights().items()}
    sharded.train(STEPS)
    local = build("local", first)
    local.train(STEPS)
    found = _differences(sharded, local, first)
    del first
    rounds = 1 if settings.quick else ROUNDS
    for number in range(rounds):  # the one that begins changes
        for side in (sharded, local) if number % 2 else (local, sharded):
            side.time(2 if settings.quick else 4)
    ratio = statistics.median(
        a / b for a, b in zip(local.seconds, sharded.seconds, strict=True)
    )  # fmt: skip
    sides = {side.name: side.told(settings) for side in (sharded, local)}
    return {
        **_judged(found), "rate_ratio": ratio, "goal": GOAL, "reached": ratio >= GOAL,
        "positions": cfg.train.batch_rows * pair.length, "attention": cfg.train.attention,
        "backend": dist.get_backend(), "torch": torch.__version__, **found, **sides,
    }  # fmt: skip


def _config(pair: Pair, settings: Settings) -> RunConfig:
    rows = POSITIONS[pair.size] // pair.length
    cfg = RunConfig(
        model=SIZES[pair.size],
        train=TrainConfig(
            steps=1000, row_length=pair.length, batch_rows=rows, micro_batch_rows=rows,
            attention=fastest_way(settings, pair.length),
            compile="on" if pair.compiled else "off",
        ),
        schedule=ScheduleConfig(peak_lr=LEARNING_RATE, warmup_steps=0),
    )  # fmt: skip
    return cfg.changed({"optimizer.kind": pair.optimizer})


@dataclass
class _Engine:
    """One of the two, and what it has done."""

    name: Side
    trainer: Trainer
    loader: Any
    device: str
    before: int
    """Bytes of the device's memory that were in use before it was built."""
    memory: dict[str, int] = field(default_factory=dict)
    """The most that it used in the steps that are compared, and that it holds between steps."""
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """Of a step, by round."""

    def step(self) -> object:
        """Do a step."""
        return self.trainer.step(self.loader)

    def weights(self) -> dict[str, torch.Tensor]:
        """Give the weights: at one process each keeps all rows."""
        return {
            name: value.to_local() if hasattr(value, "to_local") else value
            for name, value in self.trainer.engine.model.named_parameters()
        }

    def train(self, steps: int) -> None:
        """Do the steps that are compared; their numbers are read when all are done."""
        peak_bytes(self.device)
        seen: list[Any] = []
        compute: Callable[..., Any] = self.trainer.engine.forward_backward

        def watched(*args: Any, **more: Any) -> Any:
            seen.append(compute(*args, **more))
            return seen[-1]

        self.trainer.engine.forward_backward = watched  # type: ignore[method-assign]
        try:
            for _ in range(steps):
                self.step()
        finally:
            self.trainer.engine.forward_backward = compute  # type: ignore[method-assign]
        if self.device == "cuda":
            torch.cuda.synchronize()
            peak = peak_bytes(self.device)["peak_bytes"] - self.before
            held = torch.cuda.memory_allocated() - self.before
            self.memory = {"peak_bytes": peak, "held_bytes": held}
        read = [one if isinstance(one, StepNumbers) else one.read() for one in seen]
        self.losses = [one.loss_nats for one in read]
        self.norms = [one.grad_norm for one in read]

    def time(self, steps: int) -> None:
        """Time some steps, after one that is not."""
        found, _ = median_seconds(self.step, self.device, warm=1, least=steps, most=steps)
        self.seconds.append(found)

    def told(self, settings: Settings) -> dict[str, Any]:
        """Say what a step costs."""
        seconds = statistics.median(self.seconds)
        train = self.trainer.cfg.train
        try:
            waits = count_synchronisations(self.step, settings.device, SYNCHRONISED_STEPS)
        except RuntimeError as error:  # the times stand without it
            waits = {"error": str(error)}
        return {
            "seconds": seconds, "rounds": self.seconds, "memory": self.memory,
            "positions_per_second": train.batch_rows * train.row_length / seconds,
            "synchronisations": waits,
        }  # fmt: skip


def _build(
    cfg: RunConfig, pair: Pair, settings: Settings, ranks: Any, stack: contextlib.ExitStack,
    name: Side, weights: dict[str, torch.Tensor],
) -> _Engine:  # fmt: skip
    """Build an engine and a trainer as a run has them.

    Args:
        cfg: of the run.
        pair: what is compared.
        settings: of the whole check.
        ranks: the processes, of which there is one.
        stack: closes what is opened here.
        name: which engine.
        weights: first values of the local one, by name.
    """
    before = torch.cuda.memory_allocated() if settings.device == "cuda" else 0
    options: dict[str, Any] = {
        "dtype": torch.bfloat16, "attention": cfg.train.attention, "compiled": pair.compiled,
    }  # fmt: skip
    engine: Any
    if name == "sharded":
        from blankfill.parallel import ParallelEngine

        engine = ParallelEngine(cfg, ranks, **options)
    else:
        with torch.device(settings.device):
            model = GLM(cfg.model)
        with torch.no_grad():
            for each, parameter in model.named_parameters():
                parameter.copy_(weights[each])
        engine = LocalEngine(cfg, model, **options)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    trainer = Trainer(cfg, engine, row_source(settings, pair.length), folder)
    loader = stack.enter_context(trainer.open_loader())
    return _Engine(name, trainer, loader, settings.device, before)


@torch.no_grad()
def _differences(
    sharded: _Engine, local: _Engine, first: dict[str, torch.Tensor]
) -> dict[str, Any]:
    """Compare what both have learned; neither has done a step more.

    Returns:
        The largest differences of losses (nats) and of gradient norms (share), how far the weights
        are apart as a share of the way that they have gone, and the weights that did not move.
    """
    pairs = list(zip(sharded.losses, local.losses, strict=True))
    apart = gone = 0.0
    still: list[str] = []
    mine, others = sharded.weights(), local.weights()
    for name, value in first.items():
        began = value.to(mine[name].device)
        moved = float((mine[name] - began).double().square().sum())
        apart += float((mine[name] - others[name]).double().square().sum())
        gone += float((others[name] - began).double().square().sum())
        if moved == 0.0:
            still.append(name)
    return {
        "steps": len(pairs), "losses": [list(pair) for pair in pairs],
        "first_loss_difference": abs(pairs[0][0] - pairs[0][1]),
        "loss_difference": max(abs(a - b) for a, b in pairs),
        "norm_difference": max(
            abs(a / b - 1) for a, b in zip(sharded.norms, local.norms, strict=True)
        ),
        "weights_apart": (apart / gone) ** 0.5 if gone else float("nan"), "unmoved": still,
        "tolerances": TOLERANCES,
    }  # fmt: skip


def _judged(found: dict[str, Any]) -> dict[str, Any]:
    """Say whether both have learned the same, and what is not so."""
    wrong = [
        f"{name.replace('_', ' ')} is {found[name]:.1e}, above {most}"
        for name, most in TOLERANCES.items()
        if not found[name] <= most  # nor what is not a number
    ]
    if found["unmoved"]:
        wrong.append(f"{len(found['unmoved'])} weights did not move: {found['unmoved'][0]}")
    return {"status": "failed", "error": "; ".join(wrong)} if wrong else {"status": "passed"}
