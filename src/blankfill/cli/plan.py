"""How a plan looks in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blankfill.api.plan import PlanResult
from blankfill.cli.console import Answer, new_table
from blankfill.plan.figures import PlannedLayout

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["print_plan"]

GB = 1e9
AXES = ("replicate", "shard", "tensor", "pipeline")


def print_plan(result: PlanResult, console: Answer) -> None:
    """Print the layouts that fit, those that do not, and what the plan says besides."""
    gpus = result.nodes * result.gpus_per_node
    console.print_table(
        _layouts(result.layouts, with_cost=result.price is not None),
        f"{result.preset}, {result.num_parameters / GB:,.2f} B parameters, on {result.nodes:,} x "
        f"{result.gpus_per_node} {result.gpu} ({gpus:,}), {result.tokens / 1e9:,.0f} B tokens in "
        f"steps of {result.batch_tokens:,}: the fastest layouts",
    )
    console.print_table(
        _memory(result.layouts[:3]),
        f"memory of the fullest rank, of {result.gpu_memory_bytes / GB:,.0f} GB",
    )
    if result.failing:
        console.print_table(_failing(result.failing), "faster, and too large")
    best = result.layouts[0]
    console.print(
        f"energy: {best.energy_mwh:,.0f} MWh at the servers' rated power, of which the GPUs "
        f"{best.gpu_energy_mwh:,.0f} MWh"
    )
    if result.budget_tokens is not None:
        console.print(
            f"a budget of {result.budget:,.0f} trains on {result.budget_tokens / 1e9:,.1f} B tokens"
        )
    console.print(_today(result))
    for note in result.notes:
        console.print(f"note: {note}")
    console.print(f"not modelled: {result.not_modelled}")
    console.print(f"figures of the GPU: {result.gpu_source}")
    if result.picture:
        console.print(f"drawn: {result.picture}")


def _layouts(layouts: list[PlannedLayout], *, with_cost: bool) -> Table:
    right = (
        *AXES, "micro-batch", "s a step", "compute", "sent", "bubble", "fixed", "MFU", "GB",
        "tokens a day", "days", *(["cost"] if with_cost else []),
    )  # fmt: skip
    table = new_table(*AXES, "schedule", "recompute", right=right)
    for each in layouts:
        cells = [str(getattr(each, axis)) for axis in AXES]
        cells += [
            _schedule(each),
            each.recompute,
            f"{each.micro_batch_rows} x {each.micro_batches}",
        ]
        cells += [_seconds(each.step_seconds)]
        cells += [
            f"{share / each.step_seconds:.0%}"
            for share in (
                each.compute_seconds, each.communication_seconds, each.bubble_seconds,
                each.fixed_seconds,
            )
        ]  # fmt: skip
        cells += [f"{each.mfu:.0%}", f"{each.memory_bytes / GB:.1f}"]
        cells += [f"{each.tokens_per_day / 1e9:,.2f} B", f"{each.days:,.1f}"]
        cells += [f"{each.cost:,.0f}"] if each.cost is not None else []
        table.add_row(*cells)
    return table


def _memory(layouts: list[PlannedLayout]) -> Table:
    kinds = list(layouts[0].memory_by_kind)
    table = new_table("layout", right=(*kinds, "together"))
    for each in layouts:
        sizes = [f"{each.memory_by_kind[kind] / GB:.1f}" for kind in kinds]
        table.add_row(_axes(each), *sizes, f"{each.memory_bytes / GB:.1f}")
    return table


def _failing(layouts: list[PlannedLayout]) -> Table:
    table = new_table(
        "layout", "schedule", "recompute",
        right=("micro-batch", "s a step", "GB", "too much", "largest part"),
    )  # fmt: skip
    for each in layouts:
        kind, size = max(each.memory_by_kind.items(), key=lambda one: one[1])
        table.add_row(
            _axes(each), _schedule(each), each.recompute, _passes(each),
            _seconds(each.step_seconds), f"{each.memory_bytes / GB:,.1f}",
            f"{-each.spare_bytes / GB:,.1f}", f"{kind} {size / GB:,.1f}",
        )  # fmt: skip
    return table


def _today(result: PlanResult) -> str:
    """Say what the engine of today can start."""
    what = (
        "can be started now: replicate x shard alone, with float32 weights and nothing recomputed; "
        "tensor, pipeline and recompute wait for an engine that is not there yet"
    )
    if result.today is None:
        return f"{what}; {result.today_refused}"
    today = result.today
    return (
        f"{what}; the fastest such layout is --parallel.replicate {today.replicate} "
        f"--parallel.shard {today.shard} --train.micro-batch-rows {today.micro_batch_rows}: "
        f"{_seconds(today.step_seconds)} s a step, {today.days:,.1f} days, "
        f"{today.memory_bytes / GB:,.1f} GB"
    )


def _axes(layout: PlannedLayout) -> str:
    return " x ".join(str(getattr(layout, axis)) for axis in AXES)


def _passes(layout: PlannedLayout) -> str:
    return f"{layout.micro_batch_rows} x {layout.micro_batches}"


def _schedule(layout: PlannedLayout) -> str:
    if layout.schedule == "interleaved":
        return f"interleaved x {layout.stages_per_rank}"
    return layout.schedule


def _seconds(value: float) -> str:
    return f"{value:,.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
