"""Writing a checkpoint so that a crash at any moment loses nothing that was saved.

First the parts: they are written under a temporary name, hashed from memory on the way and flushed.
Then the commit: state.json says what they are, all is read back from the disk and compared, and
only then the folder gets its name. Older ones go after that, and by a rename first, so a folder
named `step-*` is whole or was damaged from outside.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from blankfill import atomic
from blankfill.disk.names import resume_option
from blankfill.disk.ownership import temporaries
from blankfill.disk.publish import why
from blankfill.disk.renames import remove
from blankfill.errors import CheckpointError
from blankfill.runs.choose import best_validation
from blankfill.runs.folder import (
    RUN_FILES,
    Part,
    checkpoint_folder,
    damaged_folder,
    list_checkpoints,
    read_state,
    step_of,
    verify,
    write_state,
)
from blankfill.runs.record import CheckpointState, TrainingState
from blankfill.runs.tensors import SavedFile, write_tensors

if TYPE_CHECKING:
    import torch

__all__ = ["save_checkpoint", "set_aside", "sweep"]

TEMPORARY = (".step-*.tmp", ".old-step-*.tmp")
"""What a process that was killed may leave in the checkpoints' folder."""


def save_checkpoint(
    run: Path,
    step: int,
    parts: Mapping[Part, Mapping[str, torch.Tensor]],
    training: TrainingState | None = None,
    *,
    keep: int,
    keep_every: int = 0,
    keep_best: bool = False,
) -> Path:
    """Write the checkpoint of `step`, verify it, and drop older ones that need not stay.

    Args:
        run: the run's folder.
        step: optimizer steps done.
        parts: tensors by part and name; `ema` may be missing or empty.
        training: what training goes on from.
        keep: newest checkpoints that stay.
        keep_every: checkpoints at multiples of this many steps stay as well; 0 is off.
        keep_best: the one with the lowest loss on held-out data stays as well.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: the disk is full, cannot be written, or does not give back what was
            written; older checkpoints are untouched.
    """
    folder = run / "checkpoints"
    target = checkpoint_folder(run, step)
    temporary = folder / f".{target.name}.{os.getpid()}.tmp"
    try:
        _sweep_checkpoints(run)
        temporary.mkdir(parents=True)
        files: dict[str, SavedFile] = {}
        for part, tensors in parts.items():
            if tensors or part != "ema":
                files |= write_tensors(temporary, part, dict(sorted(tensors.items()))).files
        _commit(temporary, target, CheckpointState(step=step, files=files, training=training))
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"the checkpoint of step {step} could not be written to {folder} "
            f"({why(error, folder)}); {_last_good(run)}: make room and go on with "
            f"`blankfill pretrain {resume_option(run)}`"
        ) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _drop_old(run, step, keep=keep, keep_every=keep_every, keep_best=keep_best)
    return target


def _commit(temporary: Path, target: Path, state: CheckpointState) -> None:
    """Make written parts a checkpoint: describe them, read them back, give them their name.

    Raises:
        OSError: the disk does not take it, or gives back something else.
    """
    write_state(temporary, state)
    atomic.flush(temporary)
    for path in temporary.iterdir():
        _forget(path)
    try:
        verify(temporary, read_state(temporary))
    except ValueError as error:
        raise OSError(f"what was read back differs: {error}") from error
    _replace(temporary, target)
    atomic.flush(target.parent)


def sweep(run: Path) -> None:
    """Remove what a process that was killed has left; for the run's owner, before it starts."""
    _sweep_checkpoints(run)
    for name in (*RUN_FILES, "tokenizer"):
        for stale in temporaries(run, name):
            remove(stale)


def set_aside(run: Path, step: int) -> list[Path]:
    """Rename the checkpoints after `step`, which were found damaged, so that none counts.

    Returns:
        Their new folders, named `damaged-step-*`.
    """
    moved: list[Path] = []
    for path in list_checkpoints(run):
        if step_of(path) > step:
            target = damaged_folder(path)
            shutil.rmtree(target, ignore_errors=True)
            path.rename(target)
            moved.append(target)
    return moved


def _sweep_checkpoints(run: Path) -> None:
    for pattern in TEMPORARY:
        for stale in (run / "checkpoints").glob(pattern):
            shutil.rmtree(stale, ignore_errors=True)


def _replace(temporary: Path, target: Path) -> None:
    """Rename `temporary` to `target`, over an earlier one of the same step."""
    if target.exists():
        earlier = target.with_name(f".old-{target.name}.{os.getpid()}.tmp")
        os.replace(target, earlier)
        os.replace(temporary, target)
        shutil.rmtree(earlier, ignore_errors=True)
    else:
        os.replace(temporary, target)


def _drop_old(run: Path, step: int, *, keep: int, keep_every: int, keep_best: bool) -> None:
    steps = {step_of(path): path for path in list_checkpoints(run)}
    # Checkpoints after `step` were left when the run went back: they are not counted here, and not
    # removed either.
    past = sorted(s for s in steps if s <= step)
    stay = set(past[-keep:]) | {s for s in past if keep_every and s % keep_every == 0}
    if keep_best and (best := best_validation(run, step)) is not None:
        stay.add(best.step)
    for s in past:
        if s not in stay:
            aside = steps[s].with_name(f".old-{steps[s].name}.{os.getpid()}.tmp")
            try:
                os.replace(steps[s], aside)
            except OSError:
                continue
            shutil.rmtree(aside, ignore_errors=True)


def _last_good(run: Path) -> str:
    found = list_checkpoints(run)
    return f"{found[-1].name} is untouched" if found else "there is no earlier checkpoint"


def _forget(path: Path) -> None:
    """Ask the system to drop its copy in memory, so that the next reading is the disk's."""
    if hasattr(os, "posix_fadvise"):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)
