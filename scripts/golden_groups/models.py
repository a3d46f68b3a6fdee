"""A tiny released model of the vectors, rebuilt as ours from its config.json alone."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from blankfill.config.model import ModelConfig
from blankfill.interop.keymap import FAMILIES, TEMPLATES, Family, to_ours
from blankfill.model import GLM

NAMES: dict[str, Family] = {family: family for family in FAMILIES} | {"chatglm": "chatglm_sat"}
"""Families by the names that config.json gives them."""
IGNORE = -100


class NotOfferedError(Exception):
    """The case asks for something that blankfill does not have; the message says what."""


@dataclass(frozen=True, kw_only=True)
class Released:
    """One model of the vectors. Shapes: B rows, T columns, V vocabulary."""

    name: str
    family: Family
    model: GLM
    """Ours, with the released weights, in evaluation mode."""
    tokens: torch.Tensor
    """`[B, T]`."""
    positions: torch.Tensor
    """`[B, 2, T]`."""
    visible: torch.Tensor
    """`[B, T, T]`; columns that see nothing see themselves, since a softmax needs a key."""
    valid: torch.Tensor
    """`[B, T]` columns that are compared: not padding."""
    targets: torch.Tensor
    """`[B, T]`, aligned with the logits; -100 where there is no loss."""
    outputs: dict[str, torch.Tensor]


def load_model(folder: Path) -> Released:
    """Read one folder under `logits/`.

    Raises:
        NotOfferedError: the model has an option that ours lacks.
    """
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    inputs = load_file(folder / "inputs.safetensors")
    family = NAMES.get(config["family"])
    if family is None:
        raise NotOfferedError(f"family {config['family']}")
    cfg = model_config(family, config, weights)
    model = GLM(cfg)
    model.load_state_dict(to_ours(family, weights, cfg))
    tokens = inputs["tokens"]
    seen = inputs["mask_visible"][:, 0].bool()
    blind = ~seen.any(dim=-1)
    return Released(
        name=folder.name,
        family=family,
        model=model.eval(),
        tokens=tokens,
        positions=_positions(inputs),
        visible=seen | torch.diag_embed(blind),
        valid=_valid(config, tokens.shape) & ~blind,
        targets=_targets(config, inputs),
        outputs=load_file(folder / "outputs.safetensors"),
    )


def model_config(
    family: Family, config: dict[str, Any], weights: dict[str, torch.Tensor]
) -> ModelConfig:
    """Say in our words what config.json says in theirs."""
    if config.get("rope_base", 10_000) != 10_000:
        raise NotOfferedError(f"a rotary base of {config['rope_base']}")
    template = TEMPLATES[family]
    changes: dict[str, Any] = {
        "vocab_size": config["vocab_size"],
        "hidden_size": config["hidden_size"],
        "num_layers": config["num_layers"],
        "num_heads": config["num_attention_heads"],
        "ffn_size": config.get("inner_hidden_size", 4 * config["hidden_size"]),
        "norm_eps": config["layernorm_epsilon"],
        "tie_head": config.get("tied_head", template.tie_head),
    }
    if template.is_deepnorm:
        changes["residual_scale"] = config["alpha"]
        two = config.get("position_encoding_2d", template.positions == "rope_2d")
        changes["positions"] = "rope_2d" if two else "rope_1d"
        rounded = _is_rounded(weights)
        changes["rope_angles"] = "float16" if rounded else "float32"
    else:
        table = next(v for k, v in weights.items() if k.endswith(".position_embeddings.weight"))
        changes["max_position"] = len(table) - 1
        changes["pb_relax"] = _relax(config.get("attention_scale", 1.0))
        changes["block"] = _block(config.get("layernorm_order", "pre"))
    if "activation" in config:
        changes["activation"] = _activation(config["activation"])
    return dataclasses.replace(template, **changes)


def _relax(scale: float) -> float:
    # GLM divides q and k by the root of the scale, and the scores' excess is scaled back.
    return scale if scale > 1 else 0.0


def _is_rounded(weights: dict[str, torch.Tensor]) -> bool:
    """Whether the stored inverse frequencies are numbers of float16."""
    stored = [value for name, value in weights.items() if name.endswith("inv_freq")]
    return bool(stored) and all(torch.equal(f, f.half().to(f.dtype)) for f in stored)


def _block(order: str) -> str:
    if order not in ("pre", "sandwich"):
        raise NotOfferedError(f"layernorm_order {order}")
    return {"pre": "pre_ln", "sandwich": "sandwich"}[order]


def _activation(words: str) -> str:
    known = {"x1 * gelu_erf(x2)": "geglu", "x1 * silu(x2)": "swiglu", "gelu tanh": "gelu_tanh",
             "gelu erf": "gelu", "relu": "relu"}  # fmt: skip
    found = next((ours for theirs, ours in known.items() if words.startswith(theirs)), None)
    if found is None:
        raise NotOfferedError(f"activation {words}")
    return found


def _positions(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    names = ("model_position_ids", "position_ids", "position_ids_2d")
    positions = next(inputs[name] for name in names if name in inputs)
    if positions.ndim == 2:
        return torch.stack([positions, torch.zeros_like(positions)], dim=1)
    return positions


def _valid(config: dict[str, Any], shape: torch.Size) -> torch.Tensor:
    lengths = config.get("valid_lengths", config.get("non_pad_lengths"))
    if lengths is None:
        return torch.ones(shape, dtype=torch.bool)
    column = torch.arange(shape[1])
    wanted = torch.tensor(lengths)[:, None]
    if config.get("padding") == "left":
        return column >= shape[1] - wanted
    return column < wanted


def _targets(config: dict[str, Any], inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    if "targets" in inputs:
        return inputs["targets"].masked_fill(inputs["loss_mask"] == 0, IGNORE)
    labels = inputs["labels"]
    if config["loss"].startswith("shifted"):
        ends = labels.new_full((len(labels), 1), IGNORE)
        return torch.cat([labels[:, 1:], ends], dim=1)
    return labels
