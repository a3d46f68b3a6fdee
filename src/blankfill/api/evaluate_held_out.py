"""Held-out text of `blankfill evaluate`: how well runs fill its blanks, beside n-gram models."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blankfill.errors import DataError
from blankfill.results import short_repr

if TYPE_CHECKING:
    from blankfill.data.store import TokenStore
    from blankfill.evaluate.baselines import Baselines
    from blankfill.evaluate.items import BlankItem
    from blankfill.evaluate.law import BlankSet
    from blankfill.generate import LanguageModel
    from blankfill.runs import Place, RunRecord
    from blankfill.runs.evaluation import BlankReport
    from blankfill.runs.record import StoreEntry

__all__ = [
    "Candidate",
    "FittedModels",
    "RunEvaluation",
    "evaluate_run",
    "prepare_run",
    "record_evaluation",
]

log = logging.getLogger(__name__)

MAX_ROWS = 256
"""Packed rows that are scored."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunEvaluation:
    """One run's scores on held-out text."""

    run: str
    """The run's folder."""
    step: int
    """Optimizer steps of the checkpoint that was scored."""
    blanks: BlankReport
    """Held-out blanks, per language, beside the baselines."""
    rows: dict[str, float]
    """Loss over packed rows under the run's own mixture of blanks: nats per target, over all, per
    kind and per language. Empty where no store is of the run's tokenizer."""
    notes: list[str]
    """What was left out, and why."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A run that has passed every check that can be made before scoring."""

    place: Place
    """The run's folder and which of its checkpoints."""
    items: dict[str, list[BlankItem]]
    """The blanks in its tokens, by language."""
    train_stores: list[TokenStore]
    """What its n-gram models are estimated on."""
    own_stores: list[TokenStore]
    """Held-out stores of its own tokenizer."""
    notes: list[str]
    """What is left out, and why."""


def evaluate_run(
    lm: LanguageModel, one: Candidate, blanks: BlankSet, fitted: FittedModels, seed: int,
    weights: str,
) -> RunEvaluation:  # fmt: skip
    """Score a run on held-out text, and leave its scores in its folder."""
    from blankfill.evaluate.blanks import evaluate_items

    report = evaluate_items(lm, blanks, one.items, fitted.of(one, lm.tokenizer.vocab_size))
    rows = _score_rows(lm, one.own_stores, seed)
    run = one.place.run
    record_evaluation(run, lm.step, report, one.notes, weights=weights)
    return RunEvaluation(run=str(run), step=lm.step, blanks=report, rows=rows, notes=one.notes)


def record_evaluation(
    run: Path, step: int, report: BlankReport, notes: Sequence[str] = (), *, weights: str = "last"
) -> None:
    """Leave the scores in the run's evaluation.json, where a report finds them."""
    from blankfill.runs import Evaluation, write_evaluation

    evaluation = Evaluation(step=step, weights=weights, blanks=report, notes=tuple(notes))
    try:
        write_evaluation(run, evaluation)
    except OSError as error:
        log.warning("the evaluation is not recorded in %s (%s)", run, error)


def prepare_run(
    place: Place, record: RunRecord, blanks: BlankSet, stores: Sequence[TokenStore], *,
    baselines: bool,
) -> Candidate:  # fmt: skip
    """Encode the blanks for a run, and open what its n-gram models are estimated on."""
    from blankfill.evaluate.blanks import encode_set
    from blankfill.generate.loading import load_run_tokenizer

    tokenizer = load_run_tokenizer(place.run, record)
    items = encode_set(blanks, tokenizer, row_length=record.config.train.row_length)
    own = [store for store in stores if store.tokenizer_fingerprint == tokenizer.fingerprint]
    train_stores, notes = [], []
    if baselines:
        train_stores, notes = _training_stores(record.data, tokenizer.fingerprint)
    if len(own) < len(stores):
        left = [str(store.path) for store in stores if store not in own]
        notes.append(
            f"packed rows are not scored on {', '.join(left)}: built with another tokenizer than "
            "the run's; its blanks were read as text"
        )
    unsaid = sum(map(len, blanks.by_language.values())) - sum(map(len, items.values()))
    if unsaid:
        notes.append(f"{unsaid:,} blanks are left out: the run's tokenizer has no token for them")
    for note in notes:
        log.warning("%s: %s", place.run, note)
    return Candidate(
        place=place, items=items, train_stores=train_stores, own_stores=own, notes=notes
    )


class FittedModels:
    """The n-gram models of the run before, which the next may have as well."""

    def __init__(self) -> None:
        self._of: tuple[object, ...] = ()
        self._models: Baselines | None = None

    def of(self, candidate: Candidate, vocab_size: int) -> Baselines | None:
        """Estimate a run's models, unless they are those that stand here."""
        from blankfill.evaluate.baselines import fit_baselines

        wanted = (vocab_size, *(store.fingerprint for store in candidate.train_stores))
        if not candidate.train_stores:
            return None
        if self._models is None or wanted != self._of:
            self._models = None  # its memory goes before the next needs as much
            self._models = fit_baselines(candidate.train_stores, vocab_size)
            self._of = wanted
        return self._models


def _score_rows(lm: LanguageModel, stores: Sequence[TokenStore], seed: int) -> dict[str, float]:
    """Score packed rows of held-out text under the run's own mixture of blanks."""
    from blankfill.data.rows import RowSource
    from blankfill.train.validate import score_batches, validation_batches

    if not stores:
        return {}
    train = lm.cfg.train
    source = RowSource(
        stores, lm.cfg.objective.of_other_stores, lm.ids, row_length=train.row_length, seed=seed
    )
    batches = validation_batches(
        source, max_rows=MAX_ROWS, micro_batch_rows=min(8, train.micro_batch_rows)
    )
    return score_batches(lm.model, batches, lm.precision, prefix="")


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
