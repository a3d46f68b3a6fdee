"""`blankfill plan`: whether a run fits, how long it takes and what it costs, by arithmetic."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from blankfill.api.parameters import PathLike, as_picture
from blankfill.config.arguments import checks_arguments
from blankfill.config.layout import LayoutConfig
from blankfill.config.model import ModelConfig
from blankfill.config.optimizer import OptimizerConfig
from blankfill.config.presets import preset as named_preset
from blankfill.config.ranges import Range
from blankfill.config.run import RunConfig, from_dict
from blankfill.config.stages import CHUNKS
from blankfill.config.train import TrainConfig
from blankfill.errors import ConfigError
from blankfill.plan.figures import PlannedLayout, describe
from blankfill.plan.hardware import Cluster, OwnFigures, find_gpu
from blankfill.plan.memory import Moments
from blankfill.plan.network import Network
from blankfill.plan.practice import BLANKFILL, BLANKFILL_FLOAT32
from blankfill.plan.search import Found, Task, search, why_nowhere
from blankfill.results import short_repr

__all__ = ["PlanConfig", "PlanResult", "plan"]

Count = Annotated[int, Range(1, 2**17)]
Figure = Annotated[float, Range(1e-3, 1e9)]
Money = Annotated[float, Range(0, 1e12)]

NOT_MODELLED: Final = (
    "failures and restarts; validation and checkpoints; reading of data; stragglers and other "
    "users of the network; cooling; packing (a row counts as one document)"
)
"""What a plan leaves out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanConfig:
    """The fields of a run that a plan depends on."""

    model: ModelConfig
    """The network."""
    train: TrainConfig
    """How long, on which batches."""
    optimizer: OptimizerConfig
    """How weights move."""
    parallel: LayoutConfig
    """The layout, as far as it is given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanResult:
    """What a run needs, and how long it takes."""

    preset: str
    """The preset's name."""
    num_parameters: int
    """Weights of the model."""
    gpu: str
    """The GPU's name."""
    gpu_source: str
    """Whose figures of it these are."""
    gpu_memory_bytes: float
    """Memory of one, as it is counted on."""
    nodes: int
    """Machines."""
    gpus_per_node: int
    """GPUs in each."""
    tokens: float
    """Positions of rows to train on."""
    batch_tokens: int
    """Positions of a step."""
    layouts: list[PlannedLayout]
    """The fastest that fit, the fastest first."""
    failing: list[PlannedLayout]
    """Faster ones that do not fit, the nearest first."""
    weights: str
    """What is put together of weights for products: bfloat16 or float32."""
    today: PlannedLayout | None
    """The fastest that can be started now; None where there is none."""
    today_refused: str | None
    """Why there is none."""
    price: float | None
    """Of one GPU for an hour."""
    budget: float | None
    """What may be spent."""
    budget_tokens: float | None
    """Positions that the fastest layout trains on for it."""
    notes: list[str]
    """What follows from the configuration."""
    not_modelled: str
    """What is left out."""
    picture: str | None
    """The file that was drawn."""

    __repr__ = short_repr


@checks_arguments
def plan(
    preset: str,
    /,
    *,
    gpu: str,
    nodes: Count,
    gpus_per_node: Count = 8,
    tokens: Annotated[float, Range(1, 1e18)] | None = None,
    price: Money | None = None,
    budget: Money | None = None,
    picture: PathLike | None = None,
    tflops: Figure | None = None,
    memory_gb: Figure | None = None,
    memory_gb_per_second: Figure | None = None,
    link_gb_per_second: Figure | None = None,
    network_gigabits: Figure | None = None,
    watts: Figure | None = None,
    config: PlanConfig | None = None,
    changes: Mapping[str, object] | None = None,
) -> PlanResult:
    """Plan a run: does it fit, how long does it take, what does it cost.

    Arithmetic alone: nothing is allocated and torch is not loaded. What of the layout is given, as
    --parallel.tensor 4, is kept; the rest is searched. Blocks are taken to be compiled; fields that
    cost neither time nor memory, such as a seed, change nothing.

    Example:
        blankfill plan glm-130b --gpu H100 --nodes 96 --tokens 400e9 --price 2

    Args:
        preset: what to train, such as glm-10b or glm-130b; every field of its model, train and
            optimizer is an option.
        gpu: the GPU by name: V100, A100-40, A100-80, A800, H100, H800, H200 or B200; or any other
            name with all of its own figures.
        nodes: machines.
        gpus_per_node: GPUs in each.
        tokens: positions of rows to train on, such as 400e9; the preset's steps where not given.
        price: of one GPU for an hour, in any currency.
        budget: what may be spent, in the same currency; tells how many tokens that is.
        picture: draw memory, time and the pipeline's passes into this .png, .svg or .pdf.
        tflops: own figure: dense bfloat16 operations a second of a GPU, in 10^12.
        memory_gb: own figure: memory of a GPU, in 10^9 bytes.
        memory_gb_per_second: own figure: its memory's bandwidth.
        link_gb_per_second: own figure: rate to the other GPUs of a machine, in one direction.
        network_gigabits: own figure: rate to other machines, in gigabits a second for each GPU.
        watts: own figure: power limit of a GPU.
        config: fields in place of the preset's, from Python.
        changes: values of fields by dotted name, such as train.batch_rows or parallel.tensor.

    Raises:
        ConfigError: a value or a layout that cannot be, a GPU without figures, or no layout fits;
            the message says by how much, and what would.
        OutputError: the picture cannot be written.
    """
    path = None if picture is None else as_picture("--picture", picture)
    if budget is not None and not price:
        raise ConfigError(f"--budget {budget:g} needs --price, the price of one GPU for an hour")
    own = OwnFigures(
        tflops=tflops, memory_gb=memory_gb, memory_gb_per_second=memory_gb_per_second,
        link_gb_per_second=link_gb_per_second, network_gigabits=network_gigabits, watts=watts,
    )  # fmt: skip
    cluster = Cluster(gpu=find_gpu(gpu, own), nodes=nodes, gpus_per_node=gpus_per_node)
    task, run = _task(preset, cluster, config, changes or {})
    wanted = tokens or float(run.train.steps * run.train.batch_rows * run.train.row_length)
    answer = search(task)
    if answer.leanest is not None:
        raise ConfigError(why_nowhere(task, answer.leanest))

    def described(found: list[Found], of: Task = task) -> list[PlannedLayout]:
        return [describe(of, each, tokens=wanted, price=price) for each in found]

    today, refused = _today(task, described)
    layouts = described(answer.fitting)
    if path is not None:
        from blankfill.plan.picture import draw_plan

        draw_plan(task, answer.fitting, layouts, path)
    return PlanResult(
        preset=preset, num_parameters=task.network.num_parameters, gpu=cluster.gpu.name,
        gpu_source=cluster.gpu.source, gpu_memory_bytes=cluster.gpu.memory_bytes, nodes=nodes,
        gpus_per_node=gpus_per_node, tokens=wanted,
        batch_tokens=run.train.batch_rows * run.train.row_length, layouts=layouts,
        failing=described(answer.failing), weights=task.wishes.weights or "bfloat16",
        today=today, today_refused=refused,
        price=price, budget=budget,
        budget_tokens=None if budget is None or not price
        else budget / (price * cluster.num_gpus) / 24 * layouts[0].tokens_per_day,
        notes=_notes(task, run), not_modelled=NOT_MODELLED,
        picture=None if path is None else str(path),
    )  # fmt: skip


def _task(
    name: str, cluster: Cluster, config: PlanConfig | None, changes: Mapping[str, object]
) -> tuple[Task, RunConfig]:
    """Settle what is planned.

    Raises:
        ConfigError: there is no such preset or field, or a value cannot be used.
    """
    run = named_preset(name)
    wishes = LayoutConfig()
    if config is not None:
        run = dataclasses.replace(
            run, model=config.model, train=config.train, optimizer=config.optimizer
        )  # fmt: skip
        wishes = config.parallel
    of_layout = {
        field.removeprefix("parallel."): value
        for field, value in changes.items()
        if field.startswith("parallel.")
    }
    wishes = from_dict(LayoutConfig, dataclasses.asdict(wishes) | of_layout, "parallel.")
    of_run = {k: v for k, v in changes.items() if not k.startswith("parallel.")}
    run = run.changed(_dividing(run.train.micro_batch_rows, changes) | of_run)
    moments = 4 if run.optimizer.kind == "muon" else 8
    average = 4 if run.optimizer.ema_decay else 0
    given = config is not None
    return Task(
        name=name, network=Network.of(run.model, run.train.row_length, run.objective),
        practice=BLANKFILL_FLOAT32 if wishes.weights == "float32" else BLANKFILL, cluster=cluster,
        train=run.train, wishes=wishes,
        recompute=run.train.recompute if given or "train.recompute" in changes else None,
        moments=Moments(matrices=moments + average, others=8 + average),
        micro_batch_rows=run.train.micro_batch_rows
        if given or "train.micro_batch_rows" in changes
        else None,
    ), run  # fmt: skip


def _dividing(micro_batch_rows: int, changes: Mapping[str, object]) -> dict[str, object]:
    """Make the preset's micro-batch, which is searched in any case, divide rows that are given."""
    given = [changes.get(f"train.{name}") for name in ("batch_rows", "ramp_from_rows")]
    rows = [each for each in given if isinstance(each, int) and each > 0]
    return {"train.micro_batch_rows": math.gcd(micro_batch_rows, *rows)} if rows else {}


def _today(
    task: Task, described: Callable[[list[Found], Task], list[PlannedLayout]]
) -> tuple[PlannedLayout | None, str | None]:
    """Plan what can be started: a run's ranks have two stages each under interleaved, not more.

    Returns:
        The fastest such layout; or why there is none.
    """
    of_today = dataclasses.replace(task, most_chunks=CHUNKS["interleaved"])
    try:
        answer = search(of_today)
    except ConfigError as error:
        return None, f"none is possible: {error}"
    if answer.leanest is not None:
        needed = answer.leanest.total / 1e9
        return None, f"none of them fits: the leanest needs {needed:,.1f} GB of each GPU"
    return described(answer.fitting[:1], of_today)[0], None


def _notes(task: Task, run: RunConfig) -> list[str]:
    """Say what follows from the configuration."""
    notes: list[str] = []
    if task.network.attention_dropout:
        rate = run.model.attention_dropout_rate
        notes.append(
            f"dropout {rate:g} on attention weights rules out fused attention: scores pass through "
            "memory; --model.attention-dropout 0 is faster and smaller"
        )
    if run.optimizer.kind == "muon":
        notes.append("Muon makes each matrix whole on one rank for a moment, which is not counted")
    if run.train.ramp_rows:
        notes.append(
            f"the batch grows from {run.train.ramp_from_rows:,} to {run.train.batch_rows:,} rows "
            f"over {run.train.ramp_rows:,}: days count that, seconds a step are of full batches"
        )
    return notes
