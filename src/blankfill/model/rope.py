"""Rotary positions (Su et al. 2021), one- and two-dimensional.

Half-split pairing, base 10,000: within a part of width P, dimension i turns with dimension
i + P/2 by `position * 10000^(-2i/P)`. One-dimensional: one part, the whole head, by the first
position. Two-dimensional (ChatGLM-6B): two parts, each half of the head, the first turned by the
position in the text, the second by the position inside the span.

Angles are float32. ChatGLM-6B's released code rounds the inverse frequencies to float16, which is
wrong by up to a radian near position 2000, and its weights were trained so: `angles="float16"`
rounds them as it does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from blankfill.config.model import RopeAngles
from blankfill.kernels.rotation import rotate_in_c

__all__ = ["BASE", "Rotation", "rotate", "rotation_of"]

BASE = 10_000.0
"""Base of the wavelengths (Su et al. 2021, section 3.2.2)."""


@dataclass(frozen=True, slots=True, eq=False)
class Rotation:
    """Cosines and sines of the positions of one forward pass."""

    cos: torch.Tensor
    """`[B, T, 1, parts, P / 2]`."""
    sin: torch.Tensor
    """`[B, T, 1, parts, P / 2]`."""


def rotation_of(
    positions: torch.Tensor,
    head_size: int,
    num_parts: int,
    dtype: torch.dtype,
    *,
    angles: RopeAngles = "float32",
) -> Rotation:
    """Compute the rotation of each position, once for all layers.

    Args:
        positions: `[B, 2, T]` both position ids; with one part only the first is used.
        head_size: width of a head.
        num_parts: 1 or 2.
        dtype: of the result; angles are float32, or float64 where that is asked for.
        angles: float16 rounds the inverse frequencies as ChatGLM-6B's released code does.
    """
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    exponent = torch.arange(0, head_size // num_parts, 2, device=positions.device, dtype=wide) / (
        head_size // num_parts
    )
    frequency = BASE**-exponent  # [P/2]
    if angles == "float16":
        frequency = (1 / BASE ** exponent.float()).half().to(wide)
    angle = positions[:, :num_parts, :, None].to(wide) * frequency  # [B, parts, T, P/2]
    angle = angle.transpose(1, 2).unsqueeze(2).contiguous()
    return Rotation(angle.cos().to(dtype), angle.sin().to(dtype))


def rotate(x: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    """Turn queries or keys.

    Args:
        x: `[B, T, N, H]`.
        rotation: of the positions of `x`.

    Returns:
        `[B, T, N, H]` in the dtype of `x`.
    """
    if (rotated := rotate_in_c(x, rotation.cos, rotation.sin)) is not None:
        return rotated
    parts = rotation.cos.shape[3]
    cos, sin = rotation.cos.to(x.dtype), rotation.sin.to(x.dtype)
    first, second = x.unflatten(-1, (parts, 2, -1)).unbind(-2)  # each [B, T, N, parts, P/2]
    turned = torch.stack((first * cos - second * sin, second * cos + first * sin), dim=-2)
    return turned.flatten(-3)
