"""What the names of a checkpoint's tensors say: wrappers around the model, its layout, or another
architecture altogether.

Training code leaves the names of its wrappers in those of the tensors: `module.` (DDP),
`_orig_mod.` (torch.compile), `_fsdp_wrapped_module.` at every level, `model.` (Lightning and
others). They are left out before anything else is asked.

A layout is known by several signs, so that one missing tensor does not make it another layout: the
signs that are there say which it is nearest to, and the others are named as missing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final, Literal

from blankfill.errors import ConversionError
from blankfill.interop.keymap import Family
from blankfill.interop.shards import StoredTensor

__all__ = [
    "FAMILY_OF",
    "LAYOUTS",
    "SUPPORTED",
    "LayoutName",
    "layout_of",
    "refuse_others",
    "unwrap",
]

LayoutName = Literal[
    "glm-megatron", "glm-hf", "sat-glm", "sat-glm-130b", "sat-chatglm", "largescale", "chatglm-hf",
    "blankfill",
]  # fmt: skip
FAMILY_OF: Final[dict[LayoutName, Family]] = {
    "glm-megatron": "glm", "glm-hf": "hf_glm", "sat-glm": "sat_glm", "sat-glm-130b": "glm130b",
    "sat-chatglm": "chatglm_sat", "largescale": "glm130b", "chatglm-hf": "hf_chatglm",
}  # fmt: skip
"""Whose names each foreign layout has."""
LAYOUTS: Final[tuple[LayoutName, ...]] = (*FAMILY_OF, "blankfill")
"""Every layout."""
SUPPORTED: Final = "GLM (110M to 10B), GLM-130B and ChatGLM-6B (the first ChatGLM)"
"""What can be imported, in words."""

_WRAPPERS = frozenset(
    ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
)
"""Parts of a name that wrappers add at any level; no GLM has one of these."""
_LAYERS = "transformer.layers."
_POSITION = "transformer.position_embeddings.weight"
_SIGNS: Final[dict[LayoutName, tuple[str, ...]]] = {
    "glm-megatron": ("word_embeddings.weight", _POSITION),
    "glm-hf": ("glm.word_embeddings.weight", f"glm.{_POSITION}"),
    "sat-glm": ("transformer.word_embeddings.weight", _POSITION),
    "sat-glm-130b": ("transformer.word_embeddings.weight",),
    "sat-chatglm": ("transformer.word_embeddings.weight", "mixins.chatglm-final.lm_head.weight"),
    "chatglm-hf": ("transformer.word_embeddings.weight", "lm_head.weight"),
}  # fmt: skip
"""Tensors that tell each layout."""
_HINTS: Final[dict[LayoutName, str]] = {
    "sat-glm": r"mixins\.block_position_embedding\.",
    "sat-glm-130b": r"mixins\.rotary-embedding\.",
    "sat-chatglm": r"mixins\.chatglm-",
    "chatglm-hf": r"transformer\.layers\.\d+\.attention\.rotary_emb\.",
}
"""Names that one layout alone has, for those of which a sign is missing."""
_OTHERS: Final = (
    (r"lora_[AB]\b|lora_embedding", "an adapter (LoRA), to be merged into its model first"),
    (r"prefix_encoder\.", "tuned by a prefix (P-Tuning)"),
    (r"encoder\.layers\.\d+\.self_attention\.|output_layer\.weight$|dense_h_to_4h_gate",
     "ChatGLM2, ChatGLM3 or GLM-4"),
    (r"encoder\.layer\.\d+\.attention\.self\.", "BERT or a model like it"),
    (r"\bh\.\d+\.attn\.c_attn\.", "GPT-2"),
    (r"\bh\.\d+\.(self_attention|attn|mlp)\.", "BLOOM, Falcon or a model like them"),
    (r"gpt_neox\.", "GPT-NeoX"),
    (r"(en|de)coder\.block\.\d+\.layer\.", "T5"),
    (r"(en|de)coder\.layers\.\d+\.(self_attn|fc1)", "BART, OPT or a model like them"),
    (r"\blayers\.\d+\.(self_attn|mlp)\.(q|k|v|qkv|gate|up|gate_up)_proj|\bembed_tokens\.",
     "Llama or a model like it (Qwen, Mistral, GLM-4 as transformers has it)"),
    (r"language_model\.(embedding|encoder|transformer)\.", "Megatron-LM's GPT or BERT"),
    (r"\bdecoder\.layers\.\d+\.(self_attention|mlp)\.", "Megatron-Core's GPT"),
)  # fmt: skip
"""Names that tell other architectures."""

_Names = Mapping[str, StoredTensor]


def unwrap(names: Collection[str]) -> tuple[dict[str, str], str]:
    """Leave wrappers out of the names of tensors.

    Args:
        names: as the files have them.

    Returns:
        What each is called inside the wrappers, and what was left out, in words, or ''.
    """
    inner = {name: ".".join(p for p in name.split(".") if p not in _WRAPPERS) for name in names}
    dropped = {part for name in names for part in name.split(".")} & _WRAPPERS
    before = Counter(
        re.sub(r"(^|\.)glm\.$", r"\1", name[: name.rindex(_LAYERS)])
        for name in inner.values()
        if _LAYERS in name
    )
    prefix = before.most_common(1)[0][0] if before else ""
    if prefix:
        inner = {name: now.removeprefix(prefix) for name, now in inner.items()}
    parts = [*(f"{part}." for part in sorted(dropped)), *([prefix] if prefix else [])]
    return inner, " and ".join(parts)


def refuse_others(path: object, names: Collection[str]) -> None:
    """Refuse what is known to be another architecture.

    Raises:
        ConversionError: a name is one of another architecture's.
    """
    for pattern, what in _OTHERS:
        for name in names:
            if re.search(pattern, name):
                raise ConversionError(
                    f"{path} holds {name}: it is {what}, which blankfill does not import; it "
                    f"imports {SUPPORTED}"
                )


def layout_of(path: object, names: _Names, *, is_ranked: bool) -> LayoutName:
    """Tell the layout by the names of the tensors, and by the feed-forward layer's shapes.

    Args:
        path: of the checkpoint, for messages.
        names: the tensors of a rank, by their names without wrappers.
        is_ranked: whether they lie in files of tensor-parallel ranks.

    Raises:
        ConversionError: it is none that blankfill knows, or lacks what tells which.
    """
    if not any(_LAYERS in name for name in names) and not any(
        sign in names for signs in _SIGNS.values() for sign in signs
    ):
        some = ", ".join(list(names)[:3]) or "no tensor"
        raise ConversionError(
            f"{path} is no GLM that blankfill knows: it holds {some}; it imports {SUPPORTED}; if "
            f"it is one, name its layout with --layout ({', '.join(LAYOUTS)})"
        )
    found = _hugging_face_prefix(names) if not is_ranked else dict(names)
    missing: dict[LayoutName, list[str]] = {
        layout: [sign for sign in signs if sign not in found]
        for layout, signs in _SIGNS.items()
        if _may_be(layout, found, is_ranked=is_ranked)
    }
    if not missing:
        raise ConversionError(
            f"{path} has the names of GLM and a feed-forward layer with a gate, which no released "
            f"GLM of these names has; blankfill imports {SUPPORTED}"
        )
    whole: list[LayoutName] = [layout for layout, signs in missing.items() if not signs]
    if whole:
        return sorted(whole, key=lambda layout: len(_SIGNS[layout]))[-1]
    hinted: list[LayoutName] = [
        layout for layout in missing
        if layout in _HINTS and any(re.match(_HINTS[layout], name) for name in found)
    ]  # fmt: skip
    fewest = min(map(len, missing.values()))
    nearest = hinted or [layout for layout, signs in missing.items() if len(signs) == fewest]
    said = " or ".join(f"{' and '.join(missing[layout])} (as {layout})" for layout in nearest)
    raise ConversionError(
        f"{path} lacks the tensor {said}; a file or shard is missing: copy every file of the "
        "checkpoint"
    )


def _hugging_face_prefix(names: _Names) -> dict[str, StoredTensor]:
    """Give GLM on Hugging Face its prefix where it was saved without the head."""
    if any(name.startswith("glm.") for name in names) or not (
        "word_embeddings.weight" in names
        or (_POSITION in names and "transformer.word_embeddings.weight" not in names)
    ):
        return dict(names)
    return {f"glm.{name}": stored for name, stored in names.items()}


def _may_be(layout: LayoutName, names: _Names, *, is_ranked: bool) -> bool:
    """Whether files and shapes allow a layout, whatever names are missing."""
    if any(name.startswith("glm.") for name in names):
        if layout != "glm-hf":
            return False
    elif layout in ("glm-hf", "glm-megatron") and (layout == "glm-megatron") != is_ranked:
        return False
    gated = _is_gated(names)
    return gated is None or gated == (layout == "sat-glm-130b")


def _is_gated(names: _Names) -> bool | None:
    """Whether the feed-forward layer has two halves; None where no layer tells.

    GLM-130B's matrix up has twice the rows that its matrix down has columns; int4 packs two
    columns into a byte.
    """
    for name, up in names.items():
        down = names.get(name.replace("dense_h_to_4h", "dense_4h_to_h"))
        if not name.endswith("mlp.dense_h_to_4h.weight") or down is None:
            continue
        if len(up.shape) == len(down.shape) == 2 and down.shape[1]:
            is_packed = up.shape[1] * 2 == down.shape[0]
            return up.shape[0] == 2 * down.shape[1] * (2 if is_packed else 1)
    return None
