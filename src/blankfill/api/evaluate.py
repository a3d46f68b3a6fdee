"""`blankfill evaluate`: how well a run fills held-out blanks."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from blankfill.api.parameters import CheckpointName, PathLike, Paths, as_list, as_path
from blankfill.config.arguments import checks_arguments
from blankfill.config.ranges import Range, Seed
from blankfill.config.train import DeviceKind
from blankfill.errors import DataError
from blankfill.results import short_repr

if TYPE_CHECKING:
    from blankfill.data.store import TokenStore
    from blankfill.evaluate.blanks import BlankReport
    from blankfill.runs.record import StoreEntry

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
    notes: list[str]
    """What was left out, and why."""

    __repr__ = short_repr


@checks_arguments
def evaluate(
    run: PathLike,
    /,
    *,
    data: Paths,
    checkpoint: CheckpointName | None = None,
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
        run: folder of a pretrained run, or of one of its checkpoints.
        data: token stores of held-out text, one or several.
        checkpoint: last, best (lowest validation loss), or a step; the last where not given.
        baselines: estimate the n-gram models on the run's training stores, or on 33.5 million of
            their tokens where they hold more; where a store is not there any more, or holds other
            text than it did, the models are left out and a warning says so.
        max_blanks: most blanks of each language.
        seed: seed of the blanks.
        weights: the last ones, or their moving average (--optimizer.ema-decay).
        device: auto, cpu or cuda; auto takes the CUDA device where there is one.

    Raises:
        CheckpointError: the folder is not a run, has no such checkpoint, or its evaluation.json is
            not ours.
        DataError: a store of held-out text is missing, empty or of another tokenizer.
        ConfigError: max_blanks is not positive, or there is no such device.
    """
    from blankfill.data.rows import RowSource
    from blankfill.evaluate.blanks import evaluate_blanks
    from blankfill.generate import LanguageModel
    from blankfill.prepare import open_stores
    from blankfill.runs import locate, read_evaluation, read_run
    from blankfill.train.validate import score_batches, validation_batches

    place = locate(as_path(run), checkpoint)
    record = read_run(place.run)
    read_evaluation(place.run)  # what is there will be replaced, so it has to be ours
    # What cannot be evaluated on is found before a model is loaded, which may take minutes.
    fingerprint = record.tokenizer_fingerprint
    stores = open_stores([Path(path) for path in as_list(data)], fingerprint)
    train_stores, notes = _training_stores(record.data, fingerprint) if baselines else ([], [])
    for note in notes:
        log.warning("%s", note)
    lm = LanguageModel.load(place.run, checkpoint=place.checkpoint, weights=weights, device=device)
    cfg = lm.cfg
    objective = cfg.objective.of_other_stores
    rows = RowSource(stores, objective, lm.ids, row_length=cfg.train.row_length, seed=seed)
    batches = validation_batches(
        rows, max_rows=256, micro_batch_rows=min(8, cfg.train.micro_batch_rows)
    )
    report = evaluate_blanks(
        lm, stores, objective, row_length=cfg.train.row_length, train_stores=train_stores,
        max_items=max_blanks, seed=seed,
    )  # fmt: skip
    scores = score_batches(lm.model, batches, lm.precision, prefix="")
    record_evaluation(place.run, lm.step, report, notes)
    return EvaluateResult(run=str(place.run), step=lm.step, blanks=report, rows=scores, notes=notes)


def _training_stores(
    entries: Sequence[StoreEntry], fingerprint: str | None
) -> tuple[list[TokenStore], list[str]]:
    """Open what a run was trained on; nothing, and why, where it is not that any more.

    Args:
        entries: what run.json says of it.
        fingerprint: of the run's tokenizer.
    """
    from blankfill.prepare import open_stores

    if not entries:
        return [], ["no n-gram models: run.json names no training store"]
    try:
        stores = open_stores([Path(entry.path) for entry in entries], fingerprint)
    except DataError as error:
        return [], [f"no n-gram models: what the run was trained on cannot be read ({error})"]
    for entry, store in zip(entries, stores, strict=True):
        if entry.fingerprint != store.fingerprint:
            return [], [
                f"no n-gram models: {store.path} does not hold what the run was trained on any "
                f"more (fingerprint {store.fingerprint[:12]}, then {entry.fingerprint[:12]}); "
                "build the store of that text again at this path"
            ]
    return stores, []


def record_evaluation(run: Path, step: int, report: BlankReport, notes: Sequence[str] = ()) -> None:
    """Leave the scores in the run's evaluation.json, where a report finds them."""
    from blankfill.atomic import write_json

    try:
        write_json(run / "evaluation.json", {
            "format": "blankfill evaluation", "version": 1, "step": step,
            "blanks": dataclasses.asdict(report), "notes": list(notes),
        })  # fmt: skip
    except OSError as error:
        log.warning("the evaluation is not recorded in %s (%s)", run, error)
