"""Which checkpoint of a run is meant: the last one, the best one, or that of a step.

A run is named by its folder, and one of its checkpoints by `last`, `best` or its step beside that,
or by the checkpoint's own folder: `runs/mine/checkpoints/step-00002000`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Final, Literal

from blankfill.config.checkpoint import CheckpointName
from blankfill.disk.json_files import EarlierFormatError
from blankfill.errors import CheckpointError, ConfigError
from blankfill.runs.folder import (
    Checkpoint,
    Part,
    checkpoint_folder,
    damaged_folder,
    list_checkpoints,
    newest_checkpoint,
    open_checkpoint,
    read_state,
    step_of,
)
from blankfill.runs.record import BestValidation, CheckpointState, earlier_format

__all__ = ["Place", "best_validation", "choose_checkpoint", "locate"]

Choice = Literal["last", "best"] | int
"""What a `CheckpointName` says."""

_FOLDER = re.compile(r"step-([0-9]{1,15})", re.ASCII)
_STEP = re.compile(rf"{_FOLDER.pattern}|([0-9]{{1,15}})", re.ASCII)
_SHOWN: Final = 8
"""Most checkpoints that a message lists."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A run, and which of its checkpoints is meant."""

    run: Path
    """The run's folder."""
    checkpoint: Choice = "last"
    """The checkpoint."""


def locate(path: Path, checkpoint: CheckpointName | None = None) -> Place:
    """Tell which run a path names, and which of its checkpoints.

    Args:
        path: a run's folder, or that of one of its checkpoints.
        checkpoint: `last`, `best` or a step; the folder's own, or the last one, where not given.

    Raises:
        CheckpointError: the path names a checkpoint without a run.
        ConfigError: `checkpoint` is none of these, or another than the one whose folder is named.
    """
    run, step = _split(path)
    if checkpoint is None:
        return Place(run=run, checkpoint="last" if step is None else step)
    choice = _read(run, checkpoint)
    if step is not None and choice != step:
        meant = choose_checkpoint(run, choice, parts=[]).step
        if meant != step:
            raise ConfigError(
                f"{path} is the checkpoint of step {step}, and checkpoint {checkpoint} is that of "
                f"step {meant}; name one of the two, or {run} with the checkpoint"
            )
    return Place(run=run, checkpoint=choice)


def choose_checkpoint(
    run: Path, choice: CheckpointName = "last", parts: Collection[Part] | None = None
) -> Checkpoint:
    """Find a checkpoint of a run whose files are as they were written.

    Args:
        run: the run's folder.
        choice: `last` takes the newest one that is whole; `best` the one with the lowest loss on
            held-out data; a number the one of that step.
        parts: what is going to be read of it and so is verified; all of it where not given.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged; the message says which ones
            there are.
        ConfigError: `choice` is none of these.
    """
    choice = _read(run, choice)
    if choice == "last":
        return newest_checkpoint(run, parts)
    steps = _require_steps(run)
    step = _best_step(run) if choice == "best" else choice
    if step not in steps:
        raise CheckpointError(f"{run} has no checkpoint of step {step}{_aside(run, step)}; "
                              f"{_there_are(run)}")  # fmt: skip
    try:
        return open_checkpoint(run, steps[step], parts)
    except EarlierFormatError as error:
        raise CheckpointError(earlier_format(steps[step] / "state.json", error)) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{steps[step]} is damaged ({error}); restore it, or take another: {_there_are(run)}"
        ) from error


def best_validation(run: Path, until: int | None = None) -> BestValidation | None:
    """Tell at which step a run's loss on held-out data was lowest, by what its checkpoints say.

    Args:
        run: the run's folder.
        until: the last step whose checkpoint counts; all of them where not given.

    Returns:
        None where no checkpoint knows of a validation after the first step.
    """
    known = {
        step: state.training
        for step, state in _states(run).items()
        if state.training is not None and (until is None or step <= until)
    }
    if not known:
        return None
    last = known[max(known)]
    if last.best is not None:
        return last.best
    # Checkpoints of before the best one was written down; those that are there are compared.
    losses = {step: of.validation_loss_nats for step, of in known.items()}
    found = [(loss, step) for step, loss in losses.items() if loss is not None and step]
    return BestValidation(step=min(found)[1], loss_nats=min(found)[0]) if found else None


def _split(path: Path) -> tuple[Path, int | None]:
    """Take the folder of a checkpoint apart into its run and its step."""
    if (path / "run.json").is_file():
        return path, None
    # `.` and links to a checkpoint tell its name once they are followed.
    for folder in (path, path.resolve()):
        found = _FOLDER.fullmatch(folder.name)
        run = folder.parent.parent
        if found and folder.parent.name == "checkpoints" and (run / "run.json").is_file():
            return run, int(found[1])
        if folder.name == "checkpoints" and (folder.parent / "run.json").is_file():
            raise CheckpointError(
                f"{path} holds the checkpoints of a run; name the run, {folder.parent}, or one of "
                "the folders in it"
            )
    if (path / "state.json").is_file():
        raise CheckpointError(
            f"{path} is a checkpoint outside its run, and needs the run's run.json and tokenizer; "
            "put it back into the run's folder checkpoints"
        )
    return path, None


def _read(run: Path, checkpoint: CheckpointName) -> Choice:
    """Read what a user calls a checkpoint."""
    if checkpoint == "last" or checkpoint == "best":
        return checkpoint
    found = None
    if isinstance(checkpoint, str):
        found = _STEP.fullmatch(checkpoint)
    elif isinstance(checkpoint, Integral) and not isinstance(checkpoint, bool) and checkpoint >= 0:  # pyright: ignore[reportUnnecessaryIsInstance]  # a caller without a type checker
        return int(checkpoint)
    if found is None:
        has = f"; {_there_are(run)}" if list_checkpoints(run) else ""
        raise ConfigError(
            f"checkpoint {str(checkpoint)[:40]!r} is not last, best or a step such as 500{has}"
        )
    return int(found[1] or found[2])


def _require_steps(run: Path) -> Mapping[int, Path]:
    """Give the folders of a run's checkpoints by step, of which there must be one."""
    steps = {step_of(folder): folder for folder in list_checkpoints(run)}
    if not steps:
        raise CheckpointError(f"{run} has no checkpoint yet; train it first")
    return steps


def _best_step(run: Path) -> int:
    """Give the step of the best checkpoint.

    Raises:
        CheckpointError: no validation is known, or the best step's checkpoint was not kept.
    """
    best = best_validation(run)
    if best is None:
        raise CheckpointError(
            f"{run} has no best checkpoint, for none of them knows of a validation (pretrain with "
            f"--validation has them); {_there_are(run)}"
        )
    if not checkpoint_folder(run, best.step).is_dir():
        raise CheckpointError(
            f"{run} was best at step {best.step} ({best.loss_nats:.4f} nats on held-out data), and "
            f"that checkpoint was not kept (--checkpoint.keep-best does so); {_there_are(run)}"
        )
    return best.step


def _states(run: Path) -> dict[int, CheckpointState]:
    """Read what a run's checkpoints say, oldest first; damaged ones are passed over."""
    found: dict[int, CheckpointState] = {}
    for folder in list_checkpoints(run):
        try:
            found[step_of(folder)] = read_state(folder)
        except (OSError, ValueError):
            continue
    return found


def _there_are(run: Path) -> str:
    """Name the checkpoints of a run for the end of a sentence."""
    steps = [step_of(folder) for folder in list_checkpoints(run)]
    best = best_validation(run)
    marks = {steps[-1]: ["last"]}
    if best is not None and best.step in steps:
        marks.setdefault(best.step, []).append("best")
    shown = [
        f"{step} ({', '.join(marks[step])})" if step in marks else str(step)
        for i, step in enumerate(steps)
        if i >= len(steps) - _SHOWN or step in marks
    ]
    more = f", and {len(steps) - len(shown)} earlier ones" if len(shown) < len(steps) else ""
    noun = "the checkpoint of step" if len(steps) == 1 else "the checkpoints of steps"
    return f"it has {noun} {', '.join(shown)}{more}"


def _aside(run: Path, step: int) -> str:
    """Say of a checkpoint that is missing where it went, if that is known."""
    aside = damaged_folder(checkpoint_folder(run, step))
    return f" any more (it was damaged and is {aside.name} now)" if aside.exists() else ""
