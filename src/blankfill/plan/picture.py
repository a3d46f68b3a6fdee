"""A plan as a picture: what layouts hold, what their steps are spent on, a pipeline's passes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from blankfill.objective.render import load_pyplot, save_figure
from blankfill.plan.figures import PlannedLayout
from blankfill.plan.search import Found, Task
from blankfill.plan.step import stage_times
from blankfill.plan.timeline import StageTimes, draw_up

__all__ = ["draw_plan"]

GB: Final = 1e9
MEMORY: Final = {
    "weights": "#4477aa", "gradients": "#66ccee", "optimizer": "#228833",
    "activations": "#ee8866", "receive buffers": "#aa3377", "unsharded gradients": "#ccbb44",
}  # fmt: skip
TIME: Final = {
    "compute": "#4477aa", "communication": "#ee8866", "bubble": "#dddddd", "fixed": "#228833",
}  # fmt: skip
PASSES: Final = {"forward": "#4477aa", "backward": "#66ccee", "weights": "#228833"}
"""Colours that colour-blind readers can distinguish (Tol's bright scheme)."""
SHOWN_PER_RANK: Final = 2
"""Micro-batches of a pipeline that are drawn, for each of its ranks."""
MOST_RANKS: Final = 16
"""Of more, half as many are drawn."""
NUMBERED: Final = 128
"""Up to so many micro-batches, over all ranks, each pass has its number."""


def draw_plan(
    task: Task, found: Sequence[Found], layouts: Sequence[PlannedLayout], path: Path
) -> None:
    """Draw a plan.

    Args:
        task: what is planned.
        found: the layouts that fit, the fastest first.
        layouts: the same with their figures.
        path: .png, .svg or .pdf; written whole or not at all.
    """
    piped = next((one for one in found if one.layout.pipeline > 1), None)
    plt = load_pyplot()
    heights = [0.34 * len(layouts) + 0.6] * 2 + ([3.2] if piped else [])
    figure, panels = plt.subplots(
        len(heights), 1, figsize=(10.5, sum(heights) + 1.6), dpi=130, height_ratios=heights,
        layout="constrained",
    )  # fmt: skip
    names = [_name(each) for each in layouts]
    limit = task.cluster.gpu.memory_bytes / GB
    memory = {
        kind: [each.memory_by_kind[kind] / GB for each in layouts] for kind in MEMORY
    }  # fmt: skip
    _bars(panels[0], names, memory, MEMORY)
    panels[0].axvline(limit, color="#bb2222", lw=1.4)
    panels[0].set_xlim(0, 1.04 * limit)
    panels[0].set_xlabel(f"GB on the fullest rank; the line is a {task.cluster.gpu.name}'s memory")
    time = {
        "compute": [each.compute_seconds for each in layouts],
        "communication": [each.communication_seconds for each in layouts],
        "bubble": [each.bubble_seconds for each in layouts],
        "fixed": [each.fixed_seconds for each in layouts],
    }
    _bars(panels[1], names, time, TIME)
    panels[1].set_xlabel("seconds of a step")
    if piped is not None:
        _timeline(panels[2], task, piped)
    figure.suptitle(
        f"{task.name} on {task.cluster.nodes:,} x {task.cluster.gpus_per_node} "
        f"{task.cluster.gpu.name}: replicate x shard x tensor x pipeline",
        fontsize=11,
    )
    save_figure(figure, path)


def _name(layout: PlannedLayout) -> str:
    axes = f"{layout.replicate} x {layout.shard} x {layout.tensor} x {layout.pipeline}"
    words = [axes, f"micro-batch {layout.micro_batch_rows}"]
    if layout.schedule != "none":
        words.append(layout.schedule)
    if layout.recompute != "none":
        words.append(layout.recompute)
    return ", ".join(words)


def _bars(
    panel: Any, names: Sequence[str], parts: dict[str, list[float]], colours: dict[str, str]
) -> None:
    """Draw one bar for each name, of its parts one after the other."""
    places = range(len(names))
    left = [0.0] * len(names)
    for part, sizes in parts.items():
        panel.barh(places, sizes, left=left, color=colours[part], label=part, height=0.72)
        left = [a + b for a, b in zip(left, sizes, strict=True)]
    panel.set_yticks(places, names, fontsize=8)
    panel.invert_yaxis()
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    panel.legend(
        frameon=False, fontsize=8, ncols=len(parts), loc="lower left", bbox_to_anchor=(0, 1.0)
    )


def _timeline(panel: Any, task: Task, found: Found) -> None:
    """Draw the passes of a pipeline's ranks, of the first micro-batches."""
    layout = found.layout
    times = [
        StageTimes(
            forward=each.forward + each.forward_sent, backward=each.backward + each.backward_sent,
            weights=each.of_weights,
        )
        for each in stage_times(
            task.network, task.practice, task.cluster, layout, found.costs.cut
        )
    ]  # fmt: skip
    whole = layout.num_micro_batches(task.train.batch_rows)
    per_rank = SHOWN_PER_RANK if layout.pipeline <= MOST_RANKS else 1
    count = min(whole, per_rank * layout.pipeline)
    hop = found.costs.hop / (2 * layout.chunks)
    numbered = layout.pipeline * count <= NUMBERED
    drawn: dict[tuple[int, str, bool], list[tuple[float, float]]] = {}
    for one in draw_up(layout, times, count, hop):
        later = one.stage >= layout.pipeline
        drawn.setdefault((one.rank, one.kind, later), []).append((one.start, one.end - one.start))
        if numbered and one.kind != "weights":
            panel.text(
                (one.start + one.end) / 2, one.rank, str(one.micro_batch + 1), ha="center",
                va="center", fontsize=5.5, color="white" if one.kind == "forward" else "#222222",
            )  # fmt: skip
    for (rank, kind, later), spans in drawn.items():
        panel.broken_barh(
            spans, (rank - 0.4, 0.8), facecolor=PASSES[kind], edgecolor="white",
            linewidth=0.4 * numbered, alpha=0.55 if later else 1.0,
        )  # fmt: skip
    panel.set_yticks(range(layout.pipeline), [str(rank) for rank in range(layout.pipeline)],
                     fontsize=7)  # fmt: skip
    panel.invert_yaxis()
    panel.set_xlim(left=0)
    panel.set_ylabel("pipeline rank")
    replicate, shard, tensor, pipeline = (
        layout.replicate, layout.shard, layout.tensor, layout.pipeline,
    )  # fmt: skip
    several = "; paler: a rank's later stages" if layout.chunks > 1 else ""
    panel.set_xlabel(
        f"seconds; {replicate} x {shard} x {tensor} x {pipeline} under {layout.schedule}, the "
        f"first {count} of {whole} micro-batches, as if there were no more{several}"
    )
    from matplotlib.patches import Patch

    kinds = [kind for kind in PASSES if kind != "weights" or layout.schedule == "zbv"]
    labels = {"weights": "gradients of weights"}
    panel.legend(
        handles=[Patch(color=PASSES[kind], label=labels.get(kind, kind)) for kind in kinds],
        frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0),
    )  # fmt: skip
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
