"""The configuration of a model from the shapes of its tensors, its config.json, and the presets."""

from __future__ import annotations

import dataclasses
import re
from typing import Final, TypedDict

from blankfill.config.model import Activation, BlockKind, ModelConfig, PositionEncoding
from blankfill.config.presets import PRESETS, preset
from blankfill.errors import ConversionError
from blankfill.interop.keymap import TEMPLATES
from blankfill.interop.layouts import FAMILY_OF, Source
from blankfill.interop.shards import StoredTensor
from blankfill.interop.switches import check_switches, flag

__all__ = ["infer_config", "preset_of"]

_LAYER = re.compile(r"(?:glm\.)?transformer\.layers\.(\d+)\.(.+)")
_ROPE_POSITIONS = 2048
"""Longest text of GLM-130B and ChatGLM-6B, where no config.json says another (their configs)."""


class _Shape(TypedDict, total=False):
    """Fields of the model's configuration that the checkpoint decides."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    ffn_size: int
    block: BlockKind
    dropout: float
    norm_eps: float
    max_position: int
    positions: PositionEncoding
    activation: Activation


def infer_config(
    source: Source, *, num_heads: int | None = None, activation: Activation | None = None
) -> ModelConfig:
    """Find the configuration that the tensors of a checkpoint fit.

    Args:
        source: the checkpoint.
        num_heads: attention heads, where neither config.json nor a preset tells.
        activation: instead of the layout's.

    Raises:
        ConversionError: the tensors contradict each other or config.json, a rank is missing, or the
            number of heads is unknown or impossible.
    """
    if source.record is not None:
        return source.record.config.model
    names = source.ranks[0]
    num_ranks = len(source.ranks)
    word = _find(source, "word_embeddings.weight")
    hidden = word.shape[-1]
    layers = {int(m[1]) for name in names if (m := _LAYER.fullmatch(name))}
    if not layers:
        raise ConversionError(f"{source.path} holds no transformer.layers.0; it has no layer")
    if missing := set(range(len(layers))) - layers:
        raise ConversionError(
            f"{source.path} lacks the tensors of transformer.layers.{min(missing)}, while those of "
            f"layer {max(layers)} are there; copy every file of the checkpoint"
        )
    _check_ranks(source, hidden)
    template = TEMPLATES[FAMILY_OF[source.layout]]
    up = _find(source, "layers.0.mlp.dense_h_to_4h.weight")
    position = [t for n, t in names.items() if n.endswith("transformer.position_embeddings.weight")]
    sandwich = any(name.endswith("third_layernorm.weight") for name in names)
    check_switches(source)
    shape: _Shape = {
        "vocab_size": word.shape[0] * num_ranks,
        "hidden_size": hidden,
        "num_layers": len(layers),
        "ffn_size": up.shape[0] * num_ranks // (2 if template.is_gated else 1),
        "block": "sandwich" if sandwich else template.block,
        "dropout": 0.1,  # all published models were trained with it (GLM `arguments.py`)
        "norm_eps": _number(source, "layernorm_epsilon", template.norm_eps),
    }
    if position:
        _check_table(source, position[0])
        shape["max_position"] = position[0].shape[0] - 1  # the table has a row for 0 too
    else:
        shape["max_position"] = int(_number(source, "max_sequence_length", _ROPE_POSITIONS))
    if source.layout in ("sat-glm-130b", "largescale", "chatglm-hf"):
        two = flag(source, "position_encoding_2d", template.positions == "rope_2d")
        shape["positions"] = "rope_2d" if two else "rope_1d"
    if activation is not None:
        shape["activation"] = activation
    _check_config(source, shape)
    heads = num_heads or _heads(source, dataclasses.replace(template, num_heads=1, **shape))
    _check_heads(source, hidden, heads, num_ranks)
    return dataclasses.replace(template, num_heads=heads, **shape)


def preset_of(cfg: ModelConfig) -> str:
    """Name the published preset that has this configuration's shapes, or return ''."""
    for name in PRESETS:
        known = preset(name).model
        if _shapes(known) == _shapes(cfg) and known.num_heads == cfg.num_heads:
            return name
    return ""


def _shapes(cfg: ModelConfig) -> tuple[object, ...]:
    learned = cfg.max_position if cfg.positions == "learned_2d" else 0
    return (cfg.vocab_size, cfg.hidden_size, cfg.num_layers, cfg.ffn_size, cfg.block, cfg.is_gated,
            cfg.positions, learned, cfg.tie_head)  # fmt: skip


def _number(source: Source, name: str, default: float) -> float:
    """Take a number from config.json, or the default where it says none."""
    said = source.config.get(name, default)
    if isinstance(said, bool) or not isinstance(said, int | float):
        raise ConversionError(f"{source.config_path} says {name}={said!r}, which is no number; "
                              "correct it or remove it")  # fmt: skip
    return said


def _find(source: Source, ending: str) -> StoredTensor:
    for name, stored in source.ranks[0].items():
        if name == ending or name.endswith(f".{ending}"):
            if len(stored.shape) != 2:
                raise ConversionError(
                    f"{stored.path} holds {stored.name} with {len(stored.shape)} dimensions and "
                    "not 2; it is not the weight of a GLM"
                )
            return stored
    raise ConversionError(
        f"{source.path} lacks the tensor {ending}, which every {source.layout} checkpoint has; "
        "copy the missing file, or name the layout with --layout"
    )


def _check_ranks(source: Source, hidden: int) -> None:
    """Compare the number of ranks that each matrix was split over with the files that are there."""
    qkv = _find(source, "layers.0.attention.query_key_value.weight")
    needed, rest = divmod(3 * hidden, qkv.shape[0] or 1)
    if rest or not qkv.shape[0]:
        raise ConversionError(
            f"{qkv.path} holds {qkv.name} with {qkv.shape[0]} rows, which does not divide three "
            f"times the hidden size {hidden}; the file is damaged or of another model"
        )
    found = len(source.ranks)
    if needed != found:
        what = f"the rank {found:02d} is missing" if needed > found else "there are too many files"
        raise ConversionError(
            f"{source.path} holds {found} tensor-parallel rank{'s' * (found != 1)} and "
            f"{qkv.name} in {qkv.path.name} was split over {needed}: {what}; copy the files of "
            "every rank and no others"
        )


_SIZES: Final = {
    "vocab_size": ("vocab_size",), "hidden_size": ("hidden_size",),
    "num_layers": ("num_layers", "num_hidden_layers"),
    "ffn_size": ("inner_hidden_size", "intermediate_size", "ffn_hidden_size"),
}  # fmt: skip
"""Our sizes and what configurations call them."""


def _check_config(source: Source, shape: _Shape) -> None:
    tensor = _find(source, "word_embeddings.weight")
    up = _find(source, "layers.0.mlp.dense_h_to_4h.weight")
    told = {"num_layers": "layers", "ffn_size": f"the tensor {up.name}"}
    for size, names in _SIZES.items():
        for name in names:
            said = source.config.get(name)
            if said is not None and said != shape[size]:
                what = told.get(size, f"the tensor {tensor.name}")
                raise ConversionError(
                    f"{source.config_path} says {name}={said!r}, and {what} of {source.path} "
                    f"make{'s' * (size != 'num_layers')} it {shape[size]}; correct the file that "
                    "does not belong to the weights"
                )


def _check_table(source: Source, table: StoredTensor) -> None:
    """Compare the table of positions with config.json; GLM's own has one row more than it says."""
    said = source.config.get("max_sequence_length")
    if said is not None and said not in (table.shape[0], table.shape[0] - 1):
        raise ConversionError(
            f"{source.config_path} says max_sequence_length={said!r}, and {table.path} holds "
            f"{table.name} with {table.shape[0]} rows; correct the file that does not belong to "
            "the weights"
        )


def _heads(source: Source, cfg: ModelConfig) -> int:
    """Take the number of heads from config.json or from the preset of these shapes."""
    said = source.config.get("num_attention_heads", source.config.get("num_heads"))
    if isinstance(said, int):
        return said
    fitting = {
        preset(n).model.num_heads for n in PRESETS if _shapes(preset(n).model) == _shapes(cfg)
    }
    if len(fitting) == 1:
        return fitting.pop()
    raise ConversionError(
        f"{source.path} does not say how many attention heads a layer has, and no preset has its "
        f"shapes ({cfg.num_layers} layers of {cfg.hidden_size}); give it with --num-heads"
    )


def _check_heads(source: Source, hidden: int, heads: int, num_ranks: int) -> None:
    if heads < 1 or hidden % heads or heads % num_ranks:
        ranks = f" and be a multiple of its {num_ranks} ranks" if num_ranks > 1 else ""
        raise ConversionError(
            f"num_heads={heads} cannot be that of {source.path}: it must divide the hidden size "
            f"{hidden}{ranks}; give the right number with --num-heads"
        )
