"""Blank infilling: turn one tokenized document into a GLM example, and back.

Part A is the text with every span replaced by one mask token; Part B is the spans in shuffled
order, each preceded by `sop`, its targets ending in `eop`. Source: Du et al. 2022 (GLM), section
2.1; released `blocklm_utils.py: make_block_data`.

Shapes: n tokens in the document, S spans, T = len(Part A) + len(Part B).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blankfill.config.objective import PositionScheme
from blankfill.errors import DataError
from blankfill.objective.batch import IGNORE_INDEX, End, Example, Int32, Int64, Kind
from blankfill.objective.positions import PairRule, blank_positions, part_a_positions
from blankfill.objective.special import SpecialIds

__all__ = ["Prompt", "build_example", "build_prompt", "generation_positions", "restore"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """Part A of a text whose blanks are to be generated."""

    tokens: Int32
    """`[A]` token ids with mask ids where the blanks are."""
    positions: Int32
    """`[2, A]`."""
    blanks: Int32
    """`[S]` index in Part A of each mask, left to right."""
    kinds: tuple[Kind, ...]
    """Kind of each blank, by its mask."""
    sops: tuple[int, ...]
    """What opens each blank."""
    sentinel_position: int | None = None
    """With sentinels, the text position of all of Part B."""


def mask_id(kind: Kind, ids: SpecialIds) -> int:
    """Give the mask token that stands for a blank of this kind."""
    names = {Kind.SHORT: ids.mask, Kind.SENTENCE: ids.smask, Kind.PAIR: ids.mask}
    return names.get(kind, ids.gmask)


def build_example(
    tokens: Int32,
    spans: Int32,
    *,
    kind: Kind,
    order: Int32,
    ids: SpecialIds,
    scheme: PositionScheme = "corrupted",
    end: End = End.EOP,
    pair_rule: PairRule = "straight",
    sentinel_position: int | None = None,
) -> Example:
    """Build the Part A / Part B example for the given blanks.

    Args:
        tokens: `[n]` document tokens, without special tokens.
        spans: `[S, 2]` half-open `(start, end)`, sorted, not overlapping, each non-empty.
        kind: what the blanks are; decides the mask token.
        order: `[S]` permutation; the order in which Part B generates the spans.
        ids: the special tokens.
        scheme: position convention.
        end: what the targets of a span end in; nothing for a document blank whose text goes on:
            its last token is then only a target.
        pair_rule: how `linear` numbers the answer of a pair.
        sentinel_position: give the second and later spans of Part B a mask and a `sop` of their
            own, and all of Part B this text position, the row's length (the papers' ablation).

    Returns:
        An example of length `n + 2S`, or `n + S` where nothing ends a span.

    Raises:
        DataError: spans overlap, are empty, unsorted, or leave the document; or `order` is not a
            permutation of them; or there are more spans than sentinels.
    """
    spans = np.asarray(spans, dtype=np.int32).reshape(-1, 2)
    order = np.asarray(order, dtype=np.int32).reshape(-1)
    _check(len(tokens), spans, order)
    lengths = spans[:, 1] - spans[:, 0]
    earlier = np.concatenate([[0], np.cumsum(lengths)])
    mask_indices = spans[:, 0] - earlier[:-1] + np.arange(len(spans))
    masks, sops = [mask_id(kind, ids)] * len(spans), [ids.sop] * len(spans)
    if sentinel_position is not None:
        masks, sops = _sentinels(masks, sops, order, ids)
    part_a_parts: list[Int32] = []
    start = 0
    end_id = ids.eos if end == End.EOS else ids.eop
    for (span_start, span_end), mask in zip(spans, masks, strict=True):
        part_a_parts += [tokens[start:span_start], np.array([mask], np.int32)]
        start = span_end
    part_a = np.concatenate([*part_a_parts, tokens[start:]]).astype(np.int32)
    inputs, targets, positions = [part_a], [np.full(len(part_a), IGNORE_INDEX, np.int32)], []
    positions.append(part_a_positions(len(part_a)))
    for s, sop in zip(order, sops, strict=True):
        span = tokens[spans[s, 0] : spans[s, 1]].astype(np.int32)
        seen, wanted = (span, [end_id]) if end else (span[:-1], [])
        inputs += [np.array([sop], np.int32), seen]
        targets += [span, np.array(wanted, np.int32)]
        positions.append(
            blank_positions(
                scheme, kind, mask_index=int(mask_indices[s]), part_a_length=len(part_a),
                earlier_lengths=lengths[:s].tolist(), num_inputs=1 + len(seen),
                pair_rule=pair_rule, sentinel_position=sentinel_position,
            )
        )  # fmt: skip
    all_targets = np.concatenate(targets).astype(np.int32)
    return Example(
        tokens=np.concatenate(inputs),
        targets=all_targets,
        positions=np.concatenate(positions, axis=1),
        is_part_b=np.arange(len(all_targets)) >= len(part_a),
        weights=(all_targets != IGNORE_INDEX).astype(np.float32),
        kind=kind,
        end=end,
        spans=spans,
        order=order,
    )


def restore(example: Example) -> Int32:
    """Undo `build_example`: put the spans back in place of their masks.

    Only Part A's tokens and Part B's targets are read, so documents may hold any ids, those of
    special tokens included, and inputs may have been dropped.

    Returns:
        `[n]` the document's tokens.
    """
    lengths = example.spans[:, 1] - example.spans[:, 0]
    left = example.part_b_start
    found: dict[int, Int32] = {}
    for s in example.order.tolist():
        found[s] = example.targets[left : left + lengths[s]]
        left += int(lengths[s]) + (example.end != End.NONE)
    assert left == len(example.tokens)
    parts: list[Int32] = []
    start = 0
    for s, mask in enumerate(example.spans[:, 0] - np.cumsum(lengths) + lengths):
        index = int(mask) + s
        parts += [example.tokens[start:index], found[s]]
        start = index + 1
    return np.concatenate([*parts, example.tokens[start : example.part_b_start]])


def build_prompt(tokens: Int32, ids: SpecialIds, *, sentinel_position: int | None = None) -> Prompt:
    """Build Part A of a text that has mask ids where its blanks are.

    Args:
        tokens: `[A]`.
        ids: the special tokens.
        sentinel_position: of a model that was trained with sentinels, the length of its rows; the
            blanks, which are filled left to right, then have names in that order.

    Raises:
        DataError: there are more blanks than sentinels.
    """
    known = {ids.mask: Kind.SHORT, ids.smask: Kind.SENTENCE, ids.gmask: Kind.DOCUMENT}
    blanks = np.flatnonzero(np.isin(tokens, list(known))).astype(np.int32)
    kinds = tuple(known[int(tokens[index])] for index in blanks)
    sops = [ids.sop] * len(blanks)
    if sentinel_position is not None:
        masks, sops = _sentinels(tokens[blanks].tolist(), sops, np.arange(len(blanks)), ids)
        tokens = tokens.copy()
        tokens[blanks] = masks
    return Prompt(
        tokens=tokens, positions=part_a_positions(len(tokens)), blanks=blanks, kinds=kinds,
        sops=tuple(sops), sentinel_position=sentinel_position,
    )  # fmt: skip


def generation_positions(
    prompt: Prompt, blank: int, num_generated: int, fills: list[int], *, scheme: PositionScheme
) -> Int32:
    """Give the positions of the next input of a blank that is being generated.

    Args:
        prompt: Part A.
        blank: which blank, counted from the left.
        num_generated: its tokens so far; 0 asks for the position of `sop`.
        fills: number of tokens of each blank before it, all of them filled.
        scheme: the convention that the model was trained with.

    Returns:
        `[2]`.
    """
    return blank_positions(
        scheme, prompt.kinds[blank], mask_index=int(prompt.blanks[blank]),
        part_a_length=len(prompt.tokens), earlier_lengths=fills, num_inputs=1,
        first_input=num_generated, sentinel_position=prompt.sentinel_position,
    )[:, 0]  # fmt: skip


def _sentinels(
    masks: list[int], sops: list[int], order: Int32 | Int64, ids: SpecialIds
) -> tuple[list[int], list[int]]:
    """Name all spans but the first of Part B: `[S]` masks as in the text, `[S]` sops in order."""
    known = min(len(ids.mask_sentinels), len(ids.sop_sentinels))
    if len(order) > 1 + known:
        raise DataError(
            f"{len(order)} spans need {len(order) - 1} sentinels, the tokenizer has {known}; take "
            "fewer spans, or no sentinels"
        )
    masks, sops = masks[:], [*sops[:1], *ids.sop_sentinels[: len(order) - 1]]
    for k, s in enumerate(order.tolist()):
        if k:
            masks[s] = ids.mask_sentinels[k - 1]
    return masks, sops


def _check(num_tokens: int, spans: Int32, order: Int32) -> None:
    for number, (start, end) in enumerate(spans):
        if not 0 <= start < end <= num_tokens:
            raise DataError(
                f"span {start}:{end} must be non-empty and inside the document's {num_tokens} "
                "tokens"
            )
        if number and start < spans[number - 1, 1]:
            raise DataError(
                f"span {start}:{end} overlaps or precedes {spans[number - 1, 0]}:"
                f"{spans[number - 1, 1]}; give spans sorted and apart"
            )
    if sorted(order.tolist()) != list(range(len(spans))):
        raise DataError(f"order {order.tolist()} must be a permutation of {len(spans)} spans")
