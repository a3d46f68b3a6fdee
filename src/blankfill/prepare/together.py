"""What several processes of a run settle together before it begins, and the engine of each.

What is found by measurement on one process is not measured here: `auto` is the lowest precision and
the first way of attention that the leading process's device has, and blocks are not compiled; a run
that is resumed keeps what it had.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from blankfill import __version__
from blankfill.config.run import to_dict
from blankfill.config.train import AttentionKind
from blankfill.engine.device import choose_attention, choose_precision
from blankfill.errors import BlankfillError, ConfigError
from blankfill.model.glm import GLM
from blankfill.model.init import first_values
from blankfill.prepare.plan import Plan
from blankfill.prepare.start import embedding_begins_from_text, first_embedding
from blankfill.processes import Processes, this_place
from blankfill.runs import Checkpoint
from blankfill.runtime import available_cores, set_threads

if TYPE_CHECKING:
    from blankfill.parallel import ParallelEngine, Ranks

__all__ = ["build_parallel_engine", "plan_together"]

WORD_EMBEDDING = "embed.word.weight"


def plan_together(processes: Processes, plan: Callable[[], Plan]) -> Plan:
    """Let every process plan the run, and go on where all have planned the same.

    Raises:
        BlankfillError: what any process refuses, in all of them; or a process has another
            configuration, other data or another blankfill than the leading one.
    """
    if processes.count == 1:
        return plan()
    made: Plan | None = None
    told: dict[str, str] | BlankfillError
    try:
        made = plan()
        told = _essence(made)
    except BlankfillError as error:
        told = error
    of_all = processes.gather([told])
    refused = {rank: one for rank, one in enumerate(of_all) if isinstance(one, BlankfillError)}
    if refused:
        rank, error = next(iter(refused.items()))
        alike = len({str(one) for one in refused.values()}) == 1 and len(refused) == len(of_all)
        processes.refuse(error if alike else type(error)(f"{processes.place_of(rank)}: {error}"))
    first, *others = [one for one in of_all if not isinstance(one, BlankfillError)]
    for rank, other in enumerate(others, 1):
        for name, value in first.items():
            if other[name] != value:
                processes.refuse(
                    ConfigError(
                        f"{processes.place_of(rank)} has {name} {other[name]}, process 0 has "
                        f"{value}; start all with one command, one blankfill and the same files"
                    )
                )
    assert made is not None
    return made


def _essence(plan: Plan) -> dict[str, str]:
    """Say of a plan what must be the same in every process."""
    fields = {
        f"{section}.{name}": json.dumps(value)
        for section, values in to_dict(plan.cfg).items()
        for name, value in values.items()
    }
    stores = {
        name: ", ".join(store.fingerprint[:12] for store in of) or "none"
        for name, of in (("the data", plan.stores), ("the held-out data", plan.held_out))
    }
    versions = {"blankfill": __version__, "torch": torch.__version__}
    shares = ", ".join(f"{share:.9g}" for share in plan.shares or ())
    files = plan.start.described.fingerprint.split("-") if plan.start else ["none"]
    resumed = "a checkpoint" if plan.has_checkpoint else "no checkpoint"
    return {
        **versions, **fields, **stores, "the shares of the data": shares or "none",
        "the weights of --init": ", ".join(sha256[:12] for sha256 in files),
        "in the run's folder": resumed,
    }  # fmt: skip


def build_parallel_engine(plan: Plan, newest: Checkpoint | None, ranks: Ranks) -> ParallelEngine:
    """Settle how the model is computed, alike in all processes, and give this one's engine.

    Args:
        plan: the run.
        newest: the checkpoint that it goes on from, which is loaded later.
        ranks: the processes.

    Raises:
        ConfigError: the device does not have a precision or a way of attention.
    """
    from blankfill.parallel import ParallelEngine

    cfg, before = plan.cfg, plan.measured_before
    set_threads(cfg.train.threads or max(1, available_cores() // this_place().local_count))

    def settle() -> tuple[str, AttentionKind]:
        named = cfg.precision
        known = before.precision if before and named == "auto" else None
        dtype = getattr(torch, known) if known else choose_precision(named, plan.device)
        way = before.attention if before and cfg.train.attention == "auto" else None
        attention = way or choose_attention(
            cfg.train.attention, plan.device.type, dtype, dropout=cfg.model.attention_dropout_rate
        )
        return str(dtype).removeprefix("torch."), attention

    precision, attention = ranks.once(settle)
    compiled = (
        attention == "flex"  # torch's reference is slow where it is not compiled
        or cfg.train.compile == "on"
        or bool(cfg.train.compile == "auto" and before and before.compiled)
    )
    engine = ParallelEngine(
        cfg, ranks, dtype=getattr(torch, precision), attention=attention, compiled=compiled
    )
    if plan.start is None and newest is None and embedding_begins_from_text(cfg.train):
        engine.take_whole(WORD_EMBEDDING, ranks.once(lambda: _embedding(plan)))
    return engine


def _embedding(plan: Plan) -> torch.Tensor:
    """Make the first values of the word embedding from the text."""
    with torch.device("meta"):
        model = GLM(plan.cfg.model)
    assert model.embed is not None
    values = next(
        first.draw()
        for first in first_values(model, plan.cfg.train.seed)
        if first.weights[0] is model.embed.word.weight
    )
    first_embedding(values, plan.stores, plan.cfg.train)
    return values
