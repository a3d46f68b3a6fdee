"""Learning rates of GLM's `AnnealingLR`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from blankfill.optim import annealing_lr
from golden_groups.common import Case


def rates(folder: Path) -> Iterator[Case]:
    """Relative differences; of a rate of 0, of the peak."""
    for case in json.loads((folder / "lr_schedule.json").read_text())["cases"]:
        style, peak = case["decay_style"], case["start_lr"]
        name = f"{style} {case['warmup_iter']} {case['num_iters']}"
        if style not in ("cosine", "linear", "constant"):
            yield name, f"decay {style}"
            continue
        ours = [
            annealing_lr(
                step, style=style, peak=peak, warmup=case["warmup_iter"], span=case["num_iters"],
                ratio=case["decay_ratio"],
            )
            for step in case["steps"]
        ]  # fmt: skip
        yield (
            name,
            max(abs(a - b) / (abs(b) or peak) for a, b in zip(ours, case["lr"], strict=True)),
        )
