"""Where the released code computes something else than the run whose weights it is given.

The weights of an export in a released layout are the run's bit for bit. The results still differ
where the released code has a constant of its own: the form of GeLU, the epsilon of its norms, the
precision of RoPE's angles. Each difference is listed in the export's notes with the largest
difference of the logits, measured by a model of ours that computes as the released code does.

Sources: `modeling_glm.py` of GLM on Hugging Face (`gelu_impl` is erf, `layernorm_epsilon` is not
read from config.json); SwissArmyTransformer (`gelu` is tanh; `rotary_embeddings.py` casts
frequencies with the model).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

import torch

from blankfill.config.model import ModelConfig
from blankfill.generate import LanguageModel
from blankfill.interop.export_parity import draw_rows, reference_logits
from blankfill.interop.keymap import TEMPLATES, Family
from blankfill.model import GLM

__all__ = ["Released", "as_released", "compare_released"]

NUM_PROMPTS = 20
_CODE: Final = {
    "hf_glm": "the code of GLM on Hugging Face",
    "sat_glm": "SwissArmyTransformer's GLM", "glm130b": "the code of GLM-130B",
    "chatglm_sat": "SwissArmyTransformer's ChatGLM",
}  # fmt: skip
_GELU: Final = {"gelu": "the erf form of GeLU", "gelu_tanh": "the tanh form of GeLU"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Released:
    """What the released code makes of the weights."""

    notes: tuple[str, ...]
    """Where it computes something else than the run; empty where it does not."""
    max_logit_difference: float
    """How far its logits are from the run's, at most, on prompts of a fixed seed."""
    num_prompts: int
    """Their number; 0 where there is nothing to compare."""


def as_released(family: Family, shape: ModelConfig) -> ModelConfig:
    """Give the architecture that the released code computes with a model's weights."""
    template = TEMPLATES[family]
    return dataclasses.replace(
        shape, activation=template.activation, rope_angles="float32",
        norm_eps=template.norm_eps if family == "hf_glm" else shape.norm_eps,
    )  # fmt: skip


def compare_released(family: Family, lm: LanguageModel) -> Released:
    """Say and measure where the released code differs from a run.

    Args:
        family: the layout that was written.
        lm: the run's model.
    """
    model = lm.model
    notes = _notes(family, model.cfg)
    if not notes:
        return Released(notes=(), max_logit_difference=0.0, num_prompts=0)
    with torch.device("meta"):
        theirs = GLM(as_released(family, model.cfg))
    theirs.load_state_dict(model.state_dict(), assign=True)  # the same tensors, not copies
    theirs.eval()
    released = dataclasses.replace(lm, model=theirs)
    rows = draw_rows(lm.ids, lm.tokenizer.vocab_size, model.cfg.max_position, count=NUM_PROMPTS)
    differences = [reference_logits(released, row) - reference_logits(lm, row) for row in rows]
    return Released(
        notes=notes, num_prompts=len(rows),
        max_logit_difference=max(float(one.abs().max()) for one in differences),
    )  # fmt: skip


def _notes(family: Family, shape: ModelConfig) -> tuple[str, ...]:
    theirs, code = as_released(family, shape), _CODE[family]
    notes: list[str] = []
    if theirs.activation != shape.activation:
        notes.append(f"{code} computes {_GELU[theirs.activation]}, this run "
                     f"{_GELU[shape.activation]}")  # fmt: skip
    if theirs.norm_eps != shape.norm_eps:
        notes.append(f"{code} takes {theirs.norm_eps:g} for the epsilon of every LayerNorm, this "
                     f"run {shape.norm_eps:g}")  # fmt: skip
    if shape.positions.startswith("rope") and theirs.rope_angles != shape.rope_angles:
        notes.append(f"{code} rounds the frequencies of RoPE to float16 only where the whole model "
                     "is float16, this run always does")  # fmt: skip
    return tuple(notes)
