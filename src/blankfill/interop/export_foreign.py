"""Weights back in the layouts that the released GLM code reads: Hugging Face's names, and SAT's.

    glm   model.safetensors with the names of GLM on Hugging Face (`modeling_glm.py`), config.json
    sat   latest, 1/mp_rank_00_model_states.pt, model_config.json, as SwissArmyTransformer has them

Only weights and sizes: the code and the vocabulary are theirs. A model whose architecture or
position scheme the released code does not compute is refused with what it would need.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from blankfill.config.model import ModelConfig
from blankfill.config.run import RunConfig, to_dict
from blankfill.disk.json_files import encode
from blankfill.errors import ConversionError
from blankfill.generate import LanguageModel
from blankfill.interop.export_hf import EXPORT, VERSION, write_shards
from blankfill.interop.export_parity import Row, fill_rows, reference_logits
from blankfill.interop.export_released import Released
from blankfill.interop.keymap import TEMPLATES, Family, from_ours, tensors, to_ours
from blankfill.model import GLM
from blankfill.objective.batch import Int32
from blankfill.runs.tensors import load_tensors

__all__ = ["ReloadedForeign", "family_of", "write_glm", "write_notes", "write_sat"]

SAT_CLASS = {"sat_glm": "GLMModel", "glm130b": "GLM130B", "chatglm_sat": "ChatGLMModel"}
"""Model classes of SwissArmyTransformer and of GLM-130B."""


def family_of(to: str, cfg: RunConfig) -> Family:
    """Find the released family that computes what this model computes.

    Args:
        to: glm or sat.
        cfg: the run.

    Raises:
        ConversionError: there is none; the message says what the nearest one needs.
    """
    families: tuple[Family, ...] = ("hf_glm",)
    if to == "sat":
        families = ("sat_glm", "glm130b", "chatglm_sat")
    reasons = {family: _reasons(family, cfg) for family in families}
    nearest = min(families, key=lambda family: len(reasons[family]))
    if not reasons[nearest]:
        return nearest
    raise ConversionError(
        f"--to {to} cannot hold this model: {nearest} has {', '.join(reasons[nearest])}; "
        "--to hf holds every model of blankfill"
    )


def write_glm(folder: Path, lm: LanguageModel, *, max_shard_bytes: int) -> None:
    """Write weights with the names of GLM on Hugging Face, and their sizes."""
    family, shape = family_of("glm", lm.cfg), lm.cfg.model
    weights = from_ours(family, lm.model.state_dict(), shape)
    write_shards(folder, weights, max_bytes=max_shard_bytes)
    _write(
        folder / "config.json",
        {
            "model_type": "glm", "architectures": ["GLMForConditionalGeneration"],
            **_sizes(shape),
            "max_sequence_length": shape.max_position,
            "embedding_dropout_prob": shape.embedding_dropout_rate,
            "attention_dropout_prob": shape.attention_dropout_rate,
            "output_dropout_prob": shape.dropout,
            "attention_scale": 1.0, "block_position_encoding": True, "output_predict": True,
            "parallel_output": True, "relative_encoding": False, "checkpoint_activations": False,
            "checkpoint_num_layers": 1, "spell_length": None, "dtype": "float32",
        },
    )  # fmt: skip


def write_sat(folder: Path, lm: LanguageModel) -> None:
    """Write weights as one rank of SwissArmyTransformer, and their sizes."""
    family, shape = family_of("sat", lm.cfg), lm.cfg.model
    weights = from_ours(family, lm.model.state_dict(), shape)
    (folder / "latest").write_text("1\n", encoding="utf-8")
    (folder / "1").mkdir()
    module = {name: tensor.contiguous() for name, tensor in weights.items()}
    with (folder / "1" / "mp_rank_00_model_states.pt").open("wb") as file:
        torch.save({"module": module}, file)
    extra_row = 1 if shape.positions == "learned_2d" else 0  # its tables have a row for 0 too
    _write(
        folder / "model_config.json",
        {
            "model_class": SAT_CLASS[family], "model_parallel_size": 1, **_sizes(shape),
            "inner_hidden_size": shape.ffn_size, "layernorm_epsilon": shape.norm_eps,
            "max_sequence_length": shape.max_position + extra_row,
            "hidden_dropout": shape.dropout, "attention_dropout": shape.attention_dropout_rate,
            "layernorm_order": {"pre_ln": "pre", "sandwich": "sandwich"}.get(shape.block, "post"),
            "position_encoding_2d": shape.positions == "rope_2d",
        },
    )  # fmt: skip


def write_notes(
    folder: Path, lm: LanguageModel, family: Family, released: Released, *, has_vocabulary: bool
) -> None:
    """Write README.md and blankfill_export.json: what this is, and where it is not the run.

    Args:
        folder: an export in a released layout.
        lm: the run's model.
        family: the layout.
        released: what the released code makes of it.
        has_vocabulary: whether the vocabulary's files are in the folder.
    """
    told = [f"- {note}." for note in released.notes]
    if told:
        told.append(
            f"- So its logits are up to {released.max_logit_difference:.2g} from the run's "
            f"({released.num_prompts} prompts of a fixed seed)."
        )
    vocabulary = "The vocabulary is in this folder." if has_vocabulary else (
        "The vocabulary is not in this folder."
    )  # fmt: skip
    text = f"# Weights of a GLM, exported by blankfill\n\nLayout: {family}. {vocabulary}\n"
    if told:
        text += "\nWhere the released code computes something else than the run:\n\n"
    text += "".join(f"{line}\n" for line in told)
    (folder / "README.md").write_text(text, encoding="utf-8")
    _write(
        folder / "blankfill_export.json",
        {
            "format": EXPORT.value, "version": VERSION, "step": lm.step, "layout": family,
            "config": to_dict(lm.cfg), "released": dataclasses.asdict(released),
        },
    )  # fmt: skip


class ReloadedForeign:
    """Foreign weights on disk, translated back and run by a model of ours."""

    def __init__(self, folder: Path, lm: LanguageModel, family: Family) -> None:
        self.through = f"the names of {family}, translated back"
        if family == "hf_glm":
            foreign: dict[str, torch.Tensor] = {}
            for path in sorted(folder.glob("model*.safetensors")):
                foreign |= load_tensors(path)
        else:
            path = folder / "1" / "mp_rank_00_model_states.pt"
            foreign = torch.load(path, weights_only=True, mmap=True)["module"]
        with torch.device("meta"):
            model = GLM(lm.cfg.model)
        model.to_empty(device="cpu").eval()
        model.load_state_dict(to_ours(family, foreign, lm.cfg.model))
        self._lm = dataclasses.replace(lm, model=model)

    def logits(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        """Score the inputs of rows: `[T, V]` each."""
        return [reference_logits(self._lm, row) for row in rows]

    def greedy(self, prompts: Sequence[Int32], max_new_tokens: int) -> list[list[int]]:
        """Fill prompts: what stands after the first `[S]` of each row."""
        return fill_rows(self._lm, prompts, max_new_tokens)


def _reasons(family: Family, cfg: RunConfig) -> list[str]:
    """Say what the family has and the model has not."""
    shape, template = cfg.model, TEMPLATES[family]
    blocks = ("pre_ln", "sandwich") if family == "sat_glm" else (template.block,)
    reasons: list[str] = []
    if shape.block not in blocks:
        reasons.append(f"block={' or '.join(blocks)} (this model: {shape.block})")
    rotary = template.positions.startswith("rope")
    # SwissArmyTransformer's ChatGLM has no switch: it always rotates by both positions.
    switched = rotary and family != "chatglm_sat"
    positions = ("rope_1d", "rope_2d") if switched else (template.positions,)
    if shape.positions not in positions:
        reasons.append(f"positions={' or '.join(positions)} (this model: {shape.positions})")
    # GLM's own GeLU is the tanh form, its port to Hugging Face computes the erf form: either is
    # written, and export_released.py says how far the result is from the run.
    gelu = ("gelu", "gelu_tanh")
    activations = gelu if template.activation in gelu else (template.activation,)
    if shape.activation not in activations:
        reasons.append(f"activation={' or '.join(activations)} (this model: {shape.activation})")
    if shape.tie_head != template.tie_head:
        reasons.append(f"tie_head={template.tie_head} (this model: {shape.tie_head})")
    alpha = dataclasses.replace(template, num_layers=shape.num_layers).deepnorm_alpha
    if shape.block == template.block == "deepnorm" and not math.isclose(
        shape.deepnorm_alpha, alpha, rel_tol=1e-6
    ):
        reasons.append(f"a residual scale of {alpha:.4g} (this model: {shape.deepnorm_alpha:.4g})")
    if shape.qk_norm:
        reasons.append("no qk_norm (this model has it)")
    scheme = "linear" if shape.positions == "rope_1d" else "corrupted"
    if cfg.objective.positions != scheme:
        reasons.append(f"the position scheme {scheme} (this model: {cfg.objective.positions})")
    if not reasons:
        tensors(family, shape)
    return reasons


def _sizes(shape: ModelConfig) -> dict[str, int]:
    return {
        "num_layers": shape.num_layers, "hidden_size": shape.hidden_size,
        "num_attention_heads": shape.num_heads, "vocab_size": shape.vocab_size,
    }  # fmt: skip


def _write(path: Path, value: Any) -> None:
    path.write_bytes(encode(value))
