"""Names and layouts of the released checkpoints and of ours: one two-way table per family.

A line of the table is a `Tensor`: what we call it, what they call it, how its rows are laid out
there, and how tensor-parallel ranks share it. Reading and writing a checkpoint are the same table
in its two directions, so a round trip is the identity by construction.

Families (the released code that writes and reads the names):

    glm          GLM, Megatron files (`modeling_glm.py`); Q, K, V in thirds
    hf_glm       the same on Hugging Face, names prefixed with `glm.`; its GeLU is the erf form
    sat_glm      GLM in SwissArmyTransformer; positions of spans are a mixin; Sandwich-LN possible
    glm130b      GLM-130B in SwissArmyTransformer; Q, K, V interleaved head by head
    chatglm_sat  ChatGLM-6B in SwissArmyTransformer; Q, K, V in thirds; a head of its own
    hf_chatglm   ChatGLM-6B on Hugging Face; Q, K, V interleaved head by head; a head of its own

Shapes: D hidden, N heads, H head size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import torch

from blankfill.config.model import ModelConfig
from blankfill.errors import ConversionError

__all__ = [
    "FAMILIES",
    "TEMPLATES",
    "Family",
    "Layout",
    "Sharding",
    "Tensor",
    "from_ours",
    "is_ignored",
    "tensors",
    "to_ours",
]

Family = Literal["glm", "hf_glm", "sat_glm", "glm130b", "chatglm_sat", "hf_chatglm"]
Layout = Literal["same", "per_head"]
Sharding = Literal["whole", "rows", "columns", "row_thirds", "row_halves"]

FAMILIES: Final[tuple[Family, ...]] = (
    "glm", "hf_glm", "sat_glm", "glm130b", "chatglm_sat", "hf_chatglm"
)  # fmt: skip
"""Every family."""

TEMPLATES: Final[dict[Family, ModelConfig]] = {
    "glm": ModelConfig(block="pre_ln", activation="gelu_tanh", positions="learned_2d"),
    "hf_glm": ModelConfig(block="pre_ln", activation="gelu", positions="learned_2d"),
    "sat_glm": ModelConfig(block="pre_ln", activation="gelu_tanh", positions="learned_2d"),
    "glm130b": ModelConfig(
        block="deepnorm", deepnorm="su", activation="geglu", positions="rope_1d"
    ),
    "chatglm_sat": ModelConfig(
        block="deepnorm", deepnorm="su", activation="gelu_tanh", positions="rope_2d", tie_head=False
    ),
    "hf_chatglm": ModelConfig(
        block="deepnorm", deepnorm="su", residual_scale=56**0.5, activation="gelu_tanh",
        positions="rope_2d", rope_angles="float16", tie_head=False,
    ),
}  # fmt: skip
"""The architecture of each family; `dataclasses.replace` gives it a checkpoint's sizes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """One tensor of a checkpoint, here and there."""

    ours: tuple[str, ...]
    """Its name in our state dictionary; several where one tensor there is several of ours, whose
    rows stand in this order: Q, K and V, or the linear half and the gate."""
    theirs: str
    """Its name in the whole foreign state dictionary."""
    layout: Layout = "same"
    """per_head: rows are q, k, v of head 0, then of head 1, and so on."""
    sharding: Sharding = "whole"
    """What each tensor-parallel rank holds: all of it; a slice of its rows or columns; or a slice
    of each third (Q, K, V) or half (linear, gate) of its rows, one under the other."""
    optional: bool = False
    """Whether a checkpoint may lack it: learned span positions, which are then zero."""

    def read(self, foreign: torch.Tensor, num_heads: int) -> dict[str, torch.Tensor]:
        """Turn the whole foreign tensor into ours, by name; copies where rows move, else views."""
        if self.layout == "per_head":
            grouped = foreign.unflatten(0, (num_heads, 3, -1))  # [N, 3, H, ...]
            foreign = grouped.transpose(0, 1).flatten(0, 2)
        return dict(zip(self.ours, foreign.chunk(len(self.ours)), strict=True))

    def write(self, all_of_ours: Mapping[str, torch.Tensor], num_heads: int) -> torch.Tensor:
        """Undo `read`."""
        parts = [all_of_ours[name] for name in self.ours]
        own = torch.cat(parts) if len(parts) > 1 else parts[0]
        if self.layout == "same":
            return own
        grouped = own.unflatten(0, (3, num_heads, -1))  # [3, N, H, ...]
        return grouped.transpose(0, 1).flatten(0, 2)


def tensors(family: Family, cfg: ModelConfig) -> tuple[Tensor, ...]:
    """List every tensor that a checkpoint of this family and shape holds.

    Args:
        family: whose names.
        cfg: the shape; `TEMPLATES[family]` with other sizes.

    Raises:
        ConversionError: the family has no place for something that the model has.
    """
    _check(family, cfg)
    stem = "glm.transformer" if family == "hf_glm" else "transformer"
    found = [
        Tensor(ours=("embed.word.weight",), theirs=_word_embedding(family), sharding="rows"),
        *_positions(family, cfg, stem),
    ]
    for i in range(cfg.num_layers):
        found += _layer(family, cfg, f"blocks.{i}", f"{stem}.layers.{i}")
    found += _both("norm", f"{stem}.final_layernorm")
    if not cfg.tie_head:
        mixin = "mixins.chatglm-final." if family == "chatglm_sat" else ""
        found.append(
            Tensor(ours=("head.weight",), theirs=f"{mixin}lm_head.weight", sharding="rows")
        )
    return tuple(found)


def to_ours(
    family: Family, foreign: Mapping[str, torch.Tensor], cfg: ModelConfig
) -> dict[str, torch.Tensor]:
    """Translate a whole state dictionary into ours.

    Args:
        family: who wrote it.
        foreign: its tensors, already merged over tensor-parallel ranks.
        cfg: the shape of the model.

    Returns:
        Tensors by our names; they share memory with the foreign ones where no row moves.

    Raises:
        ConversionError: a tensor is missing, or one is there that has no place.
    """
    table = tensors(family, cfg)
    left = {name for name in foreign if not is_ignored(name)} - {t.theirs for t in table}
    if left:
        raise ConversionError(
            f"{sorted(left)[0]} has no place in a {family} model of {cfg.num_layers} layers; "
            "check the family and the number of layers"
        )
    missing = [t.theirs for t in table if t.theirs not in foreign and not t.optional]
    if missing:
        raise ConversionError(
            f"{missing[0]} is missing from the checkpoint, which a {family} model of "
            f"{cfg.num_layers} layers has; check the family and the number of layers"
        )
    ours: dict[str, torch.Tensor] = {}
    for entry in table:
        if entry.theirs in foreign:
            ours |= entry.read(foreign[entry.theirs], cfg.num_heads)
    if cfg.positions == "learned_2d" and "embed.block_position.weight" not in ours:
        ours["embed.block_position.weight"] = torch.zeros_like(ours["embed.position.weight"])
    return ours


def from_ours(
    family: Family, own: Mapping[str, torch.Tensor], cfg: ModelConfig
) -> dict[str, torch.Tensor]:
    """Undo `to_ours`: translate our state dictionary into theirs.

    Raises:
        ConversionError: the family has no place for something that the model has.
    """
    return {t.theirs: t.write(own, cfg.num_heads) for t in tensors(family, cfg)}


def is_ignored(name: str) -> bool:
    """Whether a foreign tensor is a table that we compute: rotary inverse frequencies."""
    return name.endswith("rotary_emb.inv_freq")


def _check(family: Family, cfg: ModelConfig) -> None:
    template = TEMPLATES[family]
    blocks = {"pre_ln", "sandwich"} if family == "sat_glm" else {template.block}
    positions = (
        {"rope_1d", "rope_2d"} if template.positions.startswith("rope") else {template.positions}
    )
    for field, allowed in (
        ("block", blocks),
        ("positions", positions),
        ("is_gated", {template.is_gated}),
        ("tie_head", {template.tie_head}),
        ("qk_norm", {False}),
    ):
        if getattr(cfg, field) not in allowed:
            raise ConversionError(
                f"a {family} checkpoint cannot hold a model with {field}={getattr(cfg, field)}; "
                f"it needs {' or '.join(sorted(map(str, allowed)))}"
            )


def _word_embedding(family: Family) -> str:
    # GLM's own code keeps the table beside the transformer, everyone else inside it.
    return {"glm": "word_embeddings.weight", "hf_glm": "glm.word_embeddings.weight"}.get(
        family, "transformer.word_embeddings.weight"
    )


def _positions(family: Family, cfg: ModelConfig, stem: str) -> list[Tensor]:
    if cfg.positions != "learned_2d":
        return []
    inside = "mixins.block_position_embedding" if family == "sat_glm" else stem
    return [
        Tensor(ours=("embed.position.weight",), theirs=f"{stem}.position_embeddings.weight"),
        Tensor(
            ours=("embed.block_position.weight",),
            theirs=f"{inside}.block_position_embeddings.weight",
            optional=True,
        ),
    ]


def _layer(family: Family, cfg: ModelConfig, here: str, there: str) -> list[Tensor]:
    per_head = family in ("glm130b", "hf_chatglm")
    layout: Layout = "per_head" if per_head else "same"
    heads: Sharding = "rows" if per_head else "row_thirds"
    qkv = tuple(f"{here}.attention.{part}" for part in "qkv")
    inner: Sharding = "row_halves" if cfg.is_gated else "rows"
    halves = (f"{here}.mlp.up", f"{here}.mlp.gate")[: 2 if cfg.is_gated else 1]
    found = [
        *_both(f"{here}.attention_norm", f"{there}.input_layernorm"),
        *_both(qkv, f"{there}.attention.query_key_value", layout, heads),
        *_into_residual(f"{here}.attention.out", f"{there}.attention.dense"),
        *_both(f"{here}.mlp_norm", f"{there}.post_attention_layernorm"),
        *_both(halves, f"{there}.mlp.dense_h_to_4h", "same", inner),
        *_into_residual(f"{here}.mlp.down", f"{there}.mlp.dense_4h_to_h"),
    ]
    if cfg.block == "sandwich":
        found += _both(f"{here}.attention_out_norm", f"{there}.third_layernorm")
        found += _both(f"{here}.mlp_out_norm", f"{there}.fourth_layernorm")
    return found


def _both(
    here: str | tuple[str, ...], there: str, layout: Layout = "same", sharding: Sharding = "whole"
) -> list[Tensor]:
    """Weight and bias that are laid out and sharded alike."""
    stems = (here,) if isinstance(here, str) else here
    return [
        Tensor(
            ours=tuple(f"{stem}.{x}" for stem in stems), theirs=f"{there}.{x}", layout=layout,
            sharding=sharding,
        )
        for x in ("weight", "bias")
    ]  # fmt: skip


def _into_residual(here: str, there: str) -> list[Tensor]:
    """A matrix whose columns are shared; its bias is whole on every rank."""
    return [
        Tensor(ours=(f"{here}.weight",), theirs=f"{there}.weight", sharding="columns"),
        Tensor(ours=(f"{here}.bias",), theirs=f"{there}.bias"),
    ]
