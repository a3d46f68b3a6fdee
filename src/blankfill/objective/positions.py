"""The two position ids of every token, under each published convention.

`corrupted` (Du et al. 2022, section 2.2.1; the default). First id: index in Part A, where a blank
counts as one; every token of a span, its `sop` included, has the index of its mask. Second id: 0 in
Part A; in a span 1, 2, 3, ... from `sop` on. The model cannot see how long a blank is.

`linear` (GLM-130B, one-dimensional). Short and sentence blanks: the first id as above. A document
blank: straight through Part A, `sop` and the span. The second id is 0 everywhere. A pair's answer
has three published rules (`pair_positions`): straight as a document blank; unified, where `sop`
shares the id of the mask and the rest goes on from there; pinned, as a short blank.

`original` (the article). First id of a span's tokens: their own index in the ORIGINAL sentence;
second id: 0, 1, 2, ... inside the span. `sop` shares the ids of the span's first token. Part A is
numbered from 0 as above, so a span's ids coincide with those of Part A tokens to the right of its
mask. At generation the indices of a later blank depend on the lengths of the earlier fills: they
are known only because blanks are filled left to right.

With sentinels (the papers' ablation) all of Part B has the text position after the row's last, and
1, 2, 3, ... inside each span: the sentinel tokens tell which blank a span fills.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from blankfill.config.objective import PositionScheme
from blankfill.objective.batch import Int32, Kind

__all__ = ["STRAIGHT", "PairRule", "blank_positions", "part_a_positions"]

PairRule = Literal["straight", "unified", "pinned"]
STRAIGHT = (Kind.DOCUMENT, Kind.CAUSAL)
"""Kinds whose blank `linear` numbers straight through; a pair's by its rule."""


def part_a_positions(num_tokens: int) -> Int32:
    """Give `[2, num_tokens]`: 0, 1, 2, ... in the text, 0 inside."""
    positions = np.zeros((2, num_tokens), dtype=np.int32)
    positions[0] = np.arange(num_tokens)
    return positions


def blank_positions(
    scheme: PositionScheme,
    kind: Kind,
    *,
    mask_index: int,
    part_a_length: int,
    earlier_lengths: Sequence[int],
    num_inputs: int,
    first_input: int = 0,
    pair_rule: PairRule = "straight",
    sentinel_position: int | None = None,
) -> Int32:
    """Give the positions of a span's inputs: `sop`, then its tokens.

    The one rule for training, where all inputs are known, and for generation, where they are asked
    for one at a time.

    Args:
        scheme: the convention.
        kind: what the blank is.
        mask_index: index of the blank's mask in Part A.
        part_a_length: tokens in Part A.
        earlier_lengths: number of tokens of each blank that stands left of this one in the text.
        num_inputs: how many inputs to number.
        first_input: the first of them; 0 is `sop`.
        pair_rule: the rule of a pair's answer under `linear`.
        sentinel_position: with sentinels, the text position of all of Part B: the row's length.

    Returns:
        `[2, num_inputs]`.
    """
    inputs = np.arange(first_input, first_input + num_inputs)
    positions = np.zeros((2, num_inputs), dtype=np.int32)
    if scheme == "corrupted":
        positions[0] = mask_index if sentinel_position is None else sentinel_position
        positions[1] = inputs + 1
    elif scheme == "linear":
        rule = pair_rule if kind == Kind.PAIR else "straight" if kind in STRAIGHT else "pinned"
        start = part_a_length if rule == "straight" else mask_index
        positions[0] = start + (0 if rule == "pinned" else inputs)
    else:
        inner = np.maximum(inputs - 1, 0)
        start = mask_index + sum(earlier_lengths) - len(earlier_lengths)
        positions[0] = start + inner
        positions[1] = inner
    return positions
