"""First values of the weights: each tensor from its own address (seed, name).

So a tensor gets the same values whatever the device, the layout or the order of construction.

Pre-LN (GLM `modeling_glm.py`): N(0, 0.02), and 0.02 / sqrt(2 * layers) into the residual stream;
Sandwich-LN and Post-LN alike, as SAT and Megatron have them. Norms start as the identity.

DeepNorm, in both forms (Wang et al. 2022; Zeng et al. 2022, section 2.1): Xavier-normal with gain
beta on V, the attention output and both feed-forward matrices, gain 1 on Q and K. Their code
applied beta to the wrong rows of its interleaved Q, K, V; here it is applied to the logical V. Each
half of a gated layer is initialised as a matrix of its own. Embeddings: N(0, sqrt(1 / (3 *
hidden))), which is GLM-130B's 0.0052 at its width.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from blankfill.model.attention import Attention
from blankfill.model.embedding import Embedding
from blankfill.model.glm import GLM
from blankfill.model.mlp import GatedMLP, PlainMLP

__all__ = ["draw_normal", "first_values", "init_weights"]

PRE_LN_STD = 0.02
"""GLM's standard deviation of every matrix."""
Values = Iterator[tuple[torch.Tensor, torch.Tensor]]
"""Weights, each with its values in float32."""


@torch.no_grad()
def init_weights(model: GLM, seed: int) -> None:
    """Give every weight its first value.

    Args:
        model: on a real device.
        seed: the run's seed.
    """
    for weight, values in first_values(model, seed):
        weight.copy_(values)


def first_values(model: GLM, seed: int) -> Values:
    """Draw the first value of every weight, one layer's part at a time, on the CPU.

    Args:
        model: of any device; its weights are not touched.
        seed: the run's seed.
    """
    cfg = model.cfg
    std = math.sqrt(1 / (3 * cfg.hidden_size)) if cfg.is_deepnorm else PRE_LN_STD
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm):
            yield module.weight, torch.ones(module.weight.shape)
            yield module.bias, torch.zeros(module.bias.shape)
        elif isinstance(module, nn.Linear):
            yield module.bias, torch.zeros(module.bias.shape)
        elif isinstance(module, Embedding):
            for table in ("word", "position", "block_position"):
                embedding = getattr(module, table)
                if embedding is not None:
                    yield from _normal(embedding.weight, std, seed, f"{name}.{table}")
        elif isinstance(module, Attention | GatedMLP | PlainMLP):
            if cfg.is_deepnorm:
                yield from _deepnorm(module, name, cfg.deepnorm_beta, seed)
            else:
                yield from _pre_ln(module, name, cfg.num_layers, seed)
    if model.head is not None and model.head.weight is not None:
        yield from _normal(model.head.weight, std, seed, "head")


def draw_normal(shape: Sequence[int], std: float, seed: int, name: str) -> torch.Tensor:
    """Draw a tensor from N(0, std^2), on the CPU, from its own address (seed, name)."""
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    return torch.empty(*shape, dtype=torch.float32).normal_(0, std, generator=generator)


def _pre_ln(
    module: Attention | GatedMLP | PlainMLP, name: str, num_layers: int, seed: int
) -> Values:
    residual = PRE_LN_STD / math.sqrt(2 * num_layers)
    if isinstance(module, Attention):
        parts = [module.q.weight, module.k.weight, module.v.weight]
        yield from _rows_of_one_normal(parts, PRE_LN_STD, seed, f"{name}.qkv")
        yield from _normal(module.out.weight, residual, seed, f"{name}.out")
    else:
        parts = [layer.weight for layer in _inner(module)]
        yield from _rows_of_one_normal(parts, PRE_LN_STD, seed, f"{name}.up")
        yield from _normal(module.down.weight, residual, seed, f"{name}.down")


def _deepnorm(module: Attention | GatedMLP | PlainMLP, name: str, beta: float, seed: int) -> Values:
    if isinstance(module, Attention):
        for part, layer in zip("qkv", (module.q, module.k, module.v), strict=True):
            yield from _xavier(layer.weight, beta if part == "v" else 1.0, seed, f"{name}.{part}")
        yield from _xavier(module.out.weight, beta, seed, f"{name}.out")
        return
    for number, layer in enumerate(_inner(module)):
        yield from _xavier(layer.weight, beta, seed, f"{name}.up.{number}")
    yield from _xavier(module.down.weight, beta, seed, f"{name}.down")


def _inner(module: GatedMLP | PlainMLP) -> list[nn.Linear]:
    """List the layers into the inner width."""
    return [module.up, module.gate] if isinstance(module, GatedMLP) else [module.up]


def _xavier(weight: torch.Tensor, gain: float, seed: int, name: str) -> Values:
    fan_out, fan_in = weight.shape
    return _normal(weight, gain * math.sqrt(2 / (fan_in + fan_out)), seed, name)


def _normal(weight: torch.Tensor, std: float, seed: int, name: str) -> Values:
    return _rows_of_one_normal([weight], std, seed, name)


def _rows_of_one_normal(
    weights: Sequence[torch.Tensor], std: float, seed: int, name: str
) -> Values:
    """Draw tensors of one width as the rows of a single one, from one address."""
    heights = [len(weight) for weight in weights]
    values = draw_normal((sum(heights), *weights[0].shape[1:]), std, seed, name)
    yield from zip(weights, values.split(heights), strict=True)
