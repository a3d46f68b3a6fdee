"""Writing a checkpoint so that a crash at any moment loses nothing that was saved.

First the parts: they are written under a temporary name, hashed from memory on the way, flushed,
read back from the disk and compared, by the process that wrote them. Then the commit, by the
process that began: state.json says what they are, and only then the folder gets its name. Older
ones go after that, and by a rename first, so a folder named `step-*` is whole or was damaged from
outside. One process does all of it here; several share it in `parallel/save.py`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
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

__all__ = [
    "NewCheckpoint", "read_back", "save_alone", "save_checkpoint", "set_aside", "stored_parts",
    "sweep",
]  # fmt: skip

TEMPORARY = (".step-*.tmp", ".old-step-*.tmp")
"""What a process that was killed may leave in the checkpoints' folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewCheckpoint:
    """A checkpoint on its way to the disk: begun, filled with files, and committed."""

    run: Path
    """The run's folder."""
    step: int
    """Optimizer steps done."""
    training: TrainingState | None = None
    """What training goes on from."""
    keep: int
    """Newest checkpoints that stay once it stands."""
    keep_every: int = 0
    """Those at multiples of this many steps stay as well; 0 is off."""
    keep_best: bool = False
    """The one with the lowest loss on held-out data stays as well."""

    @property
    def temporary(self) -> Path:
        """The folder's name until it is committed, where this process began it."""
        return self.run / "checkpoints" / f".step-{self.step:08d}.{os.getpid()}.tmp"

    def begin(self) -> Path:
        """Make the folder under a temporary name, for the files.

        Raises:
            OSError: the disk does not take it.
        """
        _sweep_checkpoints(self.run)
        self.temporary.mkdir(parents=True)
        return self.temporary

    def commit(self, files: Mapping[str, SavedFile]) -> Path:
        """Make files that were written and read back a checkpoint, and drop older ones.

        Args:
            files: all of them, by name.

        Returns:
            The checkpoint's folder.

        Raises:
            OSError: the disk does not take it, or gives back something else.
        """
        folder, target = self.temporary, checkpoint_folder(self.run, self.step)
        state = CheckpointState(step=self.step, files=dict(files), training=self.training)
        write_state(folder, state)
        atomic.flush(folder)
        _forget(folder / "state.json")
        sizes = {name: (folder / name).stat().st_size for name in files}
        try:
            same = read_state(folder) == state
        except ValueError:
            same = False
        if not same or sizes != {name: file.bytes for name, file in files.items()}:
            raise OSError("what was read back differs")
        _replace(folder, target)
        atomic.flush(target.parent)
        _drop_old(self)
        return target

    def discard(self) -> None:
        """Remove what was written of it; older checkpoints are untouched."""
        shutil.rmtree(self.temporary, ignore_errors=True)

    def refused(self, error: OSError, by: str = "") -> CheckpointError:
        """Say that it could not be written, and the way out.

        Args:
            error: what the disk said.
            by: the process that met it, where there are several: `by process 3 on HOST`.
        """
        folder = self.run / "checkpoints"
        return CheckpointError(
            f"the checkpoint of step {self.step} could not be written to {folder}{by and ' '}{by} "
            f"({why(error, folder)}); {_last_good(self.run)}: make room and go on with "
            f"`blankfill pretrain {resume_option(self.run)}`"
        )


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
    new = NewCheckpoint(
        run=run, step=step, training=training, keep=keep, keep_every=keep_every,
        keep_best=keep_best,
    )  # fmt: skip
    return save_alone(new, parts)


def save_alone(new: NewCheckpoint, parts: Mapping[Part, Mapping[str, torch.Tensor]]) -> Path:
    """Write a checkpoint in one process.

    Args:
        new: the checkpoint.
        parts: as `save_checkpoint` takes them.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: as `save_checkpoint`.
    """
    try:
        folder, files = new.begin(), dict[str, SavedFile]()
        for part in stored_parts(parts):
            files |= write_tensors(folder, part, dict(sorted(parts[part].items()))).files
        read_back(folder, files)
        return new.commit(files)
    except OSError as error:
        new.discard()
        raise new.refused(error) from error
    except BaseException:
        new.discard()
        raise


def stored_parts(parts: Mapping[Part, Mapping[str, torch.Tensor]]) -> list[Part]:
    """List the parts that have a file, which weights and optimizer have even where it is empty."""
    return [part for part, tensors in parts.items() if tensors or part != "ema"]


def read_back(folder: Path, files: Mapping[str, SavedFile]) -> None:
    """Compare files with what was written to them, by the disk's word and not the system's memory.

    Raises:
        OSError: one of them differs.
    """
    for name in files:
        _forget(folder / name)
    try:
        verify(folder, files)
    except ValueError as error:
        raise OSError(f"what was read back differs: {error}") from error


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


def _drop_old(new: NewCheckpoint) -> None:
    steps = {step_of(path): path for path in list_checkpoints(new.run)}
    # Checkpoints after it were left when the run went back: they are not counted here, and not
    # removed either.
    past = sorted(s for s in steps if s <= new.step)
    stay = set(past[-new.keep :]) | {s for s in past if new.keep_every and s % new.keep_every == 0}
    if new.keep_best and (best := best_validation(new.run, new.step)) is not None:
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
