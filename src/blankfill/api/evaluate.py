"""`blankfill evaluate`: how well a run fills held-out blanks."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from blankfill.config.ranges import Range, Seed, checks_numbers
from blankfill.config.train import DeviceKind

if TYPE_CHECKING:
    from blankfill.evaluate.blanks import BlankReport

__all__ = ["EvaluateResult", "evaluate", "record_evaluation"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateResult:
    """A run's scores on held-out text."""

    run: str
    """The run's folder."""
    step: int
    """Optimizer steps of the checkpoint that was scored."""
    blanks: BlankReport
    """Held-out blanks, per language, beside the baselines."""
    rows: dict[str, float]
    """Loss over packed rows under the run's own mixture of blanks: nats per target, over all, per
    kind and per language."""


@checks_numbers
def evaluate(
    run: Path,
    /,
    *,
    data: Sequence[Path],
    baselines: bool = True,
    max_blanks: Annotated[int, Range(1, 10**9)] = 400,
    seed: Seed = 0,
    weights: Literal["last", "ema"] = "last",
    device: DeviceKind = "auto",
) -> EvaluateResult:
    """Evaluate a run on held-out text, beside n-gram models.

    For each language: nats per blank token, bits per byte, and the share of blanks filled exactly;
    the same with everything right of the blank taken away; and a unigram and an interpolated
    Kneser-Ney trigram estimated on the run's training stores.

    Example:
        blankfill evaluate runs/mine --data store-valid

    Args:
        run: folder of a pretrained run.
        data: token stores of held-out text.
        baselines: estimate the n-gram models; the run's training stores must still be there.
        max_blanks: most blanks of each language.
        seed: seed of the blanks.
        weights: the last ones, or their moving average (--train.ema-decay).
        device: auto, cpu or cuda; auto takes the CUDA device where there is one.

    Raises:
        CheckpointError: the folder is not a run.
        DataError: a store is missing or of another tokenizer.
        ConfigError: max_blanks is not positive, or there is no such device.
    """
    from blankfill.runtime import tune_process

    tune_process()
    import torch

    from blankfill.data.rows import RowSource
    from blankfill.evaluate.blanks import evaluate_blanks
    from blankfill.prepare import open_stores
    from blankfill.train import load_run
    from blankfill.train.validate import score_batches, validation_batches

    loaded = load_run(Path(run), weights=weights, device=device)
    cfg = loaded.cfg
    stores = open_stores([Path(path) for path in data], loaded.tokenizer.fingerprint)
    training = [Path(entry["path"]) for entry in loaded.info["data"]]
    missing = [path for path in training if not path.exists()]
    if baselines and missing:
        log.warning("no n-gram models: the training store %s is not there", missing[0])
    train_stores = (
        open_stores(training, loaded.tokenizer.fingerprint)
        if baselines and training and not missing
        else []
    )
    report = evaluate_blanks(
        loaded.model, loaded.tokenizer, stores, cfg.objective, row_length=cfg.train.row_length,
        train_stores=train_stores, max_items=max_blanks, seed=seed,
    )  # fmt: skip
    rows = RowSource(
        stores, cfg.objective, loaded.tokenizer.ids, row_length=cfg.train.row_length, seed=seed
    )
    batches = validation_batches(
        rows, max_rows=256, micro_batch_rows=min(8, cfg.train.micro_batch_rows)
    )
    scores = score_batches(loaded.model, batches, torch.float32, prefix="")
    record_evaluation(Path(run), loaded.step, report)
    return EvaluateResult(run=str(run), step=loaded.step, blanks=report, rows=scores)


def record_evaluation(run: Path, step: int, report: BlankReport) -> None:
    """Leave the scores in the run's evaluation.json, where a report finds them."""
    from blankfill.checkpoint import write_json

    try:
        write_json(run / "evaluation.json", {"step": step, "blanks": dataclasses.asdict(report)})
    except OSError as error:
        log.warning("the evaluation is not recorded in %s (%s)", run, error)
