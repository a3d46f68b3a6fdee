"""`blankfill evaluate`: how well runs fill held-out blanks, and how they do on tasks."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from blankfill.api.evaluate_harness import (
    HarnessMode,
    HarnessScore,
    find_harness_tasks,
    run_harness,
)
from blankfill.api.evaluate_held_out import (
    Candidate,
    FittedModels,
    RunEvaluation,
    evaluate_run,
    prepare_run,
)
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
    as_list,
    as_path,
)
from blankfill.config.arguments import checks_arguments
from blankfill.config.common import Unless
from blankfill.config.ranges import Range, Seed
from blankfill.config.train import DeviceKind
from blankfill.errors import ConfigError
from blankfill.evaluate.protocol import ProtocolName
from blankfill.results import short_repr

if TYPE_CHECKING:
    from blankfill.evaluate.law import BlankSet
    from blankfill.runs import Place, RunRecord

__all__ = ["EvaluateResult", "evaluate"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateResult:
    """The scores of one run or of several, all asked the same."""

    runs: list[RunEvaluation]
    """On held-out text, in the order in which they were named; empty without it."""
    tasks: list[RunTasks] = field(default_factory=list["RunTasks"])
    """On tasks, in the same order; empty without tasks."""
    harness: list[HarnessScore] = field(default_factory=list["HarnessScore"])
    """What lm-eval says of the runs; empty where it was not asked."""
    comparison: list[TaskComparison] = field(default_factory=list["TaskComparison"])
    """Two runs, task by task, where they were to be compared."""

    __repr__ = short_repr


@checks_arguments
def evaluate(
    runs: Annotated[Paths, Unless("compare")] = (),
    /,
    *,
    data: Annotated[Paths, Unless("tasks", "compare", "harness")] = (),
    tasks: Paths = (),
    items: PathLike | None = None,
    protocol: ProtocolName = "cloze",
    shots: Annotated[int, Range(0, 1000)] | None = None,
    max_items: Annotated[int, Range(1, 10**9)] | None = None,
    seen: Paths = (),
    compare: Paths = (),
    harness: Paths = (),
    harness_mode: HarnessMode = "bidirectional",
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
        harness: tasks of lm-eval (the extra eval): files or folders of items, as for --tasks, which
            are written for it; YAML files; or names that it knows.
        harness_mode: what is read of a context there. bidirectional: all of it, before [gMASK].
            unidirectional: from left to right. mask: all of it, before [MASK].
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
    held_out, words = [as_path(path) for path in as_list(data)], _words(tasks)
    other = _words(harness)
    _require_work(paths, held_out, [*words, *other], sides)
    choose_device(device)
    # What can be wrong with any of the runs is found before the first model is loaded and scored,
    # which may take long.
    places = [locate(path, checkpoint) for path in paths]
    records = [_checked_run(place, weights) for place in places]
    folder = None if items is None else as_path(items)
    asked = read_tasks_of(
        words, folder, protocol=protocol, shots=shots, max_items=max_items, seed=seed
    )
    in_harness = (
        find_harness_tasks(
            other, folder, mode=harness_mode, shots=shots, max_items=max_items, seed=seed
        ) if other else None
    )  # fmt: skip
    encoded = [
        encode_tasks(place.run, record, asked)
        for place, record in zip(places, records, strict=True)
    ] if asked else []  # fmt: skip
    candidates: list[Candidate] = []
    blanks: BlankSet | None = None
    if held_out:
        from blankfill.evaluate.held_out import draw_held_out
        from blankfill.prepare import open_stores_apart

        stores = open_stores_apart(held_out)
        blanks = draw_held_out(stores, max_blanks=max_blanks, seed=seed)
        candidates = [
            prepare_run(place, record, blanks, stores, baselines=baselines)
            for place, record in zip(places, records, strict=True)
        ]
    known = find_seen_items([as_path(path) for path in as_list(seen)], asked)
    found: list[RunEvaluation] = []
    answered: list[RunTasks] = []
    measured: list[HarnessScore] = []
    fitted = FittedModels()
    for k, place in enumerate(places):
        lm = LanguageModel.load(
            place.run, checkpoint=place.checkpoint, weights=weights, device=device
        )
        if blanks is not None:
            found.append(evaluate_run(lm, candidates[k], blanks, fitted, seed, weights))
        if asked:
            answered.append(ask_run(lm, place, encoded[k], known, weights=weights))
        if in_harness is not None:
            measured += run_harness(
                lm, in_harness, mode=harness_mode, shots=shots, max_items=max_items
            )
    return EvaluateResult(
        runs=found, tasks=answered, harness=measured,
        comparison=compare_runs(sides) if sides else [],
    )  # fmt: skip


def _words(named: Paths) -> list[str]:
    """Take names of tasks, which may be paths."""
    return [str(word) for word in as_list(named)]


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
