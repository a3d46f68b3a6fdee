"""What a run gives to a model in use: weights, a tokenizer, the types that matrices are kept in."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch

from blankfill.config.train import WeightType
from blankfill.engine.device import lowest_precision
from blankfill.errors import CheckpointError
from blankfill.model.attention import Attention
from blankfill.model.glm import GLM, device_of
from blankfill.model.linear import product
from blankfill.model.mlp import GatedMLP
from blankfill.model.quantized import quantized_matrices, settle
from blankfill.runs import Checkpoint, Part, Place, RunRecord, choose_checkpoint
from blankfill.text.tokenizer import TextTokenizer
from blankfill.text.vocabularies import NoVocabulary, load_tokenizer

__all__ = [
    "Weights", "described_weights", "find_weights", "give_memory", "keep_in", "load_run_tokenizer",
    "make_ready", "quickest_products",
]  # fmt: skip

log = logging.getLogger(__name__)

Weights = Literal["last", "ema"]
"""Which weights of a checkpoint: the last ones, or their moving average."""
LEAST_ELEMENTS = 2**18
"""A model whose largest matrix has fewer is not timed: of its products calling is most."""
LEAST_GAIN = 0.1
"""float32, which rounds less, is given up for no smaller share of its time."""
TIMES = 7
"""How often each way of a product is timed; the least time counts."""


def find_weights(place: Place, weights: Weights) -> tuple[Checkpoint, Part]:
    """Find a checkpoint of a run, and the part of it that holds the weights.

    Raises:
        CheckpointError: there is no such checkpoint, or no moving average in it.
    """
    name: Part = "ema" if weights == "ema" else "model"
    checkpoint = choose_checkpoint(place.run, place.checkpoint, [name])
    if not checkpoint.holds(name):
        raise CheckpointError(f"{checkpoint.path} has no moving average of its weights; train "
                              "with --optimizer.ema-decay 0.999 to have one")  # fmt: skip
    return checkpoint, name


def load_run_tokenizer(run: Path, record: RunRecord, *, needs_text: bool = True) -> TextTokenizer:
    """Load the tokenizer in a run's folder, which must be the one that it was trained with.

    Args:
        run: the folder.
        record: what its run.json says.
        needs_text: whether a run without a vocabulary is refused; else it has a `NoVocabulary`.

    Raises:
        CheckpointError: it has none, or another one.
    """
    if record.tokenizer is None:
        if not needs_text:
            return NoVocabulary(record.config.model.vocab_size)
        raise CheckpointError(
            f"{run} was imported without a tokenizer, so it reads and writes no text; import it "
            f"again: blankfill import {run} --tokenizer PATH --out NEW"
        )
    tokenizer = load_tokenizer(run / "tokenizer")
    if tokenizer.fingerprint != record.tokenizer.fingerprint:
        raise CheckpointError(f"{run / 'tokenizer'} is not the tokenizer that {run} was trained "
                              "with; restore it")  # fmt: skip
    return tokenizer


def keep_in(model: GLM, wanted: WeightType, stored: Mapping[str, torch.dtype]) -> None:
    """Set the type of each matrix of a model that has no values yet.

    Args:
        model: on the meta device, in float32.
        wanted: the type that was asked for.
        stored: of each tensor its type in the checkpoint.
    """
    for name, parameter in model.named_parameters():
        dtype = getattr(torch, wanted) if wanted != "stored" else stored.get(name, torch.float32)
        # Norms and biases are small, and what flows through the blocks is float32.
        if parameter.dim() > 1 and dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.to(dtype)


def give_memory(model: torch.nn.Module, device: torch.device) -> None:
    """Give tensors on the meta device memory of their own, whose values follow.

    `Module.to_empty` does the same by `empty_like`, which on the meta device is written in Python
    and loads torch's compiler: seconds of it.
    """
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            made = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
            setattr(module, name, torch.nn.Parameter(made, requires_grad=parameter.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, device=device))


def make_ready(model: GLM) -> GLM:
    """Get a model ready for use, once its values stand; training goes on from another."""
    for module in model.modules():
        if isinstance(module, Attention | GatedMLP):
            module.join()
    settle(model)
    return model.eval()


def quickest_products(model: GLM) -> torch.dtype:
    """Tell the type in which a CPU multiplies by a model's matrices soonest, one token at a time.

    Weights that are kept in bfloat16 are multiplied as such where the processor does it itself and
    takes less time than to widen them, which the largest matrix of the blocks shows. It is timed in
    seconds of the processor, so that what else runs on the machine decides nothing.

    Args:
        model: with its values.
    """
    blocks = [weight for weight in model.blocks.parameters() if weight.dim() == 2]
    if not blocks or device_of(model).type != "cpu":
        return torch.float32
    matrix = max(blocks, key=torch.Tensor.numel).detach()
    if matrix.dtype != torch.bfloat16 or matrix.numel() < LEAST_ELEMENTS:
        return torch.float32
    if lowest_precision("cpu") != torch.bfloat16:
        return torch.float32
    x = torch.ones(1, matrix.shape[1])
    with torch.inference_mode():
        wide = _least_seconds(lambda: product(x, matrix))
        narrow = _least_seconds(lambda: product(x.bfloat16(), matrix))
    quicker = narrow <= (1 - LEAST_GAIN) * wide
    log.debug(
        "products with %s: widened %.0f us, in bfloat16 %.0f us", list(matrix.shape), 1e6 * wide,
        1e6 * narrow,
    )  # fmt: skip
    return torch.bfloat16 if quicker else torch.float32


def _least_seconds(work: Callable[[], object]) -> float:
    """Time what this thread of the processor does, after one time that is not counted."""
    work()
    found: list[float] = []
    for _ in range(TIMES):
        start = time.thread_time()
        work()
        found.append(time.thread_time() - start)
    return min(found)


def described_weights(model: GLM) -> str:
    """Say how many weights a model has, and what they are kept in."""
    packed = quantized_matrices(model)
    weights = sum(parameter.numel() for parameter in model.parameters())
    weights += sum(math.prod(matrix.shape) for matrix in packed)
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    return f"{weights:,} weights in {f'{packed[0].bits} bits' if packed else dtype}"
