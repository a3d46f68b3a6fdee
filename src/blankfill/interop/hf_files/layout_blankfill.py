"""The position and the visible keys of every token, read off the tokens of each row of a batch.

A row is `Part A [S] fill [E] [S] fill ...`: Part A holds the text with a mask token for each
blank; the k-th `[S]` opens the fill of the k-th mask, counted from the left. Nothing else is needed
to know the two position ids of every token and which keys it sees, so padding on either side, a
cache, and any batch give what each row gives alone.

An end token that stands in Part B is an output that was written down: nobody sees it.

Plain torch; this file needs nothing beside it. Shapes: B rows, T columns, Q of them queries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

__all__ = ["Layout", "lay_out"]


@dataclass(frozen=True)
class Layout:
    """The structure of a batch of rows."""

    positions: torch.Tensor
    """`[B, 2, T]` position in the text, position inside the span; 0 on what nobody sees."""
    part_a: torch.Tensor
    """`[B, T]` true on Part A."""
    is_key: torch.Tensor
    """`[B, T]` false on padding and on the end tokens of Part B, which nobody sees."""
    num_blanks: torch.Tensor
    """`[B]` masks in Part A."""
    num_opened: torch.Tensor
    """`[B]` blanks that Part B has opened so far."""
    num_inputs: torch.Tensor
    """`[B, T]` distance to the `[S]` of the blank that a column belongs to."""

    def visible(self, start: int = 0) -> torch.Tensor:
        """Tell which keys the queries from column `start` on see.

        Part A sees all of Part A. Part B sees Part A and what stands before it in Part B. A column
        always sees itself, so that no query is without keys.

        Returns:
            `[B, Q, T]` booleans.
        """
        key = torch.arange(self.is_key.shape[1], device=self.is_key.device)
        query = key[start:, None]
        seen = self.is_key[:, None] & (self.part_a[:, None] | (key <= query))
        return seen | (key == query)


def lay_out(
    tokens: torch.Tensor, real: torch.Tensor, ids: Mapping[str, int], scheme: str
) -> Layout:
    """Read the structure of rows off their tokens.

    Args:
        tokens: `[B, T]` ids.
        real: `[B, T]` false on padding, wherever it stands.
        ids: special tokens by role: mask, smask, gmask, sop, eop, eos, pad.
        scheme: the positions that the model was trained with. corrupted: every token of a span has
            the index of its mask, and counts 1, 2, 3, ... inside. linear: the same without the
            second count, and a `[gMASK]` is numbered straight on after Part A. original: a token's
            index in the whole text, as far as the blanks before it have been filled.
    """
    num_rows, num_columns = tokens.shape
    ends = (ids["eop"], ids["eos"])
    if ids["pad"] not in ends:  # released vocabularies give padding the id of an end
        real = real & (tokens != ids["pad"])
    is_sop = real & (tokens == ids["sop"])
    blank = is_sop.cumsum(1)  # 0 in Part A, k in the k-th blank
    part_a, part_b = real & (blank == 0), real & (blank > 0)
    index = part_a.cumsum(1) - 1  # in Part A

    is_gmask = tokens == ids["gmask"]
    is_mask = part_a & ((tokens == ids["mask"]) | (tokens == ids["smask"]) | is_gmask)
    order = is_mask.cumsum(1)
    slot = torch.where(is_mask, order - 1, num_columns)  # the last slot takes what is no mask
    mask_index = index.new_zeros(num_rows, num_columns + 1).scatter(1, slot, index)
    straight = is_gmask.new_zeros(num_rows, num_columns + 1).scatter(1, slot, is_gmask)

    which = (torch.minimum(blank, order[:, -1:]) - 1).clamp(min=0)
    at_mask, is_straight = mask_index.gather(1, which), straight.gather(1, which)
    column = torch.arange(num_columns, device=tokens.device).expand(num_rows, -1)
    num_inputs = column - torch.where(is_sop, column, 0).cummax(1).values  # 0 at sop
    is_end = part_b & ((tokens == ends[0]) | (tokens == ends[1]))
    inside = part_b & ~is_end
    if scheme == "corrupted":
        first, second = at_mask, num_inputs + 1
    elif scheme == "linear":
        after_part_a = part_a.sum(1, keepdim=True) + num_inputs
        first, second = (
            torch.where(is_straight, after_part_a, at_mask),
            torch.zeros_like(num_inputs),
        )
    elif scheme == "original":
        filled = (inside & ~is_sop).cumsum(1)
        filled_before = torch.where(is_sop, filled, 0).cummax(1).values
        second = (num_inputs - 1).clamp(min=0)
        first = at_mask + filled_before - which + second
    else:
        raise ValueError(f"position_scheme={scheme!r} is not one of: corrupted, linear, original")
    zero = torch.zeros_like(index)
    positions = torch.stack(
        [torch.where(part_a, index, torch.where(inside, first, zero)),
         torch.where(inside, second, zero)],
        dim=1,
    )  # fmt: skip
    return Layout(
        positions=positions, part_a=part_a, is_key=real & ~is_end, num_blanks=order[:, -1],
        num_opened=blank[:, -1], num_inputs=num_inputs,
    )  # fmt: skip
