"""Which tensors are decayed, and which optimizer each of them gets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypedDict

import torch
from torch import nn

from blankfill.config.optimizer import OptimizerConfig
from blankfill.errors import CheckpointError
from blankfill.optim.muon import Muon, Orthogonalizer

__all__ = [
    "ParameterGroup",
    "SplitOptimizer",
    "build_optimizer",
    "build_optimizer_of",
    "matrices_of",
    "parameter_groups",
]

STATE: Final[dict[type[torch.optim.Optimizer], tuple[str, ...]]] = {
    torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"),
    Muon: ("momentum_buffer",),
}
"""What each optimizer keeps for a parameter."""


class ParameterGroup(TypedDict):
    """Parameters that are treated alike, as torch's optimizers take them."""

    params: list[nn.Parameter]
    weight_decay: float
    """Decoupled decay."""
    lr_ratio: float
    """Their share of the learning rate."""


def parameter_groups(
    named: list[tuple[str, nn.Parameter]], weight_decay: float, embedding_lr_ratio: float = 1.0
) -> list[ParameterGroup]:
    """Split parameters into decayed and not decayed, and embeddings from both.

    Matrices and embeddings are decayed; biases and LayerNorms, which are vectors, are not
    (GLM `modeling_glm.py`; Megatron's convention). Embeddings and the head may have a learning rate
    of their own.

    Returns:
        Groups for a torch optimizer, each in the given order; none is empty.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        decay = weight_decay if parameter.ndim >= 2 else 0.0
        looked_up = name.startswith(("embed.", "head."))
        ratio = embedding_lr_ratio if looked_up else 1.0
        groups.setdefault((decay, ratio), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "lr_ratio": ratio}
        for (decay, ratio), parameters in groups.items()
    ]


class SplitOptimizer:
    """Torch optimizers over disjoint parameters that step as one.

    Args:
        named: every trained parameter by name.
        parts: the optimizers; together they hold each parameter once.
    """

    def __init__(
        self, named: list[tuple[str, nn.Parameter]], parts: list[torch.optim.Optimizer]
    ) -> None:
        self._parts = parts
        owners = {
            id(parameter): part
            for part in parts
            for group in part.param_groups
            for parameter in group["params"]
        }
        self._owned = [(name, p, owners[id(p)]) for name, p in named]

    def set_lr(self, lr: float) -> None:
        """Use this learning rate from the next step on; embeddings their share of it."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = lr * group.get("lr_ratio", 1.0)

    def step(self, unless: torch.Tensor | None = None) -> None:
        """Move every parameter once.

        Args:
            unless: `[]` float32 on the device, 1 where everything, the optimizers' own state
                included, stays as it is, and 0 where it moves. The host does not read it.
        """
        for part in self._parts:
            # Torch's fused optimizers read this attribute, as GradScaler sets it; Muon does alike.
            part.found_inf = unless  # pyright: ignore[reportAttributeAccessIssue]  # not declared
            part.step()

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Give the state as tensors named `<what>.<parameter>`, as a checkpoint keeps it."""
        return {
            f"{key}.{name}": value
            for name, parameter, owner in self._owned
            for key, value in owner.state[parameter].items()
        }

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Restore the state from what `tensors` gave: nothing, where no step had been done.

        Raises:
            CheckpointError: the state of a parameter is missing.
        """
        for name, parameter, owner in self._owned:
            if not tensors:
                owner.state.pop(parameter, None)
                continue
            keys = STATE[type(owner)]
            missing = [f"{key}.{name}" for key in keys if f"{key}.{name}" not in tensors]
            if missing:
                raise CheckpointError(f"the optimizer's {missing[0]} is missing")
            owner.state[parameter] = {
                key: tensors[f"{key}.{name}"].to(parameter.device) for key in keys
            }


def build_optimizer(
    model: nn.Module, cfg: OptimizerConfig, *, lr: float, muon_dtype: torch.dtype = torch.float32
) -> SplitOptimizer:
    """Build the optimizer of a whole model's parameters; arguments are `build_optimizer_of`'s."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return build_optimizer_of(named, cfg, lr=lr, muon_dtype=muon_dtype)


def build_optimizer_of(
    named: Sequence[tuple[str, nn.Parameter]],
    cfg: OptimizerConfig,
    *,
    lr: float,
    muon_dtype: torch.dtype = torch.float32,
    orthogonalizer: Orthogonalizer | None = None,
) -> SplitOptimizer:
    """Build the optimizer that `cfg` names.

    `adamw` is AdamW (Loshchilov and Hutter 2019) in torch's fused form. `muon` is Muon (Jordan et
    al. 2024) for the matrices of the blocks and AdamW for the rest; Muon's update is scaled to
    the size of AdamW's (Liu et al. 2025, "Muon is Scalable"), so one learning rate serves both.

    Args:
        named: the trained parameters by name, or of each the rows that this process keeps.
        cfg: which, and its settings.
        lr: learning rate until another one is set.
        muon_dtype: of the products that make Muon's updates orthogonal.
        orthogonalizer: does that, given the updates in the order of the parameters; every matrix by
            itself where not given.
    """
    matrices = [(name, p) for name, p in matrices_of(named) if cfg.kind == "muon"]
    taken = {name for name, _ in matrices}
    rest = [(name, p) for name, p in named if name not in taken]
    parts: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            [{**g} for g in parameter_groups(rest, cfg.weight_decay, cfg.embedding_lr_ratio)],
            lr=lr,
            betas=(cfg.beta1, cfg.beta2),
            eps=cfg.eps,
            fused=True,
        )
    ]
    if matrices:
        parts.append(
            Muon(
                [parameter for _, parameter in matrices],
                lr=lr,
                momentum=cfg.muon_momentum,
                weight_decay=cfg.weight_decay,
                dtype=muon_dtype,
                orthogonalizer=orthogonalizer,
            )
        )
    return SplitOptimizer(list(named), parts)


def matrices_of(named: Sequence[tuple[str, nn.Parameter]]) -> Iterator[tuple[str, nn.Parameter]]:
    """List what Muon moves: the matrices of the blocks.

    The embedding and the head are lookups, not maps between hidden states; AdamW keeps them.
    """
    for name, parameter in named:
        if parameter.ndim == 2 and name.startswith("blocks."):
            yield name, parameter
