"""Weights of a checkpoint in one safetensors file or, when they are large, in several.

model.safetensors                       one file
model-00001-of-00003.safetensors, ...   several, found by their names
"""

from __future__ import annotations

from pathlib import Path

import torch

from blankfill.disk.names import readable_name
from blankfill.errors import CheckpointError

__all__ = ["load_weights", "weight_files"]


def weight_files(folder: Path, name: str = "model") -> list[Path]:
    """List the files that hold a checkpoint's weights, in order."""
    whole = folder / f"{name}.safetensors"
    return [whole] if whole.is_file() else sorted(folder.glob(f"{name}-*-of-*.safetensors"))


def load_weights(model: torch.nn.Module, folder: Path, *, name: str = "model") -> None:
    """Copy a checkpoint's weights into a model, one tensor at a time, whatever their dtype.

    Args:
        model: on a real device.
        folder: the checkpoint's.
        name: `model`, or `ema` for the moving average.

    Raises:
        CheckpointError: a file is damaged, or its tensors are not those of the model.
    """
    from safetensors import SafetensorError, safe_open

    targets = model.state_dict()
    left = dict.fromkeys(targets)
    for path in weight_files(folder, name):
        try:
            with readable_name(path) as readable, safe_open(readable, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118, it is no dictionary
                    target = targets.get(key)
                    values = file.get_tensor(key)
                    if target is None or target.shape != values.shape:
                        held = "is not in" if target is None else f"is {list(target.shape)} in"
                        raise CheckpointError(
                            f"{path} holds {key} {list(values.shape)}, which {held} the model of "
                            "its run.json; restore the file that was changed"
                        )
                    with torch.no_grad():
                        target.copy_(values)
                    left.pop(key)
        except (OSError, SafetensorError, KeyError) as error:
            raise CheckpointError(f"{path} cannot be read ({error})") from error
    if left:
        raise CheckpointError(f"{folder} lacks the tensor {next(iter(left))}; restore its files")
