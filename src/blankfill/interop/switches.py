"""Fields of a foreign configuration that change what its code computes, beside the sizes.

Each is either supported, or must have the values with which the released code computes what a model
of ours does; any other value is refused by name. Handled elsewhere: `position_encoding_2d`,
`layernorm_epsilon`, `num_attention_heads`, `max_sequence_length` (`infer.py`); scales of quantised
weights (`merge.py`). Without effect on logits, and so not checked: rates of dropout, the
objective's and the optimizer's settings, `use_cache`, `torch_dtype`, `parallel_output`,
`checkpoint_*`, and `attention_scale`, which is divided and multiplied by.

Sources: `configuration_glm.py` and its later versions, `configuration_chatglm.py` (Hugging Face);
`arguments.py` and `model/official/` of SwissArmyTransformer; `arguments.py` of GLM.
"""

from __future__ import annotations

from typing import Any, Final

from blankfill.errors import ConversionError
from blankfill.interop.layouts import Source

__all__ = ["check_switches", "flag"]

_Values = tuple[object, ...]
_GLM: Final[dict[str, _Values]] = {
    "relative_encoding": (False,), "spell_length": (0,), "num_experts": (1,),
    "rotary_type": ("none",), "use_rmsnorm": (False,), "use_atorch_rmsnorm": (False,),
    "use_swiglu": (False,), "use_bias": (True,), "attention_grouping": (), "mlp_version": ("v1",),
    "unidirectional": (False,), "norm_head": (False,), "norm_softmax": (False,),
    "encoder_decoder": (False,), "transformer_xl": (False,),
}  # fmt: skip
_OBJECTIVE: Final[dict[str, _Values]] = {
    "masked_lm": (False,), "sentinel_token": (False,), "no_block_position": (False,),
}  # fmt: skip
"""What decides the positions or the mask that GLM was trained with."""
_SAT: Final[dict[str, _Values]] = {
    "num_multi_query_heads": (0,), "cross_num_multi_query_heads": (0,), "is_gated_mlp": (False,),
    "is_rotary_emb": (False,), "is_decoder": (False,), "num_experts": (1, 0), "use_bias": (True,),
    "use_final_layernorm": (True,),
}  # fmt: skip
_SAME: Final[dict[str, dict[str, _Values]]] = {
    "glm-megatron": _GLM | _OBJECTIVE,
    "glm-hf": _GLM | _OBJECTIVE,
    "sat-glm": _SAT | _OBJECTIVE,
    # Its own layer is DeepNorm whatever the order says; sandwich would add norms.
    "sat-glm-130b": _SAT | {"no_glu": (False,), "layernorm_order": ("post", "pre")},
    "largescale": {"no_glu": (False,)},
    "sat-chatglm": _SAT | {"layernorm_order": ("post",), "position_encoding_2d": (True,)},
    "chatglm-hf": {"pre_seq_len": (0,), "tie_word_embeddings": (False,)},
}
"""For each layout, fields and the values that a model of ours has; None is a missing field."""


def check_switches(source: Source) -> None:
    """Compare a checkpoint's configuration with what a model of ours computes.

    Raises:
        ConversionError: a field asks for other mathematics, or contradicts the tensors.
    """
    config = source.config
    heads = config.get("num_attention_heads")
    same = dict(_SAME.get(source.layout, {}))
    if source.layout in ("glm-hf", "glm-megatron"):
        same["num_key_value_heads"] = (0, heads)
    final = next(
        (s for n, s in source.ranks[0].items() if n.endswith("final_layernorm.weight")), None
    )
    if source.layout.startswith("sat-") and isinstance(heads, int) and final is not None:
        same["hidden_size_per_attention_head"] = (final.shape[0] / max(1, heads),)
    same |= _by_tensors(source)
    for name, values in same.items():
        said = config.get(name)
        if said is None or said in values:
            continue
        wanted = " or ".join(map(repr, values)) or "null"
        raise ConversionError(
            f"{source.config_path} says {name}={said!r}, and blankfill computes what "
            f"{source.layout} does with {name}={wanted}; this model cannot be imported; or "
            "remove the field if it does not belong to the weights"
        )


def _by_tensors(source: Source) -> dict[str, _Values]:
    """List fields whose value the tensors show."""
    rank = source.ranks[0]
    same: dict[str, _Values] = {}
    if source.layout == "sat-glm":
        sandwich = any(name.endswith("third_layernorm.weight") for name in rank)
        same["layernorm_order"] = ("sandwich" if sandwich else "pre",)
    if source.layout in ("glm-hf", "glm-megatron"):
        same["block_position_encoding"] = (
            any(name.endswith(".block_position_embeddings.weight") for name in rank),
        )
    if source.layout == "chatglm-hf":
        scaled = any(name.endswith("_scale") for name in rank)
        same["quantization_bit"] = (4, 8) if scaled else (0,)
    return same


def flag(source: Source, name: str, default: bool) -> bool:
    """Take a yes or no from config.json, or the default where it says none.

    Raises:
        ConversionError: it says something else.
    """
    said: Any = source.config.get(name)
    if said is None:
        return default
    if said in (True, False):
        return bool(said)
    raise ConversionError(
        f"{source.config_path} says {name}={said!r}, which is neither true nor false; "
        "correct it or remove it"
    )
