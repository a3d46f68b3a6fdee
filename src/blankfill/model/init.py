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
from collections.abc import Sequence

import torch
from torch import nn

from blankfill.model.attention import Attention
from blankfill.model.embedding import Embedding
from blankfill.model.glm import GLM
from blankfill.model.mlp import GatedMLP, PlainMLP

__all__ = ["init_weights", "seeded_normal"]

PRE_LN_STD = 0.02
"""GLM's standard deviation of every matrix."""


@torch.no_grad()
def init_weights(model: GLM, seed: int) -> None:
    """Give every weight its first value.

    Args:
        model: on a real device.
        seed: the run's seed.
    """
    cfg = model.cfg
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        elif isinstance(module, Embedding):
            std = math.sqrt(1 / (3 * cfg.hidden_size)) if cfg.is_deepnorm else PRE_LN_STD
            for table in ("word", "position", "block_position"):
                embedding = getattr(module, table)
                if embedding is not None:
                    seeded_normal(embedding.weight, std, seed, f"{name}.{table}")
    for name, module in model.named_modules():
        if isinstance(module, Attention | GatedMLP | PlainMLP):
            if cfg.is_deepnorm:
                _deepnorm(module, name, cfg.deepnorm_beta, seed)
            else:
                _pre_ln(module, name, cfg.num_layers, seed)
    if model.head is not None and model.head.weight is not None:
        std = math.sqrt(1 / (3 * cfg.hidden_size)) if cfg.is_deepnorm else PRE_LN_STD
        seeded_normal(model.head.weight, std, seed, "head")


def _pre_ln(module: Attention | GatedMLP | PlainMLP, name: str, num_layers: int, seed: int) -> None:
    residual = PRE_LN_STD / math.sqrt(2 * num_layers)
    if isinstance(module, Attention):
        parts = [module.q.weight, module.k.weight, module.v.weight]
        _rows_of_one_normal(parts, PRE_LN_STD, seed, f"{name}.qkv")
        seeded_normal(module.out.weight, residual, seed, f"{name}.out")
    else:
        parts = [layer.weight for layer in _inner(module)]
        _rows_of_one_normal(parts, PRE_LN_STD, seed, f"{name}.up")
        seeded_normal(module.down.weight, residual, seed, f"{name}.down")


def _deepnorm(module: Attention | GatedMLP | PlainMLP, name: str, beta: float, seed: int) -> None:
    if isinstance(module, Attention):
        for part, layer in zip("qkv", (module.q, module.k, module.v), strict=True):
            _xavier(layer.weight, beta if part == "v" else 1.0, seed, f"{name}.{part}")
        _xavier(module.out.weight, beta, seed, f"{name}.out")
        return
    for number, layer in enumerate(_inner(module)):
        _xavier(layer.weight, beta, seed, f"{name}.up.{number}")
    _xavier(module.down.weight, beta, seed, f"{name}.down")


def _inner(module: GatedMLP | PlainMLP) -> list[nn.Linear]:
    """List the layers into the inner width."""
    return [module.up, module.gate] if isinstance(module, GatedMLP) else [module.up]


def _xavier(weight: torch.Tensor, gain: float, seed: int, name: str) -> None:
    fan_out, fan_in = weight.shape
    seeded_normal(weight, gain * math.sqrt(2 / (fan_in + fan_out)), seed, name)


def seeded_normal(weight: torch.Tensor, std: float, seed: int, name: str) -> None:
    """Fill a tensor from N(0, std^2), drawn on the CPU from its own address (seed, name)."""
    _rows_of_one_normal([weight], std, seed, name)


def _rows_of_one_normal(weights: Sequence[torch.Tensor], std: float, seed: int, name: str) -> None:
    """Fill tensors of one width as the rows of a single one, drawn from one address."""
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    heights = [len(weight) for weight in weights]
    shape = (sum(heights), *weights[0].shape[1:])
    values = torch.empty(shape, dtype=torch.float32).normal_(0, std, generator=generator)
    for weight, rows in zip(weights, values.split(heights), strict=True):
        weight.copy_(rows)
