"""Whether a vocabulary belongs to a model: its ids compared with the rows of the embedding."""

from __future__ import annotations

from typing import Final

from blankfill.errors import ConversionError
from blankfill.interop.plan import NUM_IMAGE_ROWS, ImportPlan
from blankfill.text.tokenizer import Tokenizer
from blankfill.text.vocabularies import Vocabulary

__all__ = ["check_vocabulary", "vocabulary_notes"]

ROWS_OF: Final[dict[str, tuple[int, ...]]] = {
    "wordpiece": (30_592,), "roberta": (50_304,), "gpt2": (50_304,), "cog-pretrain": (50_048,),
    "icetk": (150_528, 130_528),
}  # fmt: skip
"""Rows that the published models have with each vocabulary, padding included (their configurations;
ChatGLM-6B's second release left out 20,000 ids)."""
KIND_OF: Final[dict[str, str]] = {
    "glm-base": "wordpiece", "glm-large": "wordpiece", "glm-410m": "wordpiece",
    "glm-515m": "wordpiece", "glm-roberta": "roberta", "glm-2b": "gpt2", "glm-10b": "gpt2",
    "glm-large-zh": "cog-pretrain", "glm-10b-zh": "cog-pretrain", "glm-130b": "icetk",
    "chatglm-6b": "icetk", "chatglm-6b-v0": "icetk",
}  # fmt: skip
"""Vocabulary of each published model."""
MULTIPLE = 128
"""GLM's training code pads to a multiple of this for each tensor-parallel rank
(`configure_data.py`)."""


def check_vocabulary(vocabulary: Vocabulary | Tokenizer, plan: ImportPlan) -> None:
    """Check that the model has a row for every id of a vocabulary.

    Raises:
        ConversionError: it has more ids than the model's embedding has rows.
    """
    rows = plan.cfg.vocab_size
    if vocabulary.vocab_size > rows:
        raise ConversionError(
            f"the vocabulary has {vocabulary.vocab_size} ids and the embedding of "
            f"{plan.source.path} {rows} rows; name the model's own with --tokenizer"
        )


def vocabulary_notes(vocabulary: Vocabulary | Tokenizer, plan: ImportPlan) -> list[str]:
    """List the reasons to doubt that a vocabulary is the model's."""
    kind = getattr(vocabulary, "kind", "")
    rows, ids = plan.cfg.vocab_size, vocabulary.vocab_size
    notes: list[str] = []
    expected = KIND_OF.get(plan.preset, kind)
    if kind and kind != expected:
        notes.append(
            "this may be another model's vocabulary: the weights have the shapes of "
            f"{plan.preset}, which has that of {expected}, and this one is that of {kind}"
        )
    padding = MULTIPLE * len(plan.source.ranks)
    if not notes and rows not in ROWS_OF.get(kind, ()) and rows - ids >= padding:
        known = " or ".join(f"{n:,}" for n in ROWS_OF.get(kind, ()))
        notes.append(
            f"this may be another model's vocabulary: the embedding has {rows:,} rows and the "
            f"vocabulary {ids:,} ids, which leaves more rows without a token than padding does"
            + (f" (published models have {known} rows with it)" if known else "")
            + "; name the model's own with --tokenizer"
        )
    return notes + _special_notes(vocabulary, plan)


def _special_notes(vocabulary: Vocabulary | Tokenizer, plan: ImportPlan) -> list[str]:
    """Compare the special ids of ChatGLM's configuration with the vocabulary's."""
    if plan.source.layout != "chatglm-hf":
        return []
    dropped = NUM_IMAGE_ROWS if plan.taken[0].first_row else 0
    own = {"mask_token_id": vocabulary.ids.mask, "gmask_token_id": vocabulary.ids.gmask,
           "bos_token_id": vocabulary.ids.sop}  # fmt: skip
    return [
        f"{plan.source.config_path} says {name}={said}, and the vocabulary has {wanted + dropped} "
        "for it; the vocabulary's is used"
        for name, wanted in own.items()
        if isinstance(said := plan.source.config.get(name), int) and said != wanted + dropped
    ]
