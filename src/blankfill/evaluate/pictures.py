"""Pictures of a run: how the loss fell, against the n-gram models, and what was filled exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from blankfill.evaluate.blanks import BlankReport
from blankfill.objective.render import load_pyplot, save_figure

__all__ = ["draw_curves", "draw_exact"]

COLOURS = {
    "model": "#4477aa", "model without the right side": "#66ccee", "trigram": "#ee8866",
    "unigram": "#bbbbbb",
}  # fmt: skip
"""One colour per system, apart for colour-blind readers (Tol's bright scheme)."""
LINES = {"en": "-", "zh": "--"}
NAMES = {"en": "English", "zh": "Chinese", "other": "other"}


def draw_curves(metrics: Sequence[Mapping[str, float]], report: BlankReport, path: Path) -> None:
    """Draw the loss over steps, with the n-gram models' losses as level lines.

    Args:
        metrics: rows of metrics.jsonl.
        report: the evaluation of the finished run.
        path: .png, .svg or .pdf; written whole or not at all.
    """
    languages = [r.language for r in report.languages]
    plt = load_pyplot()
    figure, panels = plt.subplots(
        1, len(languages), figsize=(5.4 * len(languages), 4.2), dpi=130, sharey=True,
        squeeze=False,
    )  # fmt: skip
    for panel, language in zip(panels[0], languages, strict=True):
        key = f"loss_nats_{language}"
        rows = [(r["step"], r[key]) for r in metrics if key in r]
        panel.plot(*_columns(rows), color="#c8d8e8", lw=1, label="training, every row")
        held = [(r["step"], r["validation_" + key]) for r in metrics if "validation_" + key in r]
        if held:
            panel.plot(*_columns(held), color=COLOURS["model"], marker="o", ms=4, lw=1.8,
                       label="held-out rows")  # fmt: skip
        last = max((step for step, _ in rows), default=1)
        for score in next(r for r in report.languages if r.language == language).scores:
            if score.system in ("trigram", "unigram"):
                panel.axhline(score.loss_nats, color=COLOURS[score.system], lw=1.6, ls="--",
                              label=f"{score.system}, held-out blanks")  # fmt: skip
            elif score.system == "model":
                panel.plot([last], [score.loss_nats], marker="*", ms=13, ls="", clip_on=False,
                           color=COLOURS["model"], label="model, held-out blanks")  # fmt: skip
        panel.set_title(NAMES.get(language, language))
        panel.set_xlabel("optimizer step")
        panel.grid(alpha=0.25)
        panel.set_ylim(bottom=0)
        panel.legend(fontsize=8, frameon=False)
    panels[0][0].set_ylabel("nats per target token")
    figure.tight_layout()
    save_figure(figure, path)


def draw_exact(report: BlankReport, path: Path) -> None:
    """Draw the share of held-out blanks that each system fills exactly, as bars."""
    plt = load_pyplot()
    systems = [score.system for score in report.languages[0].scores]
    figure, axes = plt.subplots(figsize=(7.2, 3.8), dpi=130)
    width = 0.8 / len(systems)
    for s, system in enumerate(systems):
        places = [i + (s - (len(systems) - 1) / 2) * width for i in range(len(report.languages))]
        shares = [100 * report.score(r.language, system).exact_match for r in report.languages]
        bars = axes.bar(places, shares, width * 0.92, color=COLOURS[system], label=system)
        axes.bar_label(bars, fmt="%.0f %%", fontsize=9, padding=2)
    axes.set_xticks(
        range(len(report.languages)),
        [f"{NAMES.get(r.language, r.language)}, {r.num_blanks} blanks" for r in report.languages],
    )
    axes.set_ylabel("filled exactly, %")
    axes.set_ylim(0, 100)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.2))
    figure.tight_layout()
    save_figure(figure, path)


def _columns(rows: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [step for step, _ in rows], [value for _, value in rows]
