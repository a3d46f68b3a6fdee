"""Alpha as it is measured on running models, and the law of every first value."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from blankfill.interop.keymap import TEMPLATES, Family, from_ours
from blankfill.model import GLM, init_weights
from blankfill.model.block import build_block
from blankfill.model.masks import DenseMask
from golden_groups.common import MISMATCH, Case

SOURCES: dict[str, Family] = {
    "thudm_glm": "glm", "hf_glm": "hf_glm", "sat_glm": "sat_glm", "sat_glm130b": "glm130b",
    "glm130b": "glm130b", "sat_chatglm": "chatglm_sat", "chatglm": "chatglm_sat",
    "hf_chatglm": "hf_chatglm",
}  # fmt: skip
"""Families by the names that the file gives them."""
SAME_LAW: tuple[Family, ...] = ("glm", "sat_glm")
"""Families whose random tensors start by the law that we follow. HF GLM forgets the factor of the
residual branches; the released DeepNorm models have no law of their own (weights come from a
checkpoint), where ours follow the paper's."""


def alphas(folder: Path) -> Iterator[Case]:
    """Relative differences of alpha, for each number of layers that was measured."""
    known = json.loads((folder / "deepnorm_and_init.json").read_text())["deepnorm_alpha"]
    for key, by_layers in known.items():
        if not isinstance(by_layers, dict):
            continue
        family = SOURCES.get(key.split()[0])
        for num_layers, wanted in by_layers.items():
            name = f"{key.split()[0]} {num_layers}"
            if family is None:
                yield name, "an unknown family"
                continue
            found = _measured_alphas(family, int(num_layers))
            if isinstance(wanted, dict):
                values = [wanted["alpha_attention_residual"], wanted["alpha_mlp_residual"]]
            else:
                values = [wanted, wanted]
            yield name, max(abs(a - b) / b for a, b in zip(found, values, strict=True))


def _measured_alphas(family: Family, num_layers: int) -> tuple[float, float]:
    """Run a block whose branches give zero, and divide what comes out by what went in."""
    cfg = dataclasses.replace(
        TEMPLATES[family], hidden_size=8, num_heads=2, ffn_size=4, num_layers=num_layers,
        positions="none", rope_angles="float32",
    )  # fmt: skip
    block = build_block(cfg, 0).double()
    seen: dict[str, torch.Tensor] = {}
    for where in ("attention_norm", "mlp_norm"):

        def keep(_module: Any, inputs: Any, output: torch.Tensor, where: str = where) -> None:
            seen[f"{where} in"], seen[f"{where} out"] = inputs[0], output

        getattr(block, where).register_forward_hook(keep)
    with torch.no_grad():
        for module in (block.attention.out, block.mlp.down):
            module.weight.zero_()
            module.bias.zero_()
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(1, 3, 8, generator=generator, dtype=torch.float64)
        out = block(x, None, DenseMask(torch.ones(1, 3, 3, dtype=torch.bool)))
    first = seen["mlp_norm in"] / seen["attention_norm out"]
    second = out / seen["mlp_norm out"]
    return float(first.mean()), float(second.mean())


def initial_values(folder: Path) -> Iterator[Case]:
    """Distances from the law in standard errors; tensors of one value exactly."""
    known = json.loads((folder / "deepnorm_and_init.json").read_text())["init_std_per_parameter"]
    for source, by_layers in known.items():
        for key, parameters in by_layers.items():
            num_layers = int(re.sub(r"\D", "", key))
            family = SOURCES.get(source)
            if family is None:
                yield f"{source} {key}", "an unknown family"
                continue
            ours = _first_values(family, num_layers, parameters)
            for name, wanted in parameters.items():
                case = f"{source} {key} {name}"
                if name not in ours or list(ours[name].shape) != wanted["shape"]:
                    yield case, MISMATCH
                elif "std" not in wanted:
                    yield case, "uninitialised memory"
                elif wanted["std"] == 0:
                    constant = torch.full_like(ours[name], wanted["mean"])
                    yield case, 0.0 if torch.equal(ours[name], constant) else MISMATCH
                elif family not in SAME_LAW:
                    yield case, "a law of our own on purpose, or torch's default"
                else:
                    yield case, _standard_errors(ours[name].numpy(), wanted)


def _first_values(
    family: Family, num_layers: int, parameters: dict[str, Any]
) -> dict[str, torch.Tensor]:
    """Start a model of the recorded sizes; its tensors by their names."""
    shapes = {name: parameters[name]["shape"] for name in parameters}

    def shape(suffix: str) -> list[int]:
        return next(value for name, value in shapes.items() if name.endswith(suffix))

    vocab_size, hidden_size = shape("word_embeddings.weight")
    positions = [s for name, s in shapes.items() if name.endswith(".position_embeddings.weight")]
    cfg = dataclasses.replace(
        TEMPLATES[family], vocab_size=vocab_size, hidden_size=hidden_size, num_layers=num_layers,
        num_heads=1, ffn_size=shape("mlp.dense_4h_to_h.weight")[1],
        max_position=positions[0][0] - 1 if positions else 64,
    )  # fmt: skip
    model = GLM(cfg)
    init_weights(model, 0)
    return from_ours(family, model.state_dict(), cfg)


def _standard_errors(found: np.ndarray, wanted: dict[str, Any]) -> float:
    """Give the larger of the distances of mean and deviation, in standard errors."""
    requested = wanted["normal_std_requested"]
    std = wanted["std"] if requested is None else requested
    # An empirical deviation has an error of its own; a requested one has none.
    error = std / np.sqrt(2 * found.size) * (2**0.5 if requested is None else 1)
    return float(
        max(abs(found.std() - std) / error, abs(found.mean()) / (std / np.sqrt(found.size)))
    )
