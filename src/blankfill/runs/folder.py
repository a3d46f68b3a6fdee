"""A run folder and its checkpoints on disk.

    runs/mine/
      run.json                      the configuration, the data's fingerprints, software, hardware
      tokenizer/                    a copy of the tokenizer
      metrics.jsonl                 one flat object per logged step
      checkpoints/step-00002000/
        model.safetensors           weights by name, float32
        optimizer.safetensors       the optimizer's moments by name
        ema.safetensors             averaged weights by name, where the run keeps them
                                    (each of them `NAME-00001-of-00004.safetensors` and so on where
                                    four processes have written their rows)
        state.json                  step; row, sums since the last metrics; size and SHA-256 of the
                                    files, and a SHA-256 of itself
      incidents/                    what the guards found, with the batch as text
      skipped_steps.json            steps that a rollback left out

`record.py` says what run.json and state.json hold, `save.py` writes checkpoints; here they are
found, verified and read.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from blankfill.atomic import write_json
from blankfill.disk.json_files import Description, EarlierFormatError, read_object
from blankfill.disk.ownership import FolderKind
from blankfill.disk.pointer import is_pointer, pointer_sentence
from blankfill.disk.typed_json import from_json, to_json
from blankfill.errors import CheckpointError
from blankfill.processes import Alone, Processes
from blankfill.runs.record import VERSION, CheckpointState, earlier_format
from blankfill.runs.tensors import SavedFile
from blankfill.text.tokenizer import INNER_TOKENIZER

__all__ = [
    "RUN_FILES",
    "RUN_FOLDERS",
    "Checkpoint",
    "Part",
    "checkpoint_folder",
    "damaged_folder",
    "hash_of_file",
    "list_checkpoints",
    "newest_checkpoint",
    "open_checkpoint",
    "part_of",
    "read_state",
    "step_of",
    "verify",
    "write_state",
]

log = logging.getLogger(__name__)

STATE = Description("format", "blankfill checkpoint", VERSION, {}, oldest=VERSION)
"""What state.json says of itself; the rest is `CheckpointState`."""
RUN_FILES = (
    "run.json", "metrics.jsonl", "samples.jsonl", "skipped_steps.json", "evaluation.json",
    "tasks.json", "import.json", "wandb-id",
)  # fmt: skip
"""Files that a run has in its folder."""
_WEIGHTS = FolderKind(title="a checkpoint", files=("state.json", "*.safetensors"))
RUN_FOLDERS = {
    "tokenizer": INNER_TOKENIZER,
    "checkpoints": FolderKind(
        title="checkpoints",
        folders={"step-*": _WEIGHTS, "damaged-step-*": _WEIGHTS, ".*step-*.tmp": _WEIGHTS},
    ),
    "incidents": FolderKind(title="incidents", files=("step-*.md", "step-*.json")),
    "tensorboard": FolderKind(title="TensorBoard's files", files=("events.out.tfevents.*",)),
}
"""Folders that a run has in its own."""

Part = Literal["model", "optimizer", "ema"]
"""What a checkpoint consists of: a file by this name, or several by `NAME-*-of-*`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """One complete checkpoint on disk."""

    path: Path
    """Its folder."""
    state: CheckpointState
    """What its state.json says."""

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.state.step

    def holds(self, part: Part) -> bool:
        """Tell whether it has a part, such as averaged weights."""
        return any(part_of(name) == part for name in self.state.files)


def checkpoint_folder(run: Path, step: int) -> Path:
    """Name the folder of a run's checkpoint, whether it is there or not."""
    return run / "checkpoints" / f"step-{step:08d}"


def damaged_folder(checkpoint: Path) -> Path:
    """Name the folder that a checkpoint has once it was found damaged and set aside."""
    return checkpoint.with_name(f"damaged-{checkpoint.name}")


def step_of(checkpoint: Path) -> int:
    """Tell the step of a checkpoint from its folder's name."""
    return int(checkpoint.name.removeprefix("step-"))


def list_checkpoints(run: Path) -> list[Path]:
    """List the complete checkpoint folders of a run, oldest first."""
    found = (run / "checkpoints").glob("step-*")
    named = [path for path in found if path.name.removeprefix("step-").isdecimal()]
    return sorted(named, key=step_of)


def newest_checkpoint(
    run: Path, parts: Collection[Part] | None = None, among: Processes | None = None
) -> Checkpoint:
    """Find the newest checkpoint whose files are as they were written.

    A damaged one is passed over with a warning that names it.

    Args:
        run: the run's folder.
        parts: what is going to be read of it: nothing else is looked at, for the optimizer and the
            average are several times as large as the weights; all of it where not given.
        among: the processes that look for it together, of which each calls this; this one alone
            where not given.

    Raises:
        CheckpointError: no usable checkpoint is left.
    """
    among = among or Alone()
    folders = among.once(lambda: list_checkpoints(run))
    if not folders:
        among.refuse(CheckpointError(f"{run} has no checkpoint yet; train it first"))
    damage: list[str] = []
    for folder in reversed(folders):
        try:
            return open_checkpoint(run, folder, parts, among)
        except EarlierFormatError as error:
            among.refuse(CheckpointError(earlier_format(folder / "state.json", error)))
        except (OSError, ValueError) as error:
            damage.append(f"{folder.name}: {error}")
            if among.leads and folder != folders[0]:
                log.warning("%s is damaged (%s); taking the checkpoint before it", folder, error)
    among.refuse(
        CheckpointError(
            f"every checkpoint in {run / 'checkpoints'} is damaged ({'; '.join(damage)}); restore "
            "its files, or train it again"
        )
    )


def open_checkpoint(
    run: Path, folder: Path, parts: Collection[Part] | None = None, among: Processes | None = None
) -> Checkpoint:
    """Read a checkpoint's state and verify its files, each in one of the processes.

    Args:
        run: the run's folder.
        folder: the checkpoint's, in it.
        parts: what to verify, as `newest_checkpoint` takes it.
        among: the processes that share the files out, as `newest_checkpoint` takes them.

    Raises:
        OSError, ValueError: a file is missing, differs, or is of another step or version; in all
            processes alike.
    """
    among = among or Alone()
    try:
        state = read_state(folder)
        mine = sorted(state.files)[among.rank :: among.count]
        verify(folder, {name: state.files[name] for name in mine}, parts)
        if folder != checkpoint_folder(run, state.step):
            raise ValueError(f"it holds step {state.step}")
    except (OSError, ValueError) as error:
        if among.count == 1:
            raise
        where = f"{error}, as {among.place_of(among.rank)} reads it"
        found = [error if isinstance(error, EarlierFormatError) else ValueError(where)]
        raise among.gather(found)[0] from error
    for error in among.gather([]):
        raise error
    return Checkpoint(path=folder, state=state)


def read_state(folder: Path) -> CheckpointState:
    """Read a checkpoint's state.json.

    Raises:
        OSError, ValueError: it is missing, damaged or of another version.
    """
    try:
        value = read_object(folder / "state.json", STATE)
        state = from_json(CheckpointState, value)
    except EarlierFormatError:
        raise
    except ValueError as error:
        raise ValueError(f"state.json: {error}") from error
    if value.pop("sha256", None) != _hash_of_state(value):
        raise ValueError("state.json is not the file that was written")
    return state


def write_state(folder: Path, state: CheckpointState) -> None:
    """Write a checkpoint's state.json, which makes its files a checkpoint.

    Raises:
        OSError: the disk does not take it.
    """
    value = {"format": STATE.value, "version": VERSION, **to_json(state)}
    write_json(folder / "state.json", {**value, "sha256": _hash_of_state(value)})


def verify(
    folder: Path, files: Mapping[str, SavedFile], parts: Collection[Part] | None = None
) -> None:
    """Compare a checkpoint's files with what was written.

    Args:
        folder: the checkpoint's.
        files: what its state.json says of them.
        parts: what to compare; all files where not given.

    Raises:
        OSError, ValueError: a file is missing or differs.
    """
    for name, expected in files.items():
        if parts is not None and part_of(name) not in parts:
            continue
        path = folder / name
        if path.stat().st_size != expected.bytes or hash_of_file(path) != expected.sha256:
            if is_pointer(path):
                raise ValueError(pointer_sentence(path))
            raise ValueError(f"{name} is not the file that was written")


def part_of(name: str) -> str:
    """Name the part that a file is of."""
    return name.removesuffix(".safetensors").split("-")[0]


def _hash_of_state(value: Mapping[str, object]) -> str:
    """Give the SHA-256 of the content of state.json, less its own hash."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def hash_of_file(path: Path) -> str:
    """Give the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
