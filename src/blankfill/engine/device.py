"""Which device computes, in which precision, and by which way of attention."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from blankfill.config.train import AttentionKind, DeviceKind, PrecisionKind
from blankfill.errors import ConfigError

__all__ = [
    "attention_ways",
    "choose_attention",
    "choose_device",
    "choose_precision",
    "device_name",
    "lowest_precision",
    "precision_context",
    "update_precision",
]


def choose_device(wanted: DeviceKind) -> torch.device:
    """Settle `auto`: the CUDA device where this torch has one, else the CPU.

    Raises:
        ConfigError: CUDA was asked for by name and there is none.
    """
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise ConfigError(
            f"device=cuda, but torch {torch.__version__} finds no CUDA device here; take cpu or "
            "auto, or install torch's CUDA build"
        )
    return torch.device("cuda" if there and wanted != "cpu" else "cpu")


def device_name(device: torch.device) -> str:
    """Name a device: a GPU as its driver does, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def choose_precision(
    wanted: PrecisionKind,
    device: torch.device | str = "cpu",
) -> torch.dtype:
    """Settle `auto`: bfloat16 where the device has instructions for it, else float32.

    Raises:
        ConfigError: bfloat16 was asked for by name on a device that would emulate it.
    """
    if wanted == "float16":
        return torch.float16
    if wanted == "float32":
        return torch.float32
    lowest = lowest_precision(device)
    if wanted == "auto" or lowest == torch.bfloat16:
        return lowest
    name = "GPU" if torch.device(device).type == "cuda" else "CPU"
    raise ConfigError(
        f"train.precision=bfloat16 would be emulated on this {name}, several times slower than "
        "float32; use --train.precision float32 or auto"
    )


def lowest_precision(device: torch.device | str) -> torch.dtype:
    """Give the lowest precision whose products a device computes itself: bfloat16 where it has
    instructions for them, which others emulate; else float32."""
    if torch.device(device).type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # pyright: ignore[reportPrivateUsage]  # torch has no public question for it
    return torch.bfloat16 if native else torch.float32


def update_precision(device: torch.device | str, weights: torch.dtype) -> torch.dtype:
    """Give the type of the products that make an update of the weights orthogonal: the lowest that
    the device has; float64 for weights in float64, whose steps are compared digit by digit."""
    return torch.float64 if weights == torch.float64 else lowest_precision(device)


def precision_context(
    dtype: torch.dtype, device: torch.device | str = "cpu"
) -> AbstractContextManager[object]:
    """Make matrix products run in `dtype`; weights and reductions stay float32.

    Autocast rather than cast weights beside float32 masters: both take the same time on a CPU, but
    here the residual stream, norms, softmax and the sum of gradients over micro-batches are float32
    as well, and there is one copy of the weights to save, to clip and to be right about.
    """
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=dtype)


def attention_ways(
    device: str, dtype: torch.dtype, *, dropout: float = 0.0
) -> tuple[AttentionKind, ...]:
    """List what `auto` chooses from, by the operations that each does, fewest first.

    On a CPU `blocks` alone: with its compiled twin (`native.py`) the fastest at every row length
    that we measured; without a C compiler it still is for long rows. On CUDA `varlen`, for half
    precision, `flex` and `blocks`; the first two lack dropout on the attention weights.
    """
    if device != "cuda" or dropout:
        return ("blocks",)
    half = dtype in (torch.float16, torch.bfloat16)
    return ("varlen", "flex", "blocks") if half else ("flex", "blocks")


def choose_attention(
    wanted: AttentionKind, device: str, dtype: torch.dtype, *, dropout: float = 0.0
) -> AttentionKind:
    """Settle `auto` without measuring, and refuse what the device cannot do.

    Args:
        wanted: what the user named.
        device: type of the device, such as `cuda`.
        dtype: of the products.
        dropout: rate on the attention weights in training.

    Raises:
        ConfigError: the device, the type or the dropout rules the named one out.
    """
    if wanted == "auto":
        return attention_ways(device, dtype, dropout=dropout)[0]
    if wanted in ("flex", "varlen"):
        if device != "cuda":
            raise ConfigError(
                f"train.attention={wanted} trains on CUDA only; on {device} take auto or blocks"
            )
        if dropout:
            raise ConfigError(
                f"train.attention={wanted} has no dropout on attention weights; set "
                "model.attention_dropout to 0 or take blocks"
            )
        if wanted == "varlen" and dtype not in (torch.float16, torch.bfloat16):
            raise ConfigError(
                "train.attention=varlen needs bfloat16 or float16; take flex, or another "
                "train.precision"
            )
    return wanted
