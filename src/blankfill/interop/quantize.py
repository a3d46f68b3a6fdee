"""A run of whole weights as a run of 8 or 4 bits a weight.

    quantised/
      run.json                          as it was, and what it was made of
      checkpoints/step-*/               model.safetensors: codes and scales of every matrix
      tokenizer/

The tensors of a matrix `NAME` are `NAME.codes` and `NAME.scales` (`model.quantized` says what they
hold); norms and biases are kept as they are. There is no optimizer, so nothing goes on from here.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from blankfill.config.model import ModelConfig
from blankfill.errors import CheckpointError, ConfigError, ConversionError
from blankfill.interop.importer import MAX_FILE_BYTES
from blankfill.model.glm import GLM
from blankfill.model.quantized import (
    GROUP_SIZE,
    Bits,
    matrices_of,
    quantize,
    quantized_bytes,
)
from blankfill.runs import CheckpointState, RunRecord, checkpoint_folder, write_run, write_state
from blankfill.runs.made_with import Hardware, Software
from blankfill.runs.record import QuantizedFrom
from blankfill.runs.tensors import write_tensors
from blankfill.text.tokenizer import copy_tokenizer

__all__ = ["Planned", "plan_quantization", "require_finite", "write_quantized"]

HEADER_BYTES_PER_TENSOR = 256
"""More than a file's header says of a tensor."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """What a file of quantised weights will take."""

    float_bytes: int
    """Of the same weights in float32."""
    num_bytes: int
    """Of the tensors."""
    most_bytes: int
    """Of the files: their headers besides."""


def plan_quantization(cfg: ModelConfig, bits: Bits) -> Planned:
    """Tell from a model's shapes what its weights will take in `bits` bits.

    Raises:
        ConfigError: the rows of a matrix are not whole groups.
    """
    with torch.device("meta"):
        model = GLM(cfg)
    matrices = matrices_of(model)
    for name, (_, columns) in matrices.items():
        if bits == 4 and columns % GROUP_SIZE:
            raise ConfigError(
                f"bits=4 takes weights in groups of {GROUP_SIZE}, and the rows of {name} have "
                f"{columns}, which is no multiple of it; take bits=8"
            )
    weights = sum(parameter.numel() for parameter in model.parameters())
    whole = weights - sum(rows * columns for rows, columns in matrices.values())
    packed = sum(quantized_bytes(rows, columns, bits) for rows, columns in matrices.values())
    num_tensors = len(list(model.parameters())) + len(matrices)
    num_bytes = packed + 4 * whole
    return Planned(
        float_bytes=4 * weights, num_bytes=num_bytes,
        most_bytes=num_bytes + HEADER_BYTES_PER_TENSOR * num_tensors,
    )  # fmt: skip


def require_finite(model: GLM, where: Path) -> None:
    """Refuse weights that are not numbers, of which no scale can be made.

    Args:
        model: with its values.
        where: the checkpoint that they are of.

    Raises:
        CheckpointError: with the name of the tensor.
    """
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise CheckpointError(
                f"{where} holds numbers that are not finite in {name}: it is damaged, or its "
                "training diverged; quantise an earlier checkpoint"
            )


def write_quantized(
    folder: Path, record: RunRecord, model: GLM, tokenizer: Path, origin: QuantizedFrom
) -> int:
    """Quantise a model in place, and write it as a run into an existing, empty folder.

    Args:
        folder: where to.
        record: what run.json of the whole run says.
        model: with finite weights.
        tokenizer: folder of the run's tokenizer.
        origin: where the weights are from, and to how many bits they go.

    Returns:
        Bytes of the files of weights.

    Raises:
        ConversionError: the files are larger than they should be.
    """
    most = plan_quantization(model.cfg, origin.bits).most_bytes
    quantize(model, origin.bits)
    weights = dict(sorted(model.state_dict().items()))
    checkpoint = checkpoint_folder(folder, origin.step)
    checkpoint.mkdir(parents=True)
    files = write_tensors(checkpoint, "model", weights, max_file_bytes=MAX_FILE_BYTES).files
    num_bytes = sum(file.bytes for file in files.values())
    if num_bytes > most:
        raise ConversionError(
            f"{origin.bits} bits a weight should take {most:,} bytes at most, and took "
            f"{num_bytes:,}; nothing was written"
        )
    write_state(checkpoint, CheckpointState(step=origin.step, files=files))
    copy_tokenizer(tokenizer, folder / "tokenizer")
    write_run(
        folder,
        dataclasses.replace(
            record, quantized=origin, software=Software.here(), hardware=Hardware.here()
        ),
    )
    return num_bytes
