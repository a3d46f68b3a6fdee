"""What processes that compute a block together send each other, as operators with a gradient.

Between the products of a block each keeps some positions of every row (sequence parallelism), or
all keep the same positions. A gradient of what all keep is in parts: each process has what its own
share of the products adds, and the whole is their sum. So the gradient of each operator is again
one of these three:

    gather   some positions -> all of them        its gradient sums and shares out
    share    parts of a sum -> some positions     its gradient gathers
    total    parts of a sum -> the sum            its gradient is a total

They are operators of `torch.library`, so that a compiled block stays one graph and torch waits for
each of them in the same place, compiled or not.

Shapes: B rows, T positions, p of them here, size processes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import (
    _resolve_process_group,  # pyright: ignore[reportPrivateUsage] - what operators know is its name
)

__all__ = ["gather", "share", "total"]


@torch.library.custom_op("blankfill::gather_positions", mutates_args=())
def gather(x: torch.Tensor, size: int, group: str) -> torch.Tensor:
    """Put positions together.

    Args:
        x: `[B, p, ...]`, or anything that is cut along its second dimension.
        size: processes of the group.
        group: its name.

    Returns:
        `[B, T, ...]`.
    """
    parts = x.new_empty(size, *x.shape)
    dist.all_gather_single(parts.flatten(0, 1), x.contiguous(), group=_named(group))
    return parts.transpose(0, 1).reshape(x.shape[0], -1, *x.shape[2:])


@torch.library.custom_op("blankfill::share_positions", mutates_args=())
def share(x: torch.Tensor, size: int, group: str) -> torch.Tensor:
    """Sum what the processes have, and keep some positions of it.

    Args:
        x: `[B, T, ...]`, part of a sum.
        size: processes of the group, which divides T.
        group: its name.

    Returns:
        `[B, p, ...]`.
    """
    parts = x.unflatten(1, (size, -1)).transpose(0, 1).contiguous()
    made = torch.empty_like(parts[0])
    dist.reduce_scatter_single(made, parts.flatten(0, 1), group=_named(group))
    return made


@torch.library.custom_op("blankfill::total_of_parts", mutates_args=())
def total(x: torch.Tensor, size: int, group: str) -> torch.Tensor:
    """Sum what the processes have.

    Args:
        x: part of a sum, of any shape.
        size: processes of the group.
        group: its name.
    """
    made = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(made, group=_named(group))
    return made


@gather.register_fake
def _(x: torch.Tensor, size: int, group: str) -> torch.Tensor:
    return x.new_empty(x.shape[0], size * x.shape[1], *x.shape[2:])


@share.register_fake
def _(x: torch.Tensor, size: int, group: str) -> torch.Tensor:
    return x.new_empty(x.shape[0], x.shape[1] // size, *x.shape[2:])


@total.register_fake
def _(x: torch.Tensor, size: int, group: str) -> torch.Tensor:
    return x.new_empty(x.shape)


def _named(group: str) -> Any:
    return _resolve_process_group(cast("Any", group))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    _, ctx.size, ctx.group = inputs


def _by(operator: Callable[..., torch.Tensor]) -> Callable[..., tuple[torch.Tensor, None, None]]:
    """Give the gradient that an operator makes of a gradient."""

    def differentiate(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return operator(grad, ctx.size, ctx.group), None, None

    return differentiate


gather.register_autograd(_by(share), setup_context=_keep)
share.register_autograd(_by(gather), setup_context=_keep)
total.register_autograd(_by(total), setup_context=_keep)
