"""Writing a checkpoint so that a crash at any moment loses nothing that was saved.

A checkpoint is written under a temporary name, hashed from memory on the way, flushed, read back
from the disk and compared, and only then renamed; older ones go after that, and by a rename first,
so a folder named `step-*` is whole or was damaged from outside.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blankfill import atomic
from blankfill.disk.ownership import temporaries
from blankfill.disk.publish import why
from blankfill.disk.renames import remove
from blankfill.errors import CheckpointError
from blankfill.runs.folder import (
    RUN_FILES,
    VERSION,
    hash_of_state,
    list_checkpoints,
    read_state,
    verify,
)
from blankfill.runs.tensors import write_tensors

if TYPE_CHECKING:
    import torch

__all__ = ["save_checkpoint", "set_aside", "sweep"]

TEMPORARY = (".step-*.tmp", ".old-step-*.tmp")
"""What a process that was killed may leave in the checkpoints' folder."""


def save_checkpoint(
    run: Path,
    step: int,
    model: dict[str, torch.Tensor],
    optimizer: dict[str, torch.Tensor],
    extra: dict[str, Any],
    *,
    keep: int,
    keep_every: int = 0,
    keep_best: bool = False,
    ema: dict[str, torch.Tensor] | None = None,
) -> Path:
    """Write the checkpoint of `step`, verify it, and drop older ones that need not stay.

    Args:
        run: the run's folder.
        step: optimizer steps done.
        model: weights by name.
        optimizer: optimizer state by name.
        extra: further JSON content of state.json.
        keep: newest checkpoints that stay.
        keep_every: checkpoints at multiples of this many steps stay as well; 0 is off.
        keep_best: the one with the lowest `validation_loss_nats` in `extra` stays as well.
        ema: averaged weights by name, where the run keeps them.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: the disk is full, cannot be written, or does not give back what was
            written; older checkpoints are untouched.
    """
    folder = run / "checkpoints"
    target = folder / f"step-{step:08d}"
    temporary = folder / f".step-{step:08d}.{os.getpid()}.tmp"
    parts = {"model": model, "optimizer": optimizer} | ({"ema": ema} if ema else {})
    try:
        _sweep_checkpoints(run)
        temporary.mkdir(parents=True)
        files: dict[str, Any] = {}
        for name, tensors in parts.items():
            written = write_tensors(temporary, name, dict(sorted(tensors.items())))
            files |= {name: dataclasses.asdict(file) for name, file in written.files.items()}
        state = {**extra, "version": VERSION, "step": step, "files": files}
        atomic.write_json(temporary / "state.json", {**state, "sha256": hash_of_state(state)})
        atomic.flush(temporary)
        for path in temporary.iterdir():
            _forget(path)
        try:
            verify(temporary, read_state(temporary))
        except ValueError as error:
            raise OSError(f"what was read back differs: {error}") from error
        _replace(temporary, target)
        atomic.flush(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"the checkpoint of step {step} could not be written to {folder} "
            f"({why(error, folder)}); {_last_good(run)}: make room and start again with --resume"
        ) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _drop_old(run, step, keep=keep, keep_every=keep_every, keep_best=keep_best)
    return target


def sweep(run: Path) -> None:
    """Remove what a process that was killed has left; for the run's owner, before it starts."""
    _sweep_checkpoints(run)
    for name in (*RUN_FILES, "tokenizer"):
        for stale in temporaries(run, name):
            remove(stale)


def set_aside(run: Path, step: int) -> list[Path]:
    """Rename the checkpoints behind `step`, which were found damaged, so that none counts.

    Returns:
        Their new folders, named `damaged-step-*`.
    """
    moved: list[Path] = []
    for path in list_checkpoints(run):
        if int(path.name.removeprefix("step-")) > step:
            target = path.with_name(f"damaged-{path.name}")
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
    steps = {int(path.name.removeprefix("step-")): path for path in list_checkpoints(run)}
    # Checkpoints behind `step` are of a stretch that was given up; they neither count nor go.
    past = sorted(s for s in steps if s <= step)
    stay = set(past[-keep:]) | {s for s in past if keep_every and s % keep_every == 0}
    if keep_best:
        losses: dict[int, float] = {}
        for s in past:
            try:
                losses[s] = float(read_state(steps[s])["validation_loss_nats"])
            except (OSError, ValueError, KeyError, TypeError):
                continue
        stay |= {min(losses, key=lambda s: losses[s])} if losses else set()
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
