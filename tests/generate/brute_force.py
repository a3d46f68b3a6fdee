"""Log-probabilities by one pass over everything, without a cache: what the engine is held to."""

import numpy as np
import torch

from blankfill.generate.scores import banned_tokens
from blankfill.model.masks import DenseMask
from blankfill.objective.blank import build_prompt
from blankfill.objective.mask import visible
from blankfill.objective.positions import blank_positions


def known_by_one_pass(lm, part_a, spans, *, ends=True):
    """Log-probability of every token of the spans that fill a text's blanks, and of their ends."""
    ids = lm.ids
    prompt = build_prompt(np.asarray(part_a, np.int32), ids)
    inputs, targets, positions, lengths = [], [], [prompt.positions], []
    for span, kind, index in zip(spans, prompt.kinds, prompt.blanks, strict=True):
        span = list(span)
        inputs += [ids.sop, *(span if ends else span[:-1])]
        targets += [*span, ids.eop] if ends else span
        positions.append(
            blank_positions(
                lm.scheme, kind, mask_index=int(index), part_a_length=len(part_a),
                earlier_lengths=lengths, num_inputs=len(span) + ends,
            )
        )  # fmt: skip
        lengths = [*lengths, len(span)]
    tokens = np.concatenate([part_a, inputs]).astype(np.int64)
    part_b = np.arange(len(tokens)) >= len(part_a)
    seen = visible(np.zeros(len(tokens), np.int32), part_b)
    with torch.inference_mode():
        hidden = lm.model(
            torch.from_numpy(tokens)[None],
            torch.from_numpy(np.concatenate(positions, 1).astype(np.int64))[None],
            DenseMask(torch.from_numpy(seen)[None]),
        )
        logits = lm.model.logits(hidden)[0, len(part_a) :]
    logits = logits.double().masked_fill(banned_tokens(lm), -torch.inf)
    return logits.log_softmax(-1)[range(len(targets)), targets].tolist()
