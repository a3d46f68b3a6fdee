"""Proof that an export computes what the run computes: the same prompts through both.

Prompts are drawn from a fixed seed: random pieces with one to three short blanks, or a document
blank at the end. Two things are compared. Logits: every prompt followed by random fills, at
every position, the run's one row at a time, the export's in padded batches. Greedy tokens: what
each of the two fills the blanks with, the export with its own cache.

Shapes: T tokens of a row, V vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from blankfill import rng
from blankfill.errors import ConversionError
from blankfill.generate import LanguageModel, fill_tokens
from blankfill.model import DenseMask
from blankfill.objective.batch import Int32
from blankfill.objective.blank import build_prompt
from blankfill.objective.mask import visible
from blankfill.objective.positions import blank_positions
from blankfill.objective.special import DISPLAY, SpecialIds
from blankfill.results import short_repr

__all__ = ["Parity", "Reloaded", "Row", "compare", "draw_rows", "fill_rows", "reference_logits"]

NUM_PROMPTS = 100
TOLERANCE = 1e-4
"""Largest difference of logits up to 10, and of larger ones in proportion to the largest: tens of
float32 roundings, by which products in another order and a fused attention differ."""
SEED = 0
LONGEST = 48
"""Most tokens of a prompt."""
BATCH_SIZE = 10
MAX_NEW_TOKENS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """How far an export is from the run that it was made of."""

    through: str
    """What loaded and ran the export."""
    num_prompts: int
    """Prompts compared."""
    num_logits: int
    """Logits compared."""
    max_logit_difference: float
    """The largest."""
    tolerance: float
    """The largest difference that is allowed."""
    num_greedy_tokens: int
    """Greedily chosen tokens compared."""
    num_different_tokens: int
    """How many of them differ; must be 0."""
    num_ties: int
    """Rows that are compared up to a token only, because the two best there have the same score,
    up to the tolerance: rounding decides between them."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One prompt, and random fills for it, unrelated to its text."""

    prompt: Int32
    """Part A, with mask ids where the blanks are."""
    fills: tuple[Int32, ...]
    """One for each blank, left to right."""

    def tokens(self, ids: SpecialIds) -> Int32:
        """Join `Part A [S] fill [E] [S] fill [E] ...`, the form of generated rows."""
        parts = [self.prompt]
        for fill in self.fills:
            parts += [np.array([ids.sop]), fill, np.array([ids.eop])]
        return np.concatenate(parts).astype(np.int32)

    def inputs(self) -> Int32:
        """List the columns of `tokens` that are inputs of the model: all but `[E]`."""
        lengths = [1 + len(fill) for fill in self.fills]
        columns = np.arange(len(self.prompt) + sum(lengths) + len(lengths))
        ends = len(self.prompt) + np.cumsum(lengths) + np.arange(len(lengths))
        return np.delete(columns, ends).astype(np.int32)


class Reloaded(Protocol):
    """An export, read back from its files."""

    through: str
    """What loaded and runs it."""

    def logits(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        """Score the inputs of rows, as one batch: `[T, V]` each."""
        ...

    def greedy(self, prompts: Sequence[Int32], max_new_tokens: int) -> list[list[int]]:
        """Fill prompts, as one batch: what stands after the first `[S]` of each row."""
        ...


def draw_rows(ids: SpecialIds, num_tokens: int, max_position: int, *, count: int) -> list[Row]:
    """Draw prompts from the fixed seed: three of four with short blanks, one a document blank.

    Args:
        ids: the special tokens, which stand in no text.
        num_tokens: ids that the tokenizer has.
        max_position: the longest text that the model reads.
        count: number of prompts.
    """
    special = {getattr(ids, role) for role in DISPLAY}
    special |= {*ids.mask_sentinels, *ids.sop_sentinels}
    plain = np.array([i for i in range(num_tokens) if i not in special], np.int32)
    rows: list[Row] = []
    for number in range(count):
        generator = rng.generator(SEED, "parity", number)
        length = int(generator.integers(1, max(2, min(LONGEST, max_position // 2))))
        prompt = plain[generator.integers(0, len(plain), length)]
        if number % 4 == 3:
            prompt = np.append(prompt, np.int32(ids.gmask))
            lengths = [int(generator.integers(1, max(2, min(24, max_position // 4))))]
        else:
            num_blanks = int(generator.integers(1, min(3, length) + 1))
            places = np.sort(generator.choice(length, num_blanks, replace=False))
            prompt[places] = ids.mask
            lengths = generator.integers(1, 6, num_blanks).tolist()
        fills = tuple(plain[generator.integers(0, len(plain), n)] for n in lengths)
        rows.append(Row(prompt=prompt, fills=fills))
    return rows


@torch.inference_mode()
def reference_logits(lm: LanguageModel, row: Row) -> torch.Tensor:
    """Score the inputs of a row, `[T, V]`, by the rules that training uses, without a cache."""
    prompt = build_prompt(row.prompt, lm.ids)
    tokens, positions = [row.prompt], [prompt.positions]
    for number, fill in enumerate(row.fills):
        tokens += [np.array([lm.ids.sop]), fill]
        positions.append(
            blank_positions(
                lm.scheme, prompt.kinds[number], mask_index=int(prompt.blanks[number]),
                part_a_length=len(row.prompt), num_inputs=1 + len(fill),
                earlier_lengths=[len(earlier) for earlier in row.fills[:number]],
            )
        )  # fmt: skip
    joined = np.concatenate(tokens).astype(np.int64)
    seen = visible(np.zeros(len(joined), np.int32), np.arange(len(joined)) >= len(row.prompt))
    hidden = lm.model(
        torch.from_numpy(joined)[None],
        torch.from_numpy(np.concatenate(positions, axis=1).astype(np.int64))[None],
        DenseMask(torch.from_numpy(seen)[None]),
    )
    return lm.model.logits(hidden)[0]


def fill_rows(lm: LanguageModel, prompts: Sequence[Int32], max_new_tokens: int) -> list[list[int]]:
    """Fill prompts greedily, and give what stands after the first `[S]` of each row.

    Each blank that ended is followed by `eop` and by the next one's `sop`; nothing follows a blank
    that did not.
    """
    rows: list[list[int]] = []
    for text in fill_tokens(lm, prompts, max_new_tokens=max_new_tokens):
        row: list[int] = []
        for blank in text.blanks:
            row += [lm.ids.sop, *map(int, blank.tokens)]
            if not blank.ended:
                break
            row.append(lm.ids.eop)
        rows.append(row[1:])
    return rows


def compare(
    lm: LanguageModel,
    reloaded: Reloaded,
    *,
    tolerance: float = TOLERANCE,
    num_prompts: int = NUM_PROMPTS,
    advance: Callable[[int], None] | None = None,
) -> Parity:
    """Run the prompts through the run and through its export.

    Args:
        lm: the run's model.
        reloaded: the export, read back.
        tolerance: largest difference of logits up to 10; of larger ones in proportion.
        num_prompts: prompts to compare.
        advance: called with the number of prompts that were just compared.

    Raises:
        ConversionError: the two differ by more than the tolerance, or in a token.
    """
    longest = lm.model.cfg.max_position
    rows = draw_rows(lm.ids, lm.tokenizer.vocab_size, longest, count=num_prompts)
    limit = min(MAX_NEW_TOKENS, longest // 4)
    worst, largest, num_logits, num_tokens_seen, num_different, num_ties = 0.0, 0.0, 0, 0, 0, 0
    for start in range(0, len(rows), BATCH_SIZE):
        batch = rows[start : start + BATCH_SIZE]
        for row, theirs in zip(batch, reloaded.logits(batch), strict=True):
            ours = reference_logits(lm, row)
            difference = (theirs - ours).abs().max()
            worst = max(worst, float(difference.nan_to_num(nan=float("inf"))))
            largest = max(largest, float(ours.abs().max()))
            num_logits += ours.numel()
        prompts = [row.prompt for row in batch]
        wanted = fill_rows(lm, prompts, limit)
        filled = reloaded.greedy(prompts, limit)
        for prompt, ours, theirs in zip(prompts, wanted, filled, strict=True):
            common = ours[:limit]  # theirs counts the fills of a row together
            pairs = list(itertools.zip_longest(common, theirs[: len(common)]))
            first = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
            if first is not None and _is_tie(lm, prompt, common[:first], pairs[first], tolerance):
                num_ties += 1
                pairs = pairs[:first]
            num_tokens_seen += len(pairs)
            num_different += sum(a != b for a, b in pairs)
        if advance is not None:
            advance(len(batch))
    parity = Parity(
        through=reloaded.through, num_prompts=len(rows), num_logits=num_logits,
        max_logit_difference=worst, tolerance=tolerance * max(1.0, largest / 10),
        num_greedy_tokens=num_tokens_seen, num_different_tokens=num_different, num_ties=num_ties,
    )  # fmt: skip
    if worst > parity.tolerance or num_different:
        raise ConversionError(
            f"the export is not the run: through {parity.through}, logits differ by up to "
            f"{worst:.3g} (tolerance {parity.tolerance:.3g}) and {num_different} of "
            f"{num_tokens_seen} greedy tokens differ; nothing was written; this is a fault of "
            "blankfill, please report it with the run's run.json"
        )
    return parity


def _is_tie(
    lm: LanguageModel, prompt: Int32, before: Sequence[int], pair: tuple[int | None, int | None],
    tolerance: float,
) -> bool:  # fmt: skip
    """Whether a run scores two next tokens alike, so that rounding decides between them.

    Args:
        before: what stands after the first `[S]`: fills, each ended by `eop`, `sop` between them.
        pair: the two tokens; None where one of the rows has ended.
    """
    if None in pair or (before and before[-1] == lm.ids.eop):  # `[S]` follows by rule, not by score
        return False
    fills: list[list[int]] = [[]]
    for token in before:
        if token == lm.ids.sop:
            fills.append([])
        elif token != lm.ids.eop:
            fills[-1].append(token)
    row = Row(prompt=prompt, fills=tuple(np.array(fill, np.int32) for fill in fills))
    scores = reference_logits(lm, row)[-1]
    apart = (scores[pair[0]] - scores[pair[1]]).abs()
    return bool(apart <= tolerance * max(1.0, float(scores.abs().max()) / 10))
