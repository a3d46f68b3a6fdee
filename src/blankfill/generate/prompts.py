"""Part A of a text that is to be filled, if a model can fill it."""

from __future__ import annotations

import numpy as np

from blankfill.config.run import RunConfig
from blankfill.errors import RequestError
from blankfill.generate.trim import around_blanks
from blankfill.objective.batch import Int32
from blankfill.objective.blank import Prompt, build_prompt
from blankfill.objective.special import SpecialIds
from blankfill.text.user_text import no_blank

__all__ = ["checked_prompt", "kept_stretch"]


def checked_prompt(tokens: Int32, ids: SpecialIds, cfg: RunConfig) -> Prompt:
    """Build Part A of a text, if a model can fill it.

    Args:
        tokens: `[n]` the text, with mask ids where its blanks are.
        ids: the special tokens of the model's tokenizer.
        cfg: what it was trained with.

    Raises:
        RequestError: it has no blank, or is longer than the model's positions reach.
        DataError: it has more blanks than the tokenizer has sentinels.
    """
    tokens = np.asarray(tokens, dtype=np.int32)
    prompt = build_prompt(tokens, ids, sentinel_position=cfg.sentinel_position)
    if not len(prompt.blanks):
        raise no_blank()
    longest = cfg.model.max_position
    if len(prompt.tokens) > longest:
        raise RequestError(
            f"the text has {len(prompt.tokens):,} tokens and this model reads "
            f"{longest:,}; shorten it around the blank, or fill, score or rank it with --trim"
        )
    return prompt


def kept_stretch(tokens: Int32, ids: SpecialIds, cfg: RunConfig, *, trim: bool) -> slice:
    """Choose what a model reads of a text: of one that is too long, what is around its blanks.

    Three quarters of a row are kept; the rest of it is for what is written.

    Args:
        tokens: `[n]` the text, with mask ids where its blanks are.
        ids: the special tokens of the model's tokenizer.
        cfg: what it was trained with.
        trim: whether a text may be cut.

    Raises:
        RequestError: the blanks are further apart than this.
    """
    longest = cfg.model.max_position
    if not trim or len(tokens) <= longest:
        return slice(0, len(tokens))
    row = min(cfg.train.row_length, longest)
    return around_blanks(tokens, ids, row - row // 4)
