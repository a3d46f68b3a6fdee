"""How scores on tasks, and comparisons of runs by them, look in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from blankfill.cli.console import Answer, new_table

if TYPE_CHECKING:
    from blankfill.api.evaluate_harness import HarnessScore
    from blankfill.api.evaluate_tasks import RunTasks, TaskComparison
    from blankfill.runs.tasks import TaskEstimate, TaskScore

__all__ = ["print_comparison", "print_harness", "print_tasks"]

NOTHING = "-"
"""Stands where there is no such number."""
PERCENT = frozenset({"accuracy", "exact", "f1", "first word"})
"""Metrics that are shares."""


def print_tasks(runs: Sequence[tuple[str, RunTasks]], console: Answer) -> None:
    """Print the scores of all runs, task by task.

    Args:
        runs: name and scores of each run; "" for the name of one.
        console: where to.
    """
    several = ["run"] if runs[0][0] else []
    has_seen = any(score.seen is not None for _, run in runs for score in run.scores)
    numbers = ("score", "95 % interval", "random", "majority", "items", "passages")
    columns = (*numbers, *(("seen", "without") if has_seen else ()))
    first = runs[0][1].scores[0]
    shots = f", {first.shots} examples" if first.shots else ""
    table = new_table("task", *several, "metric", right=columns)
    for k in range(len(runs[0][1].scores)):
        for name, run in runs:
            score = run.scores[k]
            row = [f"{score.language} {score.task}", *([name] if several else []), score.metric]
            row += _numbers(score)
            if has_seen:
                row += _seen(score)
            table.add_row(*row)
    console.print_table(table, f"tasks, protocol {first.protocol}{shots}")
    console.print("\u00b1 is one standard error; items of one passage count as one draw")
    for name, run in runs:
        before = f"{name}: " if name else ""
        for note in run.notes:
            console.print(f"{before}{note}")
        shortened = {score.task: score.num_shortened for score in run.scores if score.num_shortened}
        if shortened:
            parts = ", ".join(f"{task} {number:,}" for task, number in shortened.items())
            console.print(f"{before}items of which the model read less than there is, because its "
                          f"rows are too short for more: {parts}")  # fmt: skip


def print_comparison(comparison: Sequence[TaskComparison], console: Answer) -> None:
    """Print the differences of two runs, task by task."""
    table = new_table(
        "task", "protocol", "metric", "test",
        right=("first", "second", "difference", "95 % interval", "smallest", "p", "p, Holm",
               "items"),
    )  # fmt: skip
    for one in comparison:
        of, share = one.difference, one.metric in PERCENT
        table.add_row(
            f"{one.language} {one.task}", one.protocol, one.metric, of.test,
            _value(of.first, share), _value(of.second, share),
            _with_error(of.difference, of.standard_error, share, signed=True),
            _interval(of.low, of.high, share), _value(of.smallest, share), _p(of.p),
            _p(one.p_holm), f"{of.num_items:,}",
        )  # fmt: skip
    console.print_table(table, "first run less second, item by item")
    console.print("smallest: the difference that four of five such experiments would find at 5 %")
    first = comparison[0]
    if max(first.num_seeds) > 1:
        console.print(f"{first.num_seeds[0]} and {first.num_seeds[1]} seeds, each item their mean")
        for one in comparison:
            spread = [_value(each, one.metric in PERCENT) for each in one.seed_spread]
            console.print(f"{one.task}, {one.metric}: standard deviation over seeds "
                          f"{' and '.join(spread)}")  # fmt: skip
    for one in comparison:
        if one.num_left_out:
            left_out = f"{one.num_left_out:,} items are left out, which not all were asked"
            console.print(f"{one.task}: {left_out}")


def print_harness(scores: Sequence[HarnessScore], console: Answer) -> None:
    """Print what lm-eval says of runs."""
    several = len({score.run for score in scores}) > 1
    table = new_table("task", *(["run"] if several else []), "metric", right=("score", "items"))
    for score in scores:
        error = "" if score.standard_error is None else f" \u00b1{score.standard_error:.3f}"
        table.add_row(
            score.task, *([score.run] if several else []), score.metric,
            f"{score.value:.3f}{error}", f"{score.num_items:,}",
        )  # fmt: skip
    console.print_table(table, f"lm-eval, mode {scores[0].mode}, step {scores[0].step:,}")
    console.print("\u00b1 as lm-eval has it: every item counts as one draw")


def _numbers(score: TaskScore) -> list[str]:
    share = score.metric in PERCENT
    of = score.score
    return [
        _with_error(of.value, of.standard_error, share), _interval(of.low, of.high, share),
        _value(score.random, share), _value(score.majority, share), f"{score.num_items:,}",
        f"{score.num_clusters:,}",
    ]  # fmt: skip


def _seen(score: TaskScore) -> list[str]:
    if score.seen is None:
        return [NOTHING, NOTHING]
    without: TaskEstimate | None = score.seen.without
    share = score.metric in PERCENT
    text = NOTHING if without is None else _with_error(without.value, without.standard_error, share)
    return [f"{score.seen.num_seen:,}", text]


def _with_error(value: float, error: float | None, share: bool, *, signed: bool = False) -> str:
    text = f"{100 * value:+.1f} %" if share and signed else _value(value, share)
    if not share and signed:
        text = f"{value:+.3f}"
    return (
        text
        if error is None
        else f"{text} \u00b1{100 * error if share else error:.{1 if share else 3}f}"
    )


def _interval(low: float | None, high: float | None, share: bool) -> str:
    if low is None or high is None:
        return NOTHING
    return f"{100 * low:.1f} to {100 * high:.1f}" if share else f"{low:.3f} to {high:.3f}"


def _value(value: float | None, share: bool) -> str:
    if value is None:
        return NOTHING
    return f"{100 * value:.1f} %" if share else f"{value:.3f}"


def _p(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2g}" if value < 0.001 else f"{value:.3f}"
