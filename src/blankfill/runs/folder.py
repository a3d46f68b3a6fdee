"""A run folder and its checkpoints on disk.

    runs/mine/
      run.json                      the configuration, the data's fingerprints, software, hardware
      tokenizer/                    a copy of the tokenizer
      metrics.jsonl                 one flat object per logged step
      checkpoints/step-00002000/
        model.safetensors           weights by name, float32
        optimizer.safetensors       the optimizer's moments by name
        ema.safetensors             averaged weights by name, where the run keeps them
        state.json                  step, row, sums since the last metrics; size and SHA-256 of the
                                    files, and a SHA-256 of itself
      incidents/                    what the guards found, with the batch as text
      skipped_steps.json            steps that a rollback left out

`save.py` writes checkpoints; here they are found, verified and read.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from blankfill.config.run import RunConfig, from_dict
from blankfill.disk.json_files import Description, check, read_object
from blankfill.disk.ownership import FolderKind
from blankfill.disk.pointer import is_pointer, pointer_sentence
from blankfill.errors import CheckpointError, ConfigError
from blankfill.text.tokenizer import INNER_TOKENIZER

__all__ = [
    "RUN_FILES",
    "RUN_FOLDERS",
    "Checkpoint",
    "Part",
    "hash_of_file",
    "hash_of_state",
    "list_checkpoints",
    "newest_checkpoint",
    "read_evaluation",
    "read_run",
    "read_state",
    "verify",
]

log = logging.getLogger(__name__)

VERSION = 1
"""Version of the folder's format, in state.json and run.json."""
RUN = Description(
    "format", "blankfill run", VERSION,
    {
        "config": {section.name: dict for section in fields(RunConfig)},
        "tokenizer?": {"fingerprint": str},
        "data": [{"path": str, "fingerprint": str, "documents": int, "tokens": int}],
        "validation": list, "started": str, "software": dict, "hardware": dict,
        "imported?": dict, "init?": dict, "changes?": list,
    },
)  # fmt: skip
"""What run.json says of itself."""
STATE = Description("format", "blankfill checkpoint", VERSION, {"step": int, "files": dict})
"""What state.json says of itself."""
RUN_FILES = (
    "run.json", "metrics.jsonl", "samples.jsonl", "skipped_steps.json", "evaluation.json",
    "import.json", "wandb-id",
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
    step: int
    """Optimizer steps done."""
    state: dict[str, Any]
    """Content of state.json."""


def read_run(run: Path) -> dict[str, Any]:
    """Read a run's run.json.

    Raises:
        CheckpointError: the folder is not a run, or its run.json is damaged or of another version.
    """
    path = run / "run.json"
    if not path.is_file():
        raise CheckpointError(f"{run} is not a run: it has no run.json; name a folder that "
                              "`blankfill pretrain` wrote")  # fmt: skip
    cure = "restore it, or use the blankfill that wrote it"
    try:
        value = read_object(path, RUN)
        from_dict(RunConfig, value["config"])
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); {cure}") from error
    except (ValueError, TypeError, LookupError, AttributeError, ConfigError) as error:
        raise CheckpointError(f"{path} is damaged, or another's: {error}; {cure}") from error
    return value


def read_evaluation(run: Path) -> dict[str, Any] | None:
    """Read what `blankfill evaluate` has recorded of a run; None where it has not.

    Raises:
        CheckpointError: evaluation.json is damaged, or is another's.
    """
    path = run / "evaluation.json"
    try:
        value = read_object(path)
        check(value, {"step": int, "blanks": {"languages": [dict]}})
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise CheckpointError(
            f"{path} is not what `blankfill evaluate` writes: {error}; move it away and evaluate "
            "the run again"
        ) from error
    return value


def list_checkpoints(run: Path) -> list[Path]:
    """List the complete checkpoint folders of a run, oldest first."""
    found = (run / "checkpoints").glob("step-*")
    named = [path for path in found if path.name.removeprefix("step-").isdecimal()]
    return sorted(named, key=lambda path: int(path.name.removeprefix("step-")))


def newest_checkpoint(run: Path, parts: Collection[Part] | None = None) -> Checkpoint:
    """Find the newest checkpoint whose files are as they were written.

    A damaged one is passed over with a warning that names it.

    Args:
        run: the run's folder.
        parts: what is going to be read of it: nothing else is looked at, for the optimizer and the
            average are several times as large as the weights; all of it where not given.

    Raises:
        CheckpointError: no usable checkpoint is left.
    """
    folders = list_checkpoints(run)
    if not folders:
        raise CheckpointError(f"{run} has no checkpoint yet; train it first")
    for folder in reversed(folders):
        try:
            state = read_state(folder)
            verify(folder, state, parts)
            if folder.name != f"step-{state['step']:08d}":
                raise ValueError(f"it holds step {state['step']}")
            return Checkpoint(path=folder, step=int(state["step"]), state=state)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s is damaged (%s); taking the checkpoint before it", folder, error)
    raise CheckpointError(f"every checkpoint in {run / 'checkpoints'} is damaged; train it again")


def read_state(folder: Path) -> dict[str, Any]:
    """Read a checkpoint's state.json.

    Raises:
        OSError, ValueError: it is missing, damaged or of another version.
    """
    try:
        state = read_object(folder / "state.json", STATE)
        check(state["files"], {name: {"bytes": int, "sha256": str} for name in state["files"]})
    except ValueError as error:
        raise ValueError(f"state.json: {error}") from error
    if state.pop("sha256", None) != hash_of_state(state):
        raise ValueError("state.json is not the file that was written")
    return state


def verify(folder: Path, state: dict[str, Any], parts: Collection[Part] | None = None) -> None:
    """Compare a checkpoint's files with what its state says of them.

    Args:
        folder: the checkpoint's.
        state: its state.json.
        parts: what to compare; all files where not given.

    Raises:
        OSError, ValueError, KeyError: a file is missing or differs.
    """
    for name, expected in state["files"].items():
        if parts is not None and name.removesuffix(".safetensors").split("-")[0] not in parts:
            continue
        path = folder / name
        if path.stat().st_size != expected["bytes"] or hash_of_file(path) != expected["sha256"]:
            if is_pointer(path):
                raise ValueError(pointer_sentence(path))
            raise ValueError(f"{name} is not the file that was written")


def hash_of_state(state: dict[str, Any]) -> str:
    """Give the SHA-256 of the content of state.json, less its own hash."""
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def hash_of_file(path: Path) -> str:
    """Give the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
