"""A run folder and its checkpoints on disk.

    runs/mine/
      run.json                      the configuration, the data's fingerprints, software, hardware
      tokenizer/                    a copy of the tokenizer
      metrics.jsonl                 one flat object per logged step
      checkpoints/step-00002000/
        model.safetensors           weights by name, float32
        optimizer.safetensors       the optimizer's moments by name
        state.json                  step, and size and SHA-256 of the two files

A checkpoint is written under a temporary name, flushed, and renamed; an older one goes only after
the new one stands. So a crash at any moment loses nothing that was saved.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blankfill.errors import CheckpointError

if TYPE_CHECKING:
    import torch

__all__ = [
    "Checkpoint",
    "list_checkpoints",
    "load_tensors",
    "newest_checkpoint",
    "read_run",
    "save_checkpoint",
    "write_json",
]

log = logging.getLogger(__name__)

VERSION = 1
"""Version of the folder's format, in state.json and run.json."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """One complete checkpoint on disk."""

    path: Path
    """Its folder."""
    step: int
    """Optimizer steps done."""
    state: dict[str, Any]
    """Content of state.json."""


def write_json(path: Path, value: Any) -> None:
    """Write JSON under a temporary name and rename it over `path`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def read_run(run: Path) -> dict[str, Any]:
    """Read a run's run.json.

    Raises:
        CheckpointError: the folder is not a run, or its run.json is damaged or of another version.
    """
    path = run / "run.json"
    if not path.is_file():
        raise CheckpointError(f"{run} is not a run: it has no run.json; name a folder that "
                              "`blankfill pretrain` wrote")  # fmt: skip
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); restore it") from error
    if not isinstance(value, dict) or value.get("version") != VERSION:
        raise CheckpointError(f"{path} is not of format version {VERSION}; use the blankfill that "
                              "wrote it")  # fmt: skip
    return value


def save_checkpoint(
    run: Path,
    step: int,
    model: dict[str, torch.Tensor],
    optimizer: dict[str, torch.Tensor],
    extra: dict[str, Any],
    *,
    keep: int,
) -> Path:
    """Write the checkpoint of `step` and drop the oldest beyond `keep`.

    Args:
        run: the run's folder.
        step: optimizer steps done.
        model: weights by name.
        optimizer: optimizer state by name.
        extra: further JSON content of state.json.
        keep: newest checkpoints that stay.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: the disk is full or cannot be written; older checkpoints are untouched.
    """
    from safetensors.torch import save_file

    folder = run / "checkpoints"
    target = folder / f"step-{step:08d}"
    temporary = folder / f".step-{step:08d}.{os.getpid()}.tmp"
    try:
        for stale in folder.glob(".step-*.tmp"):  # left behind by a process that was killed
            shutil.rmtree(stale, ignore_errors=True)
        temporary.mkdir(parents=True)
        files: dict[str, Any] = {}
        for name, tensors in (("model", model), ("optimizer", optimizer)):
            path = temporary / f"{name}.safetensors"
            save_file({key: value.detach().contiguous() for key, value in tensors.items()}, path)
            files[path.name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        write_json(temporary / "state.json", {"version": VERSION, "step": step, "files": files,
                                              **extra})  # fmt: skip
        for path in temporary.iterdir():
            _flush(path)
        if target.exists():
            shutil.rmtree(target)
        os.replace(temporary, target)
        _flush(folder)
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
            raise
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space" in str(error)
        raise CheckpointError(
            f"the checkpoint of step {step} could not be written to {folder} "
            f"({'the disk is full' if full else error}); older checkpoints are untouched: "
            "make room and start again with --resume"
        ) from error
    for old in list_checkpoints(run)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def list_checkpoints(run: Path) -> list[Path]:
    """List the complete checkpoint folders of a run, oldest first."""
    return sorted((run / "checkpoints").glob("step-*"))


def newest_checkpoint(run: Path, *, verify: bool = True) -> Checkpoint:
    """Find the newest checkpoint whose files are as they were written.

    A damaged one is passed over with a warning that names it.

    Raises:
        CheckpointError: no usable checkpoint is left.
    """
    folders = list_checkpoints(run)
    if not folders:
        raise CheckpointError(f"{run} has no checkpoint yet; train it first")
    for folder in reversed(folders):
        try:
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            if verify:
                _verify(folder, state)
            return Checkpoint(path=folder, step=int(state["step"]), state=state)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s is damaged (%s); taking the checkpoint before it", folder, error)
    raise CheckpointError(f"every checkpoint in {run / 'checkpoints'} is damaged; train it again")


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from error


def _verify(folder: Path, state: dict[str, Any]) -> None:
    if state["version"] != VERSION:
        raise ValueError(f"format version {state['version']}, expected {VERSION}")
    for name, expected in state["files"].items():
        path = folder / name
        if path.stat().st_size != expected["bytes"] or _sha256(path) != expected["sha256"]:
            raise ValueError(f"{name} is not the file that was written")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Wait until the disk has the file or folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
