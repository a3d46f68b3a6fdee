"""`blankfill evaluate`: how well runs fill held-out blanks, and how they do on tasks."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from blankfill.api.evaluate_tasks import (
    RunTasks,
    TaskComparison,
    ask_run,
    compare_runs,
    encode_tasks,
    find_seen_items,
    read_tasks_of,
    require_two,
)
from blankfill.api.parameters import (
    CheckpointName,
    PathLike,
    Paths,
    Texts,
    as_list,
    as_path,
)
from blankfill.config.arguments import checks_arguments
from blankfill.config.common import Unless
from blankfill.config.ranges import Range, Seed
from blankfill.config.train import DeviceKind
from blankfill.errors import ConfigError, DataError
from blankfill.evaluate.protocol import ProtocolName
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

__all__ = ["EvaluateResult", "RunEvaluation", "evaluate", "record_evaluation"]

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
class EvaluateResult:
    """The scores of one run or of several, all asked the same."""

    runs: list[RunEvaluation]
    """On held-out text, in the order in which they were named; empty without it."""
    tasks: list[RunTasks] = field(default_factory=list["RunTasks"])
    """On tasks, in the same order; empty without tasks."""
    comparison: list[TaskComparison] = field(default_factory=list["TaskComparison"])
    """Two runs, task by task, where they were to be compared."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class _Candidate:
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


@checks_arguments
def evaluate(
    runs: Annotated[Paths, Unless("compare")] = (),
    /,
    *,
    data: Annotated[Paths, Unless("tasks", "compare")] = (),
    tasks: Texts = (),
    items: PathLike | None = None,
    protocol: ProtocolName = "cloze",
    shots: Annotated[int, Range(0, 1000)] | None = None,
    max_items: Annotated[int, Range(1, 10**9)] | None = None,
    seen: Paths = (),
    compare: Paths = (),
    checkpoint: CheckpointName | None = None,
    baselines: bool = True,
    max_blanks: Annotated[int, Range(1, 10**9)] = 400,
    seed: Seed = 0,
    weights: Literal["last", "ema"] = "last",
    device: DeviceKind = "auto",
) -> EvaluateResult:
    """Evaluate runs on held-out text beside n-gram models, on tasks, and beside each other.

    The blanks are drawn in the characters of the text, by one law for every run, tokenizer and
    objective (docs/evaluation.md). For each language: the share of blanks filled exactly, with and
    without the length told, and the loss per token, character and byte; the same with everything
    right of the blank taken away; and a unigram and an interpolated Kneser-Ney trigram estimated on
    the run's training stores. Every score has its standard error.

    Tasks are items of benchmarks in files of yours, whose names say what is asked; their answers
    stay in the run's tasks.json, by which runs are compared later.

    Example:
        blankfill evaluate runs/mine --data store-valid
        blankfill evaluate runs/mine --tasks eval/en/sst2.jsonl.gz eval/zh --protocol glm-130b
        blankfill evaluate --compare runs/mine runs/other

    Args:
        runs: folder of a pretrained run, or of one of its checkpoints; or several, which are asked
            the same.
        data: token stores of held-out text, one or several, of any tokenizer.
        tasks: files of items, folders with such files, or names of tasks whose files lie in
            --items. A file's name says its task; one of another name has to be in GLM-130B's
            format.
        items: folder in which the files of tasks that are named lie, at any depth.
        protocol: how items are asked. cloze: both sides of the blank are read, and exactly this
            fill is scored. glm-130b: as GLM-130B was, in English words, by the sum of the tokens.
            length-normalised: by bytes of text. bidirectional: the text before the blank is read,
            the rest scored. unidirectional: all is read from left to right. few-shot: behind four
            solved examples.
        shots: solved examples before each item; what the protocol says where not given.
        max_items: most lines of each task, drawn from all; all where not given.
        seen: training stores; items that they hold 13 words or Chinese characters in a row of are
            counted, and scores given without them too.
        compare: two runs that were asked tasks, whose answers are compared item by item; or two
            folders of runs, which are seeds of one.
        checkpoint: last, best (lowest validation loss), or a step; the last where not given.
        baselines: estimate the n-gram models on the run's training stores, or on 33.5 million of
            their tokens where they hold more; where a store is not there any more, or holds other
            text than it did, the models are left out and a warning says so.
        max_blanks: most blanks of each language.
        seed: seed of the blanks.
        weights: the last ones, or their moving average (--optimizer.ema-decay).
        device: auto, cpu or cuda; auto takes the CUDA device where there is one.

    Raises:
        CheckpointError: a folder is not a run or has no such checkpoint, its evaluation.json is not
            ours, or its loss is not a number.
        DataError: a store of held-out text is missing, empty or without a blank, or a run's rows
            are too short for one.
        ConfigError: max_blanks is not positive, or there is no such device.
    """
    from blankfill.engine.device import choose_device
    from blankfill.generate import LanguageModel
    from blankfill.runs import locate

    paths = [as_path(run) for run in as_list(runs)]
    sides = [as_path(side) for side in as_list(compare)]
    held_out, words = [as_path(path) for path in as_list(data)], as_list(tasks)
    _require_work(paths, held_out, words, sides)
    choose_device(device)
    # What can be wrong with any of the runs is found before the first model is loaded and scored,
    # which may take long.
    places = [locate(path, checkpoint) for path in paths]
    records = [_checked_run(place, weights) for place in places]
    asked = read_tasks_of(
        words, None if items is None else as_path(items), protocol=protocol, shots=shots,
        max_items=max_items, seed=seed,
    )  # fmt: skip
    encoded = [encode_tasks(place, asked) for place in places] if asked else []
    candidates: list[_Candidate] = []
    blanks: BlankSet | None = None
    if held_out:
        from blankfill.evaluate.held_out import draw_held_out

        stores = _open_held_out(held_out)
        blanks = draw_held_out(stores, max_blanks=max_blanks, seed=seed)
        candidates = [
            _prepare(place, record, blanks, stores, baselines=baselines)
            for place, record in zip(places, records, strict=True)
        ]
    known = find_seen_items([as_path(path) for path in as_list(seen)], asked)
    found: list[RunEvaluation] = []
    answered: list[RunTasks] = []
    fitted = _Fitted()
    for k, place in enumerate(places):
        lm = LanguageModel.load(
            place.run, checkpoint=place.checkpoint, weights=weights, device=device
        )
        if blanks is not None:
            found.append(_evaluate_run(lm, candidates[k], blanks, fitted, seed, weights))
        if asked:
            answered.append(ask_run(lm, place, encoded[k], known, weights=weights))
    return EvaluateResult(
        runs=found, tasks=answered, comparison=compare_runs(sides) if sides else []
    )


def _require_work(
    runs: Sequence[Path], data: Sequence[Path], tasks: Sequence[str], compare: Sequence[Path]
) -> None:
    """Check that there is something to do, and something to do it with.

    Raises:
        ConfigError: there is not.
    """
    if runs and not (data or tasks):
        raise ConfigError("what the runs are to be evaluated on was not named; give held-out text "
                          "as --data, or tasks as --tasks")  # fmt: skip
    if not runs and (data or tasks or not compare):
        raise ConfigError("no run was named; try: blankfill evaluate runs/mine --data store-valid")
    if compare:
        require_two(compare)


def _evaluate_run(
    lm: LanguageModel, one: _Candidate, blanks: BlankSet, fitted: _Fitted, seed: int,
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


def _checked_run(place: Place, weights: Literal["last", "ema"]) -> RunRecord:
    """Read what a run says of itself, and check that it can be scored and its scores be kept."""
    from blankfill.generate.loading import find_weights
    from blankfill.runs import check_evaluation, read_run
    from blankfill.runs.tasks import read_tasks

    record = read_run(place.run)
    check_evaluation(place.run)  # what is there will be replaced, so it has to be ours
    read_tasks(place.run)
    find_weights(place, weights)
    if not os.access(place.run, os.W_OK):
        log.warning("%s cannot be written: its scores are shown and not recorded there", place.run)
    return record


def _open_held_out(paths: Sequence[Path]) -> list[TokenStore]:
    """Open held-out stores; each may be of a tokenizer of its own."""
    from blankfill.prepare import open_stores

    if not paths:
        return open_stores(paths)  # it says that no store was named
    return [store for path in paths for store in open_stores([path])]


def _prepare(
    place: Place, record: RunRecord, blanks: BlankSet, stores: Sequence[TokenStore], *,
    baselines: bool,
) -> _Candidate:  # fmt: skip
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
    return _Candidate(
        place=place, items=items, train_stores=train_stores, own_stores=own, notes=notes
    )


class _Fitted:
    """The n-gram models of the run before, which the next may have as well."""

    def __init__(self) -> None:
        self._of: tuple[object, ...] = ()
        self._models: Baselines | None = None

    def of(self, candidate: _Candidate, vocab_size: int) -> Baselines | None:
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
