"""Compiled blocks: for training alone, with graphs that know no size of a batch.

Scoring and filling, of many shapes, are computed as they are written.
"""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager
from typing import Final

import torch
from torch import nn

from blankfill.model.masks import Mask, PackedMask, VarlenMask

__all__ = ["compile_block", "mark_varying", "uncompiled"]

MOST_GRAPHS: Final = 128
"""Graphs of a block's code in one process, two for each model that trains there."""
# Torch gives up after 8, and a fifth model of a process would not be compiled; before 2.13 nothing
# but a setting of the whole process says otherwise.
_LIMIT: Final = (
    {"recompile_limit": MOST_GRAPHS}
    if "recompile_limit" in inspect.signature(torch.compile).parameters
    else {}
)


def compile_block(block: nn.Module, *, one_graph: bool = True) -> None:
    """Compile the calls of one block, in place: its hooks stay, and so do its tensors' names.

    Blocks of a model share graphs. Two serve every batch: one all blocks but the last, one the
    last. Neither knows the sizes of the batch that it was made from (`mark_varying`), so a resumed
    run computes with the same ones.

    Args:
        block: of a model.
        one_graph: refuse a block that is more than one graph; else it is computed in parts.
    """
    block.compile(fullgraph=one_graph, dynamic=False, **_LIMIT)


def mark_varying(mask: Mask, wanted: torch.Tensor | None = None) -> None:
    """Tell `torch.compile` which sizes differ from batch to batch and are not to be built in."""
    from torch._dynamo.decorators import mark_unbacked  # loads the compiler

    varying: list[torch.Tensor] = []
    if isinstance(mask, PackedMask):
        varying = [mask.table]
    elif isinstance(mask, VarlenMask):
        varying = mask.varying
    for tensor in varying if wanted is None else [*varying, wanted]:
        mark_unbacked(tensor, 0)


def uncompiled() -> AbstractContextManager[object]:
    """Compute compiled blocks as they are written, hooks and all."""
    return torch.compiler.set_stance("force_eager")
