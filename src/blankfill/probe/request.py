"""A probe as it was asked for: checked before the long work, then done.

Shapes: n items, L blocks, D hidden.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from blankfill import progress
from blankfill.config.checkpoint import CheckpointName
from blankfill.config.train import DeviceKind
from blankfill.errors import ConfigError, DataError
from blankfill.generate.loading import Weights
from blankfill.probe.choose import admissions
from blankfill.probe.components import collinearity_of, is_separated, learn_components
from blankfill.probe.diagnose import calibrate
from blankfill.probe.families import Float64
from blankfill.probe.folds import Folds, given_folds, require_apart
from blankfill.probe.likelihood import NoFitError
from blankfill.probe.names import CATEGORICAL, COUNTS, LINKS, FamilyName, LinkName
from blankfill.probe.nested import Task
from blankfill.probe.notes import notes_of
from blankfill.probe.outcome import ProbeCleaning, ProbeExplained, ProbeResult
from blankfill.probe.probing import (
    Choice,
    Settings,
    choose,
    explain_layer,
    predict_layers,
    steps_of,
    usable,
)
from blankfill.probe.represent import Item, encode_items, require_place
from blankfill.probe.states import Source, open_source
from blankfill.probe.table import Columns, Table, Value, read_table
from blankfill.probe.target import Target, code_target, require_varied

__all__ = ["Request", "answer"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What is asked; the options of `api.probe`."""

    run: Path
    data: Path
    target: str
    text: str
    at: str
    layer: int | None
    family: FamilyName | None
    """None where it is to be chosen."""
    link: LinkName | None
    order: tuple[str, ...]
    group: str | None
    exposure: str | None
    folds: int
    fold_by: str | None
    seeds: int
    seed: int
    explains: bool
    skip_long: bool
    checkpoint: CheckpointName | None
    weights: Weights
    device: DeviceKind


@dataclass(frozen=True, slots=True, eq=False)
class _Checked:
    """What is known before a hidden state is computed."""

    table: Table
    items: list[Item]
    too_long: int
    groups: np.ndarray[tuple[int], np.dtype[np.int64]]
    given: Folds | None
    only: FamilyName | None
    """The one family that the target admits, where it is one."""


def answer(request: Request, page: str) -> ProbeResult:
    """Make a probe.

    Args:
        request: what is asked.
        page: where its report will be.

    Raises:
        BlankfillError: as `api.probe`.
    """
    _check_options(request)
    source = open_source(request.run, checkpoint=request.checkpoint, weights=request.weights,
                         device=request.device)  # fmt: skip
    _check_layer(request, source.cfg.model.num_layers)
    known = _check_data(request, source)
    # What the target refuses is said before the states are made.
    named = request.family or ("ordinal" if request.order else known.only)
    if named is not None:
        _code(request, named, known)
    trained = _layers(request, source.trained(known.items))
    first = _layers(request, source.untrained(known.items, request.seed), refuse=False)
    choice = _choose(request, known, trained)
    family = request.family or (choice.family if choice else "gaussian")
    target = _code(request, family, known)
    task = _task(known, family, target)
    _check_separation(request, task, trained)
    settings = Settings(seed=request.seed, seeds=request.seeds, num_folds=request.folds,
                        given=known.given)  # fmt: skip
    tokens = [item.prompt.tokens.astype(np.int64) for item in known.items]
    types = [int(each[item.index or 0]) if item.sop is None else int(each[0])
             for each, item in zip(tokens, known.items, strict=True)]  # fmt: skip
    folds_used = len(known.given) if known.given else request.folds
    steps = steps_of(len(trained), len(first), folds_used, request.seeds)
    with progress.bar("probe", steps, "fits") as meter:
        found = predict_layers(
            task, trained, first, tokens, known.table.texts, types, source.tokenizer.vocab_size,
            settings, choice.without_folds if choice else (), meter.advance,
        )  # fmt: skip
    link = request.link or LINKS[family][0]
    explained, reason = _explain(request, task, link, trained[found.layer], found.nested.folds,
                                 target, known)  # fmt: skip
    result = ProbeResult(
        run=str(source.run), step=source.step, data=str(request.data), target=request.target,
        text=request.text, at=request.at, family=family, link=link, classes=target.classes,
        cleaning=_cleaning(known), families=choice.compared if choice else (), layer=found.layer,
        layers=found.layers, score=found.score, beside=found.beside,
        selectivity=found.selectivity, stability=found.stability,
        calibration=calibrate(found.nested.chosen, task.y),
        collinearity=collinearity_of(trained[found.layer]), explained=explained,
        not_explained=reason, notes=(), page=page,
    )  # fmt: skip
    return replace(result, notes=tuple(notes_of(result, "en")))


def _check_options(request: Request) -> None:
    require_place(request.at, request.text)
    family, link = request.family, request.link
    if link is not None and family is None:
        raise ConfigError(f"--link {link} is of a family; name it, too, such as --family binomial")
    if family is not None and link is not None and link not in LINKS[family]:
        raise ConfigError(f"--link {link} is none of {family}'s; take {' or '.join(LINKS[family])}")
    if request.exposure is not None and family not in (None, *COUNTS):
        raise ConfigError(f"--exposure is for counts, and {family} has none; leave it out, or take "
                          "--family poisson")  # fmt: skip
    if request.exposure is not None and link == "sqrt":
        raise ConfigError("--exposure multiplies a mean, which only --link log can; leave one out")
    if request.order and family not in (None, "ordinal"):
        raise ConfigError(f"--order is for levels, and {family} has none; leave it out, or take "
                          "--family ordinal")  # fmt: skip
    if len(set(request.order)) < len(request.order):
        raise ConfigError(f"--order {' '.join(request.order)} names a level twice")


def _check_layer(request: Request, num_layers: int) -> None:
    if request.layer is not None and request.layer > num_layers:
        raise ConfigError(f"--layer {request.layer} is not there: this model has the layers 0, the "
                          f"embedding, to {num_layers}")  # fmt: skip


def _check_data(request: Request, source: Source) -> _Checked:
    """Read the items, and find all that is wrong with them but for what hidden states tell.

    Raises:
        DataError: they cannot be used.
    """
    columns = Columns(text=request.text, target=request.target, group=request.group,
                      exposure=request.exposure, fold=request.fold_by)  # fmt: skip
    table = read_table(request.data, columns)
    require_varied(table.targets, request.target)
    items, wrong = encode_items(table.texts, table.places, source.tokenizer, source.cfg, request.at)
    long = [each for each in wrong if each]
    if long and not request.skip_long:
        raise DataError(f"{long[0]}" + (f", as {len(long) - 1:,} more" if len(long) > 1 else "")
                        + "; cut a field, as in --text '{text:400}', or leave them out with "
                        "--skip-long")  # fmt: skip
    if not items:
        raise DataError(f"no text of {request.data} fits a row of this model; cut a field, as in "
                        "--text '{text:400}'")  # fmt: skip
    table = table.take([not each for each in wrong], long)
    require_varied(table.targets, request.target)
    names, groups = np.unique(np.asarray(table.groups), return_inverse=True)
    given = None
    if request.fold_by is not None:
        given = given_folds(table.folds)
        require_apart(given, groups, [str(name) for name in names])
    num_folds = request.folds if given is None else len(given)
    if num_folds < 2:
        raise DataError(f"--fold-by {request.fold_by} names one fold, and what is left out in turn "
                        "needs two or more")  # fmt: skip
    if len(names) <= num_folds:
        raise DataError(f"{request.data} has {len(table.texts):,} items of {len(names):,} "
                        f"groups, too few for {num_folds} folds; take fewer folds, or more items"
                        )  # fmt: skip
    if request.exposure is not None and len(set(table.exposures)) == 1:
        raise DataError(f"the exposure {request.exposure!r} is {table.exposures[0]:g} in every "
                        "row, so it says nothing; leave --exposure out")  # fmt: skip
    admitted = admissions(table.targets, ordered=bool(request.order),
                          exposed=request.exposure is not None)  # fmt: skip
    families: list[FamilyName] = [each.family for each in admitted if not each.reason]
    if request.family is None and not families:
        raise DataError(f"the target {request.target!r} admits no family with these options; name "
                        "one with --family")  # fmt: skip
    only = families[0] if len(families) == 1 else None
    return _Checked(table, items, len(long), groups.astype(np.int64), given, only)


def _code(request: Request, family: FamilyName, known: _Checked) -> Target:
    num_folds = request.folds if known.given is None else len(known.given)
    return code_target(family, known.table.targets, known.table.places, request.target,
                       request.order, num_folds)  # fmt: skip


def _task(known: _Checked, family: FamilyName, target: Target) -> Task:
    return Task(family=family, y=target.y, groups=known.groups, num_classes=len(target.classes),
                exposure=np.asarray(known.table.exposures))  # fmt: skip


def _layers(
    request: Request, states: np.ndarray[tuple[int, ...], np.dtype[np.float32]], *,
    refuse: bool = True,
) -> dict[int, Float64]:  # fmt: skip
    """Give the layers that are asked for and that tell items apart.

    Raises:
        DataError: none does.
    """
    asked = range(len(states)) if request.layer is None else [request.layer]
    found = usable({layer: states[layer].astype(np.float64) for layer in asked})
    if not found and refuse:
        raise DataError(f"the hidden state at {request.at!r} of "
                        f"{f'layer {request.layer}' if request.layer is not None else 'any layer'}"
                        " is the same for every item; take another layer or place")  # fmt: skip
    return found


def _choose(request: Request, known: _Checked, trained: dict[int, Float64]) -> Choice | None:
    """Choose a family, on the layer in the middle."""
    if request.family is not None:
        return None
    values = known.table.targets
    numbers = not isinstance(values[0], str)
    y = np.asarray(values, np.float64) if numbers else np.zeros(len(values))
    distinct: list[Value] = sorted(set(values), key=float if numbers else str)
    distinct = [*request.order] if request.order and not numbers else distinct
    levels = None
    if all(value in distinct for value in values):
        codes = np.array([distinct.index(value) for value in values], np.float64)
        levels = Task(family="ordinal", y=codes, groups=known.groups, num_classes=len(distinct),
                    exposure=np.asarray(known.table.exposures))  # fmt: skip
    else:
        _code(request, "ordinal", known)  # says which value is none of --order
    task = Task(family="gaussian", y=y, groups=known.groups,
                exposure=np.asarray(known.table.exposures))  # fmt: skip
    middle = sorted(trained)[len(trained) // 2]
    folds = known.given or task.draw(request.folds, request.seed)
    return choose(values, task, levels, trained[middle], folds, ordered=bool(request.order),
                  exposed=request.exposure is not None)  # fmt: skip


def _check_separation(request: Request, task: Task, trained: dict[int, Float64]) -> None:
    """Refuse, before the long work, classes that one component of every layer parts perfectly.

    Raises:
        DataError: they are.
    """
    if not request.explains or task.family not in CATEGORICAL:
        return
    for features in trained.values():
        first = learn_components(features)
        if not is_separated(task.family, first.apply(features, 1), task.y, task.num_classes):
            return
    raise DataError(
        f"the classes of {request.target!r} are separated perfectly by one component of every "
        "layer, so maximum likelihood has no finite answer; take --fit predict, whose penalty "
        "keeps it finite"
    )


def _explain(
    request: Request, task: Task, link: LinkName, features: Float64, folds: Folds, target: Target,
    known: _Checked,
) -> tuple[ProbeExplained | None, str]:  # fmt: skip
    if not request.explains:
        return None, "not asked for"
    try:
        return explain_layer(task, link, features, folds, target.classes, known.table.places,
                             request.seed), ""  # fmt: skip
    except NoFitError as error:
        return None, str(error)


def _cleaning(known: _Checked) -> ProbeCleaning:
    table = known.table
    return ProbeCleaning(
        read=table.read, unreadable=table.unreadable, missing=table.missing,
        duplicates=table.duplicates, contradictions=table.contradictions,
        too_long=known.too_long, kept=len(table.texts), groups=int(known.groups.max()) + 1,
        first=table.first,
    )  # fmt: skip
