"""Pictures of the objective: an example as rows of a table, and the attention mask.

The mask picture is drawn from `visible()`, the same rule that attention answers to: one square per
query (row) and key (column), coloured by what the query sees. Part A and Part B, spans and examples
are labelled. Used by `explain`, the demo and the documentation.

Shapes: T length of an example or a row.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from blankfill import __version__
from blankfill.disk.new_file import NewFile
from blankfill.objective.batch import IGNORE_INDEX, Batch, Bool, Example, Int32
from blankfill.objective.fonts import fonts_for, without_glyph_warnings
from blankfill.objective.mask import visible
from blankfill.results import short_repr

__all__ = [
    "PICTURE",
    "TokenRow",
    "draw_mask",
    "draw_row",
    "is_picture",
    "load_pyplot",
    "mask_text",
    "save_figure",
    "token_rows",
]

Token = Callable[[int], str]
"""Shows one token id."""

PART_A, PART_B, HIDDEN, DOCUMENT_EDGE = "#4477aa", "#ee8866", "#f4f4f4", "#333333"
"""Colours that colour-blind readers can distinguish (Tol's bright scheme)."""
LABELLED_TOKENS = 48
"""Up to this many tokens, each row and column is labelled with its token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenRow:
    """One input token of an example."""

    token: str
    """As it is shown."""
    part: str
    """A or B."""
    position: int
    """Position in the text."""
    block_position: int
    """Position inside the span."""
    target: str | None
    """What this position predicts."""
    weight: float
    """Its weight in the loss."""
    segment: int
    """Number of its example in the row; examples never see each other."""

    __repr__ = short_repr


def token_rows(example: Example, token: Token) -> list[TokenRow]:
    """List an example's tokens in input order."""
    return [
        TokenRow(
            token=token(int(example.tokens[i])),
            part="B" if example.is_part_b[i] else "A",
            position=int(example.positions[0, i]),
            block_position=int(example.positions[1, i]),
            target=None if target == IGNORE_INDEX else token(target),
            weight=float(example.weights[i]),
            segment=0,
        )
        for i, target in enumerate(example.targets.tolist())
    ]


def mask_text(segment_ids: Int32, is_part_b: Bool) -> str:
    """Draw who sees whom in characters: `#` sees Part A, `+` sees Part B, `.` sees nothing."""
    seen = visible(segment_ids, is_part_b)
    signs = np.where(seen, np.where(is_part_b[None, :], "+", "#"), ".")
    return "\n".join(" ".join(line) for line in signs)


def draw_mask(example: Example, token: Token, path: Path, *, title: str = "") -> None:
    """Draw the attention mask of one example.

    Args:
        example: the example.
        token: shows one token id.
        path: .png, .svg or .pdf; written whole or not at all.
        title: above the picture.
    """
    length = len(example.tokens)
    edges = [(0, example.part_b_start, length)]
    labels = [token(int(i)) for i in example.tokens] if length <= LABELLED_TOKENS else None
    inputs = [int(b - a) + bool(example.end) for a, b in example.spans[example.order]]
    starts = (example.part_b_start + np.cumsum(inputs)[:-1]).tolist()
    _draw(
        np.zeros(length, np.int32), example.is_part_b, edges, path, title=title, labels=labels,
        spans=starts,
    )  # fmt: skip


def draw_row(batch: Batch, row: int, path: Path, *, sop: int, title: str = "") -> None:
    """Draw the attention mask of one packed row, its examples and their parts labelled.

    Args:
        batch: rows.
        row: which of them.
        path: .png, .svg or .pdf; written whole or not at all.
        sop: the token that opens a span.
        title: above the picture.
    """
    blocks = batch.blocks[batch.blocks[:, 0] == row]
    edges = [(int(start), int(part_b), int(end)) for _, start, part_b, end in blocks]
    spans = [
        place
        for _, part_b, end in edges
        for place in (part_b + np.flatnonzero(batch.tokens[row, part_b:end] == sop)[1:]).tolist()
    ]
    _draw(
        batch.segment_ids[row], batch.is_part_b[row], edges, path, title=title, labels=None,
        spans=spans,
    )  # fmt: skip


def _drawable(
    spans: Sequence[int], edges: Sequence[tuple[int, int, int]], length: int
) -> list[int]:
    """Keep the spans of examples whose spans are wide enough that lines do not cover them."""
    kept: list[int] = []
    for _, part_b, end in edges:
        inside = [place for place in spans if part_b <= place < end]
        if (end - part_b) / (len(inside) + 1) >= 0.01 * length:
            kept += inside
    return kept


def _draw(
    segment_ids: Int32,
    is_part_b: Bool,
    edges: Sequence[tuple[int, int, int]],
    path: Path,
    *,
    title: str,
    labels: list[str] | None,
    spans: Sequence[int],
) -> None:
    plt = load_pyplot()
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    seen = visible(segment_ids, is_part_b)
    seen &= segment_ids[:, None] >= 0
    picture = np.where(seen, np.where(is_part_b[None, :], 2, 1), 0)
    length = len(segment_ids)
    size = max(6.0, min(11.0, 0.24 * length + 2)) if labels else 9.0
    with plt.rc_context(fonts_for(labels or ())), without_glyph_warnings():
        figure, axes = plt.subplots(figsize=(size, size + 0.4), dpi=150)
        colours = ListedColormap([HIDDEN, PART_A, PART_B])
        axes.imshow(picture, cmap=colours, vmin=0, vmax=2, interpolation="nearest")
        for start, part_b, end in edges:
            _frame(axes, start, part_b, end)
        for place in _drawable(spans, edges, length):
            inside = next(e for e in edges if e[1] <= place < e[2])
            axes.plot([inside[1] - 0.5, inside[2] - 0.5], [place - 0.5] * 2, color="white", lw=0.8)
            axes.plot([place - 0.5] * 2, [inside[1] - 0.5, inside[2] - 0.5], color="white", lw=0.8)
        if labels:
            # A `$` in a token is text, not mathematics.
            axes.set_xticks(range(length), labels, rotation=90, fontsize=8, parse_math=False)
            axes.set_yticks(range(length), labels, fontsize=8, parse_math=False)
            axes.xaxis.tick_top()
        else:
            _label_parts(axes, edges, length)
        axes.set_xlabel("key: what is seen")
        axes.set_ylabel("query: who looks")
        handles = [
            Patch(color=PART_A, label="sees Part A"),
            Patch(color=PART_B, label="sees Part B, itself and before"),
            Patch(facecolor=HIDDEN, edgecolor="#bbbbbb", label="sees nothing"),
        ]
        axes.legend(
            handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=3,
            frameon=False, fontsize=9,
        )  # fmt: skip
        figure.suptitle(title, fontsize=11)
        save_figure(figure, path)


def is_picture(path: Path) -> bool:
    """Tell whether a file is a picture that blankfill drew, by its metadata."""
    return _MARK.encode() in path.read_bytes()


_MARK = "drawn by blankfill"
PICTURE = "a picture of blankfill", is_picture
"""What `NewFile` takes for a picture."""


def load_pyplot() -> Any:
    """Load matplotlib for files alone; no window is ever opened."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure whole, in the format that the file's name says, and close it.

    Raises:
        OutputError: the file is no picture of blankfill and would be lost, or cannot be written.
    """
    data = io.BytesIO()
    kind = path.suffix[1:]
    field = "Software" if kind == "png" else "Creator"
    try:
        with NewFile(path, *PICTURE) as file:
            figure.savefig(
                data, format=kind, bbox_inches="tight",
                metadata={field: f"{_MARK} {__version__}"},
            )  # fmt: skip
            file.write(data.getvalue())
    finally:
        load_pyplot().close(figure)


def _frame(axes: Any, start: int, part_b: int, end: int) -> None:
    """Frame one example, and cut it where Part B begins."""
    low, cut, high = start - 0.5, part_b - 0.5, end - 0.5
    axes.plot([low, high, high, low, low], [low, low, high, high, low], color=DOCUMENT_EDGE, lw=1.2)
    axes.plot([low, high], [cut, cut], color=DOCUMENT_EDGE, lw=0.7, ls=":")
    axes.plot([cut, cut], [low, high], color=DOCUMENT_EDGE, lw=0.7, ls=":")


def _label_parts(axes: Any, edges: Sequence[tuple[int, int, int]], length: int) -> None:
    """Write A and B beside each example that has room for the labels."""
    ticks: list[float] = []
    names: list[str] = []
    for number, (start, part_b, end) in enumerate(edges):
        # Two labels of one example need room for both; a small example gets one.
        room = (end - start) / length
        if room < 0.02:
            continue
        if room < 0.06:
            ticks, names = [*ticks, (start + end) / 2], [*names, f"{number + 1}"]
            continue
        ticks += [(start + part_b) / 2, (part_b + end) / 2]
        names += [f"{number + 1} A", f"{number + 1} B"]
    axes.set_yticks(ticks, names, fontsize=8)
    axes.set_xticks(ticks, names, fontsize=8, rotation=90)
    axes.xaxis.tick_top()
