"""How a plan looks in a terminal: small tables, whose rows have one number for each layout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blankfill.api.plan import PlanResult
from blankfill.cli.console import Answer, new_table
from blankfill.plan.figures import PlannedLayout

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["print_plan"]

GB = 1e9


def print_plan(result: PlanResult, console: Answer) -> None:
    """Print the layouts that fit, those that do not, and what the plan says besides."""
    gpus = result.nodes * result.gpus_per_node
    console.print_table(
        _layouts(result.layouts),
        f"{result.preset}, {result.num_parameters / GB:,.2f} B parameters, on {result.nodes:,} x "
        f"{result.gpus_per_node} {result.gpu} ({gpus:,}), {result.tokens / GB:,.0f} B tokens in "
        f"steps of {result.batch_tokens:,}: the fastest layouts (replicate x shard x tensor x "
        "pipeline)",
    )
    console.print_table(_times(result.layouts), "what a step is spent on, and how long it takes")
    console.print_table(_totals(result), "the whole run, in servers at their rated power")
    console.print_table(
        _memory(result.layouts),
        f"memory of the fullest rank by kind, in GB, of {result.gpu_memory_bytes / GB:,.0f} GB",
    )
    if result.failing:
        console.print_table(_failing(result.failing), "faster, and too large")
    if result.budget_tokens is not None:
        console.print(
            f"a budget of {result.budget:,.0f} trains the first layout on "
            f"{result.budget_tokens / GB:,.1f} B tokens"
        )
    console.print(_today(result))
    for note in result.notes:
        console.print(f"note: {note}")
    console.print(f"not modelled: {result.not_modelled}")
    console.print(f"figures of the GPU: {result.gpu_source}")
    if result.picture:
        console.print(f"drawn: {result.picture}")


def _layouts(layouts: list[PlannedLayout]) -> Table:
    right = ("rows x passes", "s a step", "GB")
    table = new_table("", "layout", "schedule", "recompute", right=right)
    for number, each in enumerate(layouts, 1):
        table.add_row(
            str(number), _axes(each), _schedule(each), each.recompute, _passes(each),
            _seconds(each.step_seconds), f"{each.memory_bytes / GB:,.1f}",
        )  # fmt: skip
    return table


def _times(layouts: list[PlannedLayout]) -> Table:
    table = new_table("", right=("compute", "sent", "bubble", "fixed", "MFU", "tokens a day"))
    for number, each in enumerate(layouts, 1):
        parts = (
            each.compute_seconds, each.communication_seconds, each.bubble_seconds,
            each.fixed_seconds,
        )  # fmt: skip
        table.add_row(
            str(number), *(f"{part / each.step_seconds:.1%}" for part in parts), f"{each.mfu:.1%}",
            f"{each.tokens_per_day / GB:,.2f} B",
        )  # fmt: skip
    return table


def _totals(result: PlanResult) -> Table:
    with_cost = result.price is not None
    table = new_table("", right=("days", "MWh", "of GPUs", *(["cost"] if with_cost else [])))
    for number, each in enumerate(result.layouts, 1):
        cost = [f"{each.cost:,.0f}"] if each.cost is not None else []
        table.add_row(
            str(number), f"{each.days:,.1f}", f"{each.energy_mwh:,.1f}",
            f"{each.gpu_energy_mwh:,.1f}", *cost,
        )  # fmt: skip
    return table


def _memory(layouts: list[PlannedLayout]) -> Table:
    table = new_table("", right=tuple(layouts[0].memory_by_kind))
    for number, each in enumerate(layouts, 1):
        sizes = [f"{size / GB:,.1f}" for size in each.memory_by_kind.values()]
        table.add_row(str(number), *sizes)
    return table


def _failing(layouts: list[PlannedLayout]) -> Table:
    right = ("rows x passes", "s a step", "GB too much", "largest part")
    table = new_table("layout", "schedule", "recompute", right=right)
    for each in layouts:
        kind, size = max(each.memory_by_kind.items(), key=lambda one: one[1])
        table.add_row(
            _axes(each), _schedule(each), each.recompute, _passes(each),
            _seconds(each.step_seconds), f"{-each.spare_bytes / GB:,.1f}",
            f"{kind} {size / GB:,.1f}",
        )  # fmt: skip
    return table


def _today(result: PlanResult) -> str:
    """Say how to start the fastest layout that a run can have."""
    what = "can be started now: all but more than two stages of a rank under interleaved"
    if result.today is None:
        return f"{what}; {result.today_refused}"
    today = result.today
    axes = " ".join(
        f"--parallel.{axis} {size}"
        for axis, size in (
            ("replicate", today.replicate), ("shard", today.shard), ("tensor", today.tensor),
            ("pipeline", today.pipeline),
        )
        if size > 1 or axis in ("replicate", "shard")
    )  # fmt: skip
    schedule = f" --parallel.schedule {today.schedule}" if today.pipeline > 1 else ""
    return (
        f"{what}; the fastest such layout is {axes}{schedule} --parallel.weights {result.weights} "
        f"--train.recompute {today.recompute} --train.micro-batch-rows {today.micro_batch_rows}: "
        f"{_seconds(today.step_seconds)} s a step, {today.days:,.1f} days, "
        f"{today.memory_bytes / GB:,.1f} GB"
    )


def _axes(layout: PlannedLayout) -> str:
    return f"{layout.replicate} x {layout.shard} x {layout.tensor} x {layout.pipeline}"


def _passes(layout: PlannedLayout) -> str:
    return f"{layout.micro_batch_rows} x {layout.micro_batches}"


def _schedule(layout: PlannedLayout) -> str:
    if layout.schedule == "interleaved":
        return f"interleaved x {layout.stages_per_rank}"
    return layout.schedule


def _seconds(value: float) -> str:
    return f"{value:,.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
