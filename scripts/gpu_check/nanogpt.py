"""A training step of nanoGPT, from the one file of a checkout that holds its model."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from blankfill.config.model import ModelConfig
from blankfill.engine.device import choose_precision, precision_context

__all__ = ["nanogpt_step"]


def nanogpt_step(
    file: Path, shape: ModelConfig, batch: tuple[int, int], device: str, *, compiled: bool
) -> tuple[Callable[[Any], None], dict[str, Any]]:
    """Build a model as wide and deep as ours, and what its training loop does in a step.

    Args:
        file: nanoGPT's model.py.
        shape: whose width, depth, heads and vocabulary it takes.
        batch: rows, and positions of a row.
        device: where it computes.
        compiled: whether the whole model is compiled, as its training loop does by default.

    Returns:
        The step, and `open` and `parameters` as a trainer of ours has them.
    """
    spec = importlib.util.spec_from_file_location("nanogpt_model", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["nanogpt_model"] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    cfg = module.GPTConfig(
        block_size=batch[1], vocab_size=shape.vocab_size, n_layer=shape.num_layers,
        n_head=shape.num_heads, n_embd=shape.hidden_size, dropout=0.0, bias=False,
    )  # fmt: skip
    with torch.device(device):
        model = module.GPT(cfg).train()
    optimizer = model.configure_optimizers(0.1, 1e-4, (0.9, 0.95), device)
    dtype = choose_precision("auto", device)
    call = torch.compile(model) if compiled else model
    tokens = torch.randint(0, shape.vocab_size, batch, device=device)
    targets = torch.randint(0, shape.vocab_size, batch, device=device)

    def step(_loader: Any) -> None:
        with precision_context(dtype, device):
            _, loss = call(tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    parameters = sum(p.numel() for p in model.parameters())
    return step, {"open": contextlib.nullcontext, "parameters": parameters}
