"""Weights of a checkpoint in one safetensors file or, when they are large, in several.

model.safetensors                       one file
model-00001-of-00003.safetensors, ...   several, found by their names
"""

from __future__ import annotations

from pathlib import Path

import torch

from blankfill.errors import CheckpointError

__all__ = ["load_weights", "weight_files"]


def weight_files(folder: Path) -> list[Path]:
    """List the files that hold a checkpoint's weights, in order."""
    whole = folder / "model.safetensors"
    return [whole] if whole.is_file() else sorted(folder.glob("model-*-of-*.safetensors"))


def load_weights(model: torch.nn.Module, folder: Path) -> None:
    """Copy a checkpoint's weights into a model, one tensor at a time, whatever their dtype.

    Raises:
        CheckpointError: a file is damaged, or its tensors are not those of the model.
    """
    from safetensors import SafetensorError, safe_open

    targets = model.state_dict()
    left = dict.fromkeys(targets)
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118, it is no dictionary
                    target = targets.get(name)
                    values = file.get_tensor(name)
                    if target is None or target.shape != values.shape:
                        held = "is not in" if target is None else f"is {list(target.shape)} in"
                        raise CheckpointError(
                            f"{path} holds {name} {list(values.shape)}, which {held} the model of "
                            "its run.json; restore the file that was changed"
                        )
                    with torch.no_grad():
                        target.copy_(values)
                    left.pop(name)
        except (OSError, SafetensorError, KeyError) as error:
            raise CheckpointError(f"{path} cannot be read ({error})") from error
    if left:
        raise CheckpointError(f"{folder} lacks the tensor {next(iter(left))}; restore its files")
