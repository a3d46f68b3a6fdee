"""What a run checks on held-out data while it trains: its loss, what is forgotten, its blanks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from blankfill.config.run import RunConfig
from blankfill.data.rows import RowSource
from blankfill.data.store import TokenStore
from blankfill.guard.forgetting import ForgettingGuard
from blankfill.metrics.names import unique_names
from blankfill.model.glm import GLM
from blankfill.prepare.plan import Plan
from blankfill.text.tokenizer import TextTokenizer
from blankfill.train.validate import Check, Validation, score_batches, validation_batches

__all__ = ["BuildCheck", "build_checks"]

VALIDATION_ROWS = 64
"""Most rows that a validation during training scores."""

BuildCheck = Callable[[RunConfig, TextTokenizer, Sequence[TokenStore]], Check]
"""Makes a further check of the held-out stores, such as filling their blanks."""


def build_checks(
    plan: Plan, dtype: torch.dtype, *, run: Path, validation: Sequence[Path],
    check_blanks: BuildCheck | None,
) -> list[Check]:  # fmt: skip
    """Build the checks of a validation; none where no data is held out.

    Args:
        plan: the run.
        dtype: of its matrix products.
        run: its folder.
        validation: folders of its held-out stores.
        check_blanks: makes the check of their blanks, which the configuration may turn off.
    """
    if not plan.held_out:
        return []
    checks = [_loss_check(plan, dtype, run, validation)]
    if check_blanks is not None and plan.cfg.validation.blanks:
        checks.append(check_blanks(plan.cfg, plan.tokenizer, plan.held_out))
    return checks


def _loss_check(plan: Plan, dtype: torch.dtype, run: Path, validation: Sequence[Path]) -> Check:
    """Build the check of the loss on held-out rows and, where asked for, of what is forgotten."""
    train = plan.cfg.train
    rows = RowSource(
        plan.held_out, plan.cfg.objective.of_other_stores, plan.tokenizer.ids,
        row_length=train.row_length, seed=0,
    )  # fmt: skip
    batches = validation_batches(
        rows, max_rows=VALIDATION_ROWS, micro_batch_rows=train.micro_batch_rows
    )
    guard = _forgetting_guard(plan.cfg, run, validation)

    def score(model: GLM) -> Validation:
        values = score_batches(model, batches, dtype)
        return Validation(values=values | (guard.judge(values) if guard else {}))

    return score


def _forgetting_guard(
    cfg: RunConfig, run: Path, validation: Sequence[Path]
) -> ForgettingGuard | None:
    if not cfg.validation.forgetting_limit:
        return None
    return ForgettingGuard(
        run, unique_names(validation), limit=cfg.validation.forgetting_limit,
        policy=cfg.validation.on_forgetting,
    )  # fmt: skip
