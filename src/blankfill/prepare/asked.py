"""What a user asks `pretrain` for, and what a run says where the user does not.

A new run stands on a preset, on what `--config` names, and on typed fields, the later over the
earlier. A run that goes on stands on its run.json, and typed fields are what changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from blankfill.config.common import SHORT_NAMES
from blankfill.config.model import ModelConfig
from blankfill.config.on_resume import OnResume, on_resume
from blankfill.config.parallel import AXES
from blankfill.config.presets import ALIASES
from blankfill.config.presets import preset as find_preset
from blankfill.config.run import RunConfig
from blankfill.data.mixture import parse_stores
from blankfill.data.store import TokenStore
from blankfill.disk.address import is_address
from blankfill.disk.names import shell_word
from blankfill.errors import CheckpointError, ConfigError, DataError
from blankfill.prepare.config_file import GivenConfig, read_config
from blankfill.processes import this_place
from blankfill.runs import (
    Place,
    RunRecord,
    checkpoint_folder,
    list_checkpoints,
    locate,
    newest_checkpoint,
    read_run,
)
from blankfill.runs.record import StoreEntry

__all__ = ["Asked", "Request", "laid_out", "settle"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What was said, by the names of `api.pretrain`'s parameters; None where nothing was."""

    preset: str | None
    config: RunConfig | Path | None
    changes: Mapping[str, object]
    data: Sequence[Path] | None
    replay: Sequence[Path]
    validation: Sequence[Path] | None
    out: Path | None
    resume: Path | bool
    init: Path | None
    allow_change: Sequence[str]
    minutes: float

    @property
    def repeats(self) -> bool:
        """Whether the whole run is said again, rather than the changes alone."""
        return self.preset is not None or self.config is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What follows from a request."""

    cfg: RunConfig
    """The run's configuration."""
    preset: str | None
    """The preset that it stands on, where that is known."""
    vocab_size: int | None
    """Rows of the embedding, where a number was asked for."""
    run: Path
    """The run's folder."""
    old: RunRecord | None
    """What the folder says of the run that goes on; None where a run begins."""
    data: list[Path]
    """Token stores to train on."""
    shares: list[float | None]
    """Of each store in the rows."""
    validation: list[Path]
    """Token stores to validate on."""
    init: Path | None
    """The run or the checkpoint whose weights it starts from."""
    allow_change: list[str]
    """Fields that a run that goes on may change."""


def settle(request: Request) -> Asked:
    """Settle what a run is made of.

    Raises:
        ConfigError, DataError, CheckpointError: what was said contradicts itself, lacks something,
            or names something that is not there.
    """
    run, old = _find_run(request)
    given = read_config(request.config) if isinstance(request.config, Path) else GivenConfig()
    preset = _settle_preset(request, given, run, old)
    source = old or given.record  # what says the things that were not typed
    typed = {SHORT_NAMES.get(k, k): v for k, v in (*given.values.items(), *request.changes.items())}
    base = _base(request, given, preset, source)
    if request.minutes:
        base = _with_minutes(request, base, run, old)
    data, shares = _data(request, source, run)
    return Asked(
        cfg=laid_out(base, typed).changed(typed), preset=preset, run=run, old=old, data=data,
        shares=shares,
        vocab_size=_vocab_size(request, typed, preset, source, data),
        validation=_validation(request, source, run),
        init=_init(request, source, run, old),
        allow_change=[*request.allow_change, *_named(request, typed, old)],
    )  # fmt: skip


def laid_out(cfg: RunConfig, typed: Mapping[str, object]) -> RunConfig:
    """Keep the layout of a run where it is of the processes that were started: it belongs to the
    machine, and what is typed of one is the whole of it."""
    kept = cfg.parallel.num_processes == this_place().count
    if kept and not {f"parallel.{name}" for name in AXES} & typed.keys():
        return cfg
    return replace(cfg, parallel=replace(cfg.parallel, **dict.fromkeys(AXES, 1), schedule="1f1b"))


# -- the run ---------------------------------------------------------------------------------------


def _find_run(request: Request) -> tuple[Path, RunRecord | None]:
    """Tell the run's folder, and what it says where a run goes on there."""
    out, resume = request.out, request.resume
    named = resume if isinstance(resume, Path) else out
    if named is None:
        raise ConfigError(
            "--resume lacks the run that goes on; write --resume runs/mine" if resume else
            "pretrain lacks --out, the folder of the new run; a run goes on with --resume runs/mine"
        )  # fmt: skip
    if resume is False:
        return named, None
    place = locate(named)
    if out is not None and out.resolve() not in (named.resolve(), place.run.resolve()):
        raise ConfigError(
            f"--resume {named} and --out {out} name two folders; a run goes on in its own, so "
            "leave out --out (and write a preset before --resume)"
        )
    if resume is True and request.repeats and not (place.run / "run.json").exists():
        return place.run, None  # the first of several starts by one command
    record = read_run(place.run)
    record.require_whole(place.run, "is not trained")
    _require_newest(named, place)
    return place.run, record


def _require_newest(path: Path, place: Place) -> None:
    """Refuse to go on from a checkpoint that others follow, or that nobody trained."""
    run = place.run
    if not list_checkpoints(run):
        return
    newest = newest_checkpoint(run, parts=[])
    if place.checkpoint not in ("last", newest.step):
        raise ConfigError(
            f"{run} goes on from its newest checkpoint, of step {newest.step}; to begin from that "
            f"of step {place.checkpoint}, name a new run: --init {path} --out NEW"
        )
    if newest.state.training is None:
        raise CheckpointError(
            f"{run} was not trained, so there is nothing to go on with; to begin a run from its "
            f"weights, name --init {run} --data STORE --out NEW"
        )


# -- the configuration -----------------------------------------------------------------------------


def _settle_preset(
    request: Request, given: GivenConfig, run: Path, old: RunRecord | None
) -> str | None:
    """Tell which preset the run stands on; two that differ are refused."""
    typed = request.preset
    if typed is not None:
        find_preset(typed)
        typed = ALIASES.get(typed, typed)
    said = [
        (f"--config {request.config}", given.preset),
        (f"{run}", None if old is None else old.preset),
    ]
    for where, named in said:
        if typed is not None and named is not None and typed != named:
            raise ConfigError(
                f"{where} is of the preset {named}, not {typed}; leave one of the two out"
            )
    if typed is not None and given.record is not None and given.preset is None and old is None:
        raise ConfigError(
            f"--config {request.config} is a whole run, in which the preset {typed} would change "
            "nothing; leave one of the two out"
        )
    known = [name for _, name in said if name is not None]
    return typed if typed is not None else next(iter(known), None)


def _base(
    request: Request, given: GivenConfig, preset: str | None, source: RunRecord | None
) -> RunConfig:
    """Give the configuration that single fields stand on."""
    if isinstance(request.config, RunConfig):
        return request.config
    whole = given.record or source
    if whole is not None:
        return whole.config
    if preset is None:
        raise ConfigError(
            "pretrain lacks a preset, such as tiny; --config RUN begins another run like one, and "
            "--resume RUN goes on with one"
        )
    return find_preset(preset)


def _with_minutes(request: Request, base: RunConfig, run: Path, old: RunRecord | None) -> RunConfig:
    """Check that minutes may choose the steps; a run that goes on keeps those that it has."""
    if {"train.steps", "steps"} & {*request.changes}:
        raise ConfigError("--minutes and --train.steps both choose the steps; leave one out")
    if old is None:
        return base
    if not request.repeats:
        raise ConfigError(
            f"--minutes chooses the steps of a run that begins; {run} has "
            f"{old.config.train.steps}, and --train.steps gives it more"
        )
    return base.changed({
        "train.steps": old.config.train.steps,
        "schedule.warmup_steps": old.config.schedule.warmup_steps,
    })  # fmt: skip


def _vocab_size(
    request: Request, typed: Mapping[str, object], preset: str | None, source: RunRecord | None,
    data: Sequence[Path],
) -> int | None:  # fmt: skip
    """Tell how many rows of the embedding were asked for, if any were.

    The number of a preset stands for a vocabulary of its size, so another number is the user's. A
    run that is begun like another keeps the other's rows where it has the other's tokenizer.
    """
    asked = typed.get("model.vocab_size")
    if isinstance(asked, int):
        return asked
    if isinstance(request.config, RunConfig):
        usual = find_preset(preset).model if preset is not None else ModelConfig()
        rows = request.config.model.vocab_size
        return rows if rows != usual.vocab_size else None
    if source is None or not isinstance(request.config, Path) or not data:
        return None
    same = TokenStore.open(data[0]).tokenizer_fingerprint == source.tokenizer_fingerprint
    return source.config.model.vocab_size if same else None


def _named(request: Request, typed: Mapping[str, object], old: RunRecord | None) -> list[str]:
    """List what may change because it was typed: where nothing else was, that names it."""
    if old is None or request.repeats:
        return []
    may = on_resume(RunConfig)
    shares = ["shares"] if request.data is not None else []
    return [name for name in typed if may.get(name) is OnResume.BY_NAME] + shares


# -- the data --------------------------------------------------------------------------------------


def _data(
    request: Request, source: RunRecord | None, run: Path
) -> tuple[list[Path], list[float | None]]:
    """Give the stores to train on and their shares: those that were typed, or the run's."""
    if request.data is not None:
        return parse_stores(request.data, request.replay)
    if request.replay:
        raise ConfigError("--replay mixes stores into those of --data; name these as well")
    if source is None:
        return [], []
    if not source.data:
        raise ConfigError(
            f"{_whose(request, run)} does not say what it was trained on; name --data STORE"
        )
    paths = _stores(source.data, "--data", "training", _whose(request, run))
    return paths, [entry.share for entry in source.data]


def _validation(request: Request, source: RunRecord | None, run: Path) -> list[Path]:
    """Give the stores to validate on: those that were typed, or the run's."""
    if request.validation is not None:
        return list(request.validation)
    if source is None:
        return []
    return _stores(source.validation, "--validation", "held-out", _whose(request, run))


def _whose(request: Request, run: Path) -> Path:
    """Name the run whose data and weights are taken where none are typed."""
    return request.config if isinstance(request.config, Path) and not request.resume else run


def _stores(entries: Sequence[StoreEntry], flag: str, kind: str, run: Path) -> list[Path]:
    """Give the places of a run's stores, which may have moved since.

    Raises:
        DataError: one is not there any more.
    """
    gone = [e.path for e in entries if not is_address(e.path) and not Path(e.path).exists()]
    if gone:
        words = [
            ("NEW" if entry.path in gone else shell_word(entry.path))
            + (f":{entry.share:.8g}" if entry.share is not None else "")
            for entry in entries
        ]
        raise DataError(
            f"{gone[0]}, {kind} data of {run}, is not there any more; if it has moved, say where "
            f"it is now: {flag} {' '.join(words)}"
        )
    return [Path(entry.path) for entry in entries]


def _init(
    request: Request, source: RunRecord | None, run: Path, old: RunRecord | None
) -> Path | None:
    """Give the weights to start from: those that were typed, or the run's.

    A run that has a checkpoint needs them no more.
    """
    if request.init is not None or source is None or source.init is None:
        return request.init
    if old is not None and list_checkpoints(run):
        return None
    entry = source.init
    place = checkpoint_folder(Path(entry.path), entry.step)
    if not place.exists():
        raise CheckpointError(
            f"{place}, the weights that {_whose(request, run)} began from, are not there any more; "
            "if they have moved, say where they are now: --init RUN (--init-checkpoint "
            f"{entry.step})"
        )
    return place
