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

import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from blankfill.model.attention import Attention
from blankfill.model.embedding import Embedding
from blankfill.model.glm import GLM
from blankfill.model.mlp import GatedMLP, PlainMLP

__all__ = ["First", "draw_normal", "first_values", "init_weights"]

PRE_LN_STD = 0.02
"""GLM's standard deviation of every matrix."""


@dataclass(frozen=True, slots=True, eq=False)
class First:
    """The first values of weights that lie one after the other, as rows, in one tensor."""

    weights: Sequence[torch.Tensor]
    """Whose they are."""
    draw: Callable[[], torch.Tensor]
    """Makes the tensor, in float32 on the CPU; the same each time."""
    is_constant: bool = False
    """Whether that takes no time."""

    def values(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Make the tensor, and give each weight with its rows."""
        rows = self.draw().split([len(weight) for weight in self.weights])
        return zip(self.weights, rows, strict=True)


Firsts = Iterator[First]


@torch.no_grad()
def init_weights(model: GLM, seed: int) -> None:
    """Give every weight its first value.

    Args:
        model: on a real device.
        seed: the run's seed.
    """
    for first in first_values(model, seed):
        for weight, values in first.values():
            weight.copy_(values)


def first_values(model: GLM, seed: int) -> Firsts:
    """Tell how the first value of every weight is drawn, one layer's part at a time.

    Args:
        model: of any device; its weights are not touched.
        seed: the run's seed.
    """
    cfg = model.cfg
    std = math.sqrt(1 / (3 * cfg.hidden_size)) if cfg.is_deepnorm else PRE_LN_STD
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm):
            yield _constant(module.weight, 1)
            yield _constant(module.bias, 0)
        elif isinstance(module, nn.Linear):
            yield _constant(module.bias, 0)
        elif isinstance(module, Embedding):
            for table in ("word", "position", "block_position"):
                embedding = getattr(module, table)
                if embedding is not None:
                    yield _normal(embedding.weight, std, seed, f"{name}.{table}")
        elif isinstance(module, Attention | GatedMLP | PlainMLP):
            if cfg.is_deepnorm:
                yield from _deepnorm(module, name, cfg.deepnorm_beta, seed)
            else:
                yield from _pre_ln(module, name, cfg.num_layers, seed)
    if model.head is not None and model.head.weight is not None:
        yield _normal(model.head.weight, std, seed, "head")


def draw_normal(shape: Sequence[int], std: float, seed: int, name: str) -> torch.Tensor:
    """Draw a tensor from N(0, std^2), on the CPU, from its own address (seed, name)."""
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    return torch.empty(*shape, dtype=torch.float32).normal_(0, std, generator=generator)


def _pre_ln(
    module: Attention | GatedMLP | PlainMLP, name: str, num_layers: int, seed: int
) -> Firsts:
    residual = PRE_LN_STD / math.sqrt(2 * num_layers)
    if isinstance(module, Attention):
        parts = [module.q.weight, module.k.weight, module.v.weight]
        yield _rows_of_one_normal(parts, PRE_LN_STD, seed, f"{name}.qkv")
        yield _normal(module.out.weight, residual, seed, f"{name}.out")
    else:
        parts = [layer.weight for layer in _inner(module)]
        yield _rows_of_one_normal(parts, PRE_LN_STD, seed, f"{name}.up")
        yield _normal(module.down.weight, residual, seed, f"{name}.down")


def _deepnorm(module: Attention | GatedMLP | PlainMLP, name: str, beta: float, seed: int) -> Firsts:
    if isinstance(module, Attention):
        for part, layer in zip("qkv", (module.q, module.k, module.v), strict=True):
            yield _xavier(layer.weight, beta if part == "v" else 1.0, seed, f"{name}.{part}")
        yield _xavier(module.out.weight, beta, seed, f"{name}.out")
        return
    for number, layer in enumerate(_inner(module)):
        yield _xavier(layer.weight, beta, seed, f"{name}.up.{number}")
    yield _xavier(module.down.weight, beta, seed, f"{name}.down")


def _inner(module: GatedMLP | PlainMLP) -> list[nn.Linear]:
    """List the layers into the inner width."""
    return [module.up, module.gate] if isinstance(module, GatedMLP) else [module.up]


def _constant(weight: torch.Tensor, value: float) -> First:
    return First([weight], functools.partial(torch.full, weight.shape, value), is_constant=True)


def _xavier(weight: torch.Tensor, gain: float, seed: int, name: str) -> First:
    fan_out, fan_in = weight.shape
    return _normal(weight, gain * math.sqrt(2 / (fan_in + fan_out)), seed, name)


def _normal(weight: torch.Tensor, std: float, seed: int, name: str) -> First:
    return _rows_of_one_normal([weight], std, seed, name)


def _rows_of_one_normal(weights: Sequence[torch.Tensor], std: float, seed: int, name: str) -> First:
    """Draw tensors of one width as the rows of a single one, from one address."""
    shape = (sum(len(weight) for weight in weights), *weights[0].shape[1:])
    return First(weights, functools.partial(draw_normal, shape, std, seed, name))
