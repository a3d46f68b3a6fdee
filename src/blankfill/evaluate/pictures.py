"""Pictures of a run: how the loss fell, against the n-gram models, and what was filled exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from blankfill.objective.render import load_pyplot, save_figure
from blankfill.runs.evaluation import BlankReport, BlankScores, Estimate

__all__ = ["draw_curves", "draw_exact"]

COLOURS = {
    ("model", "both sides"): "#4477aa", ("model", "left side"): "#66ccee",
    ("trigram", "two tokens"): "#ee8866", ("unigram", "nothing"): "#bbbbbb",
}  # fmt: skip
"""One colour for each system and what it reads, apart for colour-blind readers (Tol's bright
scheme)."""
ALONE = "#223355"
"""Colour of the model where it has to find the end as well."""
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
            panel.plot(*_columns(held), color=COLOURS["model", "both sides"], marker="o", ms=4,
                       lw=1.8, label="held-out rows")  # fmt: skip
        last = max((step for step, _ in rows), default=1)
        for score in next(r for r in report.languages if r.language == language).scores:
            nats, colour = score.loss_nats_per_token.value, COLOURS[score.system, score.reads]
            if score.system != "model":
                panel.axhline(nats, color=colour, lw=1.6, ls="--",
                              label=f"{score.system}, held-out blanks")  # fmt: skip
            elif score.reads == "both sides":
                panel.plot([last], [nats], marker="*", ms=13, ls="", clip_on=False, color=colour,
                           label="model, held-out blanks")  # fmt: skip
        panel.set_title(NAMES.get(language, language))
        panel.set_xlabel("optimizer step")
        panel.grid(alpha=0.25)
        panel.set_ylim(bottom=0)
        panel.legend(fontsize=8, frameon=False)
    panels[0][0].set_ylabel("nats per target token")
    figure.tight_layout()
    save_figure(figure, path)


def draw_exact(report: BlankReport, path: Path) -> None:
    """Draw the share of held-out blanks that each system fills exactly, as bars with errors.

    The first bar is the model that has to find the length; all others are told it.
    """
    plt = load_pyplot()
    kinds = [("model, finds the length", ALONE)]
    kinds += [(f"{s.system} ({s.reads})", COLOURS[s.system, s.reads])
              for s in report.languages[0].scores]  # fmt: skip
    figure, axes = plt.subplots(figsize=(7.2, 3.8), dpi=130)
    width = 0.8 / len(kinds)
    columns = [_exact(language.scores) for language in report.languages]
    for k, (label, colour) in enumerate(kinds):
        places = [i + (k - (len(kinds) - 1) / 2) * width for i in range(len(columns))]
        found = [column[k] for column in columns]
        bars = axes.bar(
            places, [100 * one.value for one in found], width * 0.92, color=colour, label=label,
            yerr=[100 * (one.standard_error or 0.0) for one in found],
            error_kw={"lw": 1, "alpha": 0.6},
        )  # fmt: skip
        axes.bar_label(bars, fmt="%.0f %%", fontsize=9, padding=2)
    axes.set_xticks(
        range(len(report.languages)),
        [f"{NAMES.get(r.language, r.language)}, {r.num_blanks} blanks" for r in report.languages],
    )
    axes.set_ylabel("filled exactly, %")
    axes.set_ylim(0, 105)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.25),
                title="told the length, but for the first", title_fontsize=8)  # fmt: skip
    figure.tight_layout()
    save_figure(figure, path)


def _exact(scores: Sequence[BlankScores]) -> list[Estimate]:
    """Give the exact fills of the model without the length, then of every system with it."""
    alone = scores[0].exact_match
    assert alone is not None, "the model that reads both sides stands first"
    return [alone, *(score.exact_match_given_length for score in scores)]


def _columns(rows: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [step for step, _ in rows], [value for _, value in rows]
