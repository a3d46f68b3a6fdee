"""What `generate()` of an exported GLM needs beside the model: rules of filling, checks of prompts.

A row is `Part A [S] fill [E] [S] fill [E]`. The functions take `lay_out`, which reads the structure
of rows off their tokens (layout_blankfill.py) with the model's special tokens.

Shapes: B rows, T columns, V vocabulary.
"""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import torch
from transformers import GenerationConfig, LogitsProcessor, StoppingCriteria

__all__ = [
    "MAX_NEW_TOKENS",
    "AllFilled",
    "FillRules",
    "check_cache",
    "check_options",
    "check_prompts",
    "names_length",
    "padded_left",
]

MAX_NEW_TOKENS = 64
"""Default of max_new_tokens in `generate()`; the same as in `blankfill fill`."""


INPUTS = ("mask", "smask", "gmask", "sop", "pad", "dblock")
"""Roles that only stand in inputs and are never generated."""


class FillRules(LogitsProcessor):
    """What may come next: no token that only stands in inputs; `[S]` after the end of a blank.

    A blank that has reached the last position is ended; so is a row that was filled already.
    """

    def __init__(self, config, lay_out):
        self.config, self.lay_out = config, lay_out
        ids = config.special_ids
        banned = {*config.banned_ids, *(ids[role] for role in INPUTS)} - {ids["eop"], ids["eos"]}
        self.banned = [*banned, *range(config.num_tokens, config.vocab_size)]

    def __call__(self, input_ids, scores):
        """Mask scores, `[B, V]`, of the token after input_ids, `[B, T]`."""
        ids = self.config.special_ids
        layout = self.lay_out(input_ids)
        ended = (input_ids[:, -1] == ids["eop"]) | (input_ids[:, -1] == ids["eos"])
        forced = torch.full_like(input_ids[:, -1], -1)
        forced[layout.num_inputs[:, -1] >= self.config.max_position - 2] = ids["eop"]
        forced[ended] = ids["eop"]
        forced[ended & (layout.num_opened < layout.num_blanks)] = ids["sop"]
        scores = scores.clone()
        scores[:, self.banned] = float("-inf")
        token = torch.arange(scores.shape[1], device=scores.device)
        others = (forced[:, None] >= 0) & (token != forced[:, None])
        scores = scores.masked_fill(others, float("-inf"))
        return torch.where(token == forced[:, None], 0.0, scores)


class AllFilled(StoppingCriteria):
    """True for rows whose last blank has ended."""

    def __init__(self, eos_token_id, lay_out):
        self.eos_token_id, self.lay_out = eos_token_id, lay_out

    def __call__(self, input_ids, scores, **kwargs):
        """Tell which rows of input_ids, `[B, T]`, are complete: `[B]`."""
        ended = torch.isin(input_ids[:, -1], self.eos_token_id.to(input_ids.device))
        layout = self.lay_out(input_ids)
        return ended & (layout.num_opened >= layout.num_blanks)


def names_length(generation_config, kwargs):
    """Tell whether a call or its configuration limits the length of the answer.

    transformers lets max_new_tokens overrule max_length, so a default of ours must not stand beside
    a max_length of the caller's.
    """
    if any(kwargs.get(name) is not None for name in ("max_length", "max_new_tokens")):
        return True
    if generation_config is None:
        return False
    default = GenerationConfig().max_length
    return generation_config.max_new_tokens is not None or generation_config.max_length != default


def check_options(generation_config, kwargs):
    """Refuse ways of generating that cannot read Part A at once.

    Raises:
        ValueError: a prompt would be read in chunks.
    """

    def named(name):
        return kwargs.get(name) or getattr(generation_config, name, None)

    if named("prefill_chunk_size"):
        raise ValueError(
            "every token of a text sees the whole text, so it cannot be read in chunks; leave "
            "prefill_chunk_size out"
        )
    if named("cache_implementation") == "paged":
        raise ValueError(
            'this model has no paged cache; leave cache_implementation out, or take "static"'
        )


def padded_left(prompts, attention_mask, ids):
    """Move the padding of every row to its left, so that what is written follows its `[S]`.

    Args:
        prompts: `[B, T]` ids, padded on either side.
        attention_mask: `[B, T]` 0 on padding, or None.
        ids: special tokens by role.

    Returns:
        Both, moved; the mask stays None where none was given and nothing had to be moved.

    Raises:
        ValueError: padding cannot be told from a text's own tokens.
    """
    if attention_mask is not None and attention_mask.shape != prompts.shape:
        raise ValueError(
            f"attention_mask has the shape {[*attention_mask.shape]} and input_ids "
            f"{[*prompts.shape]}; give the mask that the tokenizer made of them"
        )
    real = torch.ones_like(prompts) if attention_mask is None else attention_mask
    real = real.bool()
    if ids["pad"] not in (ids["eop"], ids["eos"]):
        real = real & (prompts != ids["pad"])
    elif attention_mask is None and (prompts[:, [0, -1]] == ids["pad"]).any():
        raise ValueError(
            "this vocabulary pads with the token that ends a text, so padding cannot be told from "
            "text; give the attention_mask that the tokenizer made"
        )
    num_columns = prompts.shape[1]
    column = torch.arange(num_columns, device=prompts.device)
    right_padding = num_columns - 1 - torch.where(real, column, -1).amax(1)  # [B]
    if not right_padding.any():
        return prompts, attention_mask
    source = (column - right_padding[:, None]) % num_columns
    return prompts.gather(1, source), real.gather(1, source).long()


def check_prompts(layout, max_position):
    """Check that every row can be filled.

    Raises:
        ValueError: a row has no blank, no `[S]` after it, or more tokens than positions.
    """
    length = layout.part_a.sum(1)
    for row in range(len(length)):
        if not layout.num_blanks[row]:
            raise ValueError(
                f"row {row} has no blank; write [MASK], [sMASK] or [gMASK] in the text"
            )
        if not layout.num_opened[row]:
            raise ValueError(
                f"row {row} has no [S] after its text; the tokenizer puts it there unless "
                "add_special_tokens=False"
            )
        if length[row] > max_position:
            raise ValueError(
                f"row {row} has {int(length[row])} tokens and this model reads {max_position}; "
                "shorten it around the blank"
            )


def check_cache(cache, layout):
    """Leave at least the last column of the prompts to be read, whose logits come first.

    Args:
        cache: keys and values of the first columns of the rows, or None; may be cut.
        layout: of the whole rows, which have T columns.

    Raises:
        ValueError: the cache ends inside Part A, or cannot be cut.
    """
    if cache is None or not (num_cached := int(cache.get_seq_length())):
        return
    num_columns = layout.part_a.shape[1]
    column = torch.arange(num_columns, device=layout.part_a.device)
    if (layout.part_a & (column >= num_cached)).any():
        raise ValueError(
            f"the cache holds {num_cached} columns and a text continues after them; every token of "
            "a text sees the whole text, so only a cache of whole texts can be used again"
        )
    if num_cached >= num_columns:
        try:
            cache.crop(num_columns - 1 - num_cached)
        except (AttributeError, NotImplementedError, RuntimeError) as error:
            raise ValueError(
                f"the cache holds all {num_columns} columns of the prompts and cannot be cut "
                f"({error}); give a DynamicCache, or one that ends before the last column"
            ) from error
