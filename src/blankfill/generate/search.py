"""Filling blanks token by token: Part A is encoded once, then the blanks left to right.

Each next token is the most probable one (greedy search), or drawn (`sampling.py`).

All blanks of a text share one cache: each blank appends its `sop` and tokens to Part B, so later
blanks see what earlier ones were filled with (GLM `generate_samples.py`). `eop` ends a blank and is
not fed back. Texts of any length and number of blanks run together in one padded batch; a row
sees only its own keys, so its answer is the one it gets alone.

Shapes: B rows, A longest Part A of the batch, S Part B tokens so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from blankfill import rng
from blankfill.config.run import RunConfig
from blankfill.errors import RequestError
from blankfill.generate.sampling import GREEDY, Sampling, choose, log_probabilities
from blankfill.generate.session import Session
from blankfill.objective.batch import Int32
from blankfill.objective.blank import Prompt, build_prompt, generation_positions
from blankfill.objective.special import SpecialIds
from blankfill.text.user_text import no_blank

if TYPE_CHECKING:
    from blankfill.generate.language_model import LanguageModel

__all__ = ["FilledBlank", "FilledText", "checked_prompt", "fill_tokens"]

BATCH_POSITIONS = 16_384
"""Most cached positions of one batch: bounds memory, whatever the texts' lengths."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FilledBlank:
    """What one blank was filled with."""

    tokens: Int32
    """`[n]` the span, without `eop`."""
    logprob: float
    """Natural log of the probability of these tokens, and of `eop` where the blank ended."""
    ended: bool
    """False where the token limit cut the blank off."""
    first_choices: tuple[tuple[int, float], ...]
    """The most probable first tokens with their log-probabilities, best first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FilledText:
    """One text with all of its blanks filled."""

    tokens: Int32
    """The whole text with the fills in place of the masks."""
    blanks: tuple[FilledBlank, ...]
    """Left to right."""
    starts: tuple[int, ...]
    """Where the fill of each begins in `tokens`."""


@dataclass(slots=True)
class _Row:
    """Where one text of the batch stands."""

    prompt: Prompt
    generator: np.random.Generator
    forced: Sequence[Sequence[int]]
    limit: int
    """Longest fill of one blank."""
    held: bool
    """Whether every blank has exactly that many tokens."""
    blank: int = 0
    tokens: list[int] = field(default_factory=list[int])
    logprob: float = 0.0
    first_choices: tuple[tuple[int, float], ...] = ()
    done: list[FilledBlank] = field(default_factory=list[FilledBlank])

    @property
    def active(self) -> bool:
        return self.blank < len(self.prompt.blanks)

    def forced_token(self) -> int | None:
        if self.blank < len(self.forced) and len(self.tokens) < len(self.forced[self.blank]):
            return int(self.forced[self.blank][len(self.tokens)])
        return None

    @property
    def may_end(self) -> bool:
        return not self.held or len(self.tokens) == self.limit

    def take(self, token: int, logprob: float, ends: bool) -> None:
        """Count one generated token; close the blank at its end or at the limit."""
        if not ends and len(self.tokens) < self.limit:
            self.tokens.append(token)
            self.logprob += logprob
            return
        self.done.append(
            FilledBlank(
                tokens=np.array(self.tokens, dtype=np.int32),
                logprob=self.logprob + (logprob if ends else 0.0),
                ended=ends,
                first_choices=self.first_choices,
            )
        )
        self.blank, self.tokens, self.logprob, self.first_choices = self.blank + 1, [], 0.0, ()


def fill_tokens(
    lm: LanguageModel,
    prompts: Sequence[Int32],
    *,
    max_new_tokens: int = 64,
    batch_size: int = 32,
    sampling: Sampling = GREEDY,
    forced: Sequence[Sequence[Sequence[int]]] | None = None,
    lengths: Sequence[int] | None = None,
    num_first_choices: int = 1,
    advance: Callable[[int], None] | None = None,
) -> list[FilledText]:
    """Fill every blank of every text.

    Args:
        lm: the model.
        prompts: token ids with mask ids where the blanks are.
        max_new_tokens: longest fill of one blank.
        batch_size: most texts that run together.
        sampling: greedy or drawn.
        forced: for each text and blank, tokens that the fill must begin with; `eop` may close it.
        lengths: for each text, how many tokens each of its blanks has: none ends before, and all
            end there.
        num_first_choices: how many of the best first tokens of each blank to report; as many as
            may appear where these are fewer.
        advance: called with the number of texts that were just finished.

    Returns:
        One result per text, in order.

    Raises:
        RequestError: a text has no blank, or is longer than the model's positions reach.
    """
    rows: list[_Row] = []
    most = lm.model.cfg.max_position - 2
    for index, tokens in enumerate(prompts):
        prompt = checked_prompt(tokens, lm.ids, lm.cfg)
        address = np.ascontiguousarray(prompt.tokens).tobytes().hex()
        rows.append(
            _Row(
                prompt=prompt,
                generator=rng.generator(sampling.seed, "fill", address),
                forced=forced[index] if forced is not None else (),
                limit=min(most, max_new_tokens if lengths is None else lengths[index]),
                held=lengths is not None,
            )
        )
    for chunk in _chunks(rows, batch_size):
        _fill_batch(lm, chunk, sampling, num_first_choices)
        if advance is not None:
            advance(len(chunk))
    return [_finish(row) for row in rows]


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
            f"{longest:,}; shorten it around the blank"
        )
    return prompt


def _chunks(rows: list[_Row], batch_size: int) -> list[list[_Row]]:
    """Group texts of similar length, so that little of a batch is padding."""
    chunks: list[list[_Row]] = []
    width = 0
    for row in sorted(rows, key=lambda r: (len(r.prompt.blanks), len(r.prompt.tokens))):
        size = len(row.prompt.tokens) + len(row.prompt.blanks) * min(row.limit + 2, 34)
        width = max(width, size)
        full = not chunks or len(chunks[-1]) >= batch_size
        if full or width * (len(chunks[-1]) + 1) > BATCH_POSITIONS:
            chunks.append([])
            width = size
        chunks[-1].append(row)
    return chunks


@torch.inference_mode()
def _fill_batch(
    lm: LanguageModel, rows: list[_Row], sampling: Sampling, num_first_choices: int
) -> None:
    ids = lm.ids
    with lm.computing():
        session = Session(lm.model, [row.prompt for row in rows], pad=ids.pad)
    banned = _banned(lm)
    enders = (ids.eop, ids.eos)
    while any(row.active for row in rows):
        tokens = np.full(len(rows), ids.pad, dtype=np.int64)
        positions = np.zeros((len(rows), 2), dtype=np.int64)
        active = np.array([row.active for row in rows])
        for i, row in enumerate(rows):
            if row.active:
                tokens[i] = row.tokens[-1] if row.tokens else row.prompt.sops[row.blank]
                fills = [len(blank.tokens) for blank in row.done]
                positions[i] = generation_positions(
                    row.prompt, row.blank, len(row.tokens), fills, scheme=lm.scheme
                )
        with lm.computing():
            logits = session.step(tokens, positions, active)
        log_probs = log_probabilities(logits, _banned_now(banned, enders, rows))
        chosen = choose(log_probs, sampling, [row.generator for row in rows])
        for i, row in enumerate(rows):
            if not row.active:
                continue
            if not row.tokens:
                row.first_choices = _best(log_probs[i], num_first_choices)
            forced = row.forced_token()
            token = int(chosen[i]) if forced is None else forced
            row.take(token, float(log_probs[i, token]), token in enders)


def _best(log_probs: torch.Tensor, count: int) -> tuple[tuple[int, float], ...]:
    """Give the most probable tokens, best first; fewer than `count` where fewer may appear."""
    best = log_probs.topk(min(count, len(log_probs)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return tuple((token, value) for token, value in pairs if value > -math.inf)


def _banned(lm: LanguageModel) -> torch.Tensor:
    """Mark what may never be generated: specials that only stand in inputs, and padding rows."""
    ids = lm.ids
    banned = torch.zeros(lm.model.cfg.vocab_size, dtype=torch.bool)
    banned[[ids.mask, ids.smask, ids.gmask, ids.sop, ids.pad, ids.dblock]] = True
    banned[[*ids.mask_sentinels, *ids.sop_sentinels]] = True
    banned[lm.tokenizer.vocab_size :] = True  # rows that only pad the matrix
    banned[[ids.eop, ids.eos]] = False  # released vocabularies give eos the id of pad
    return banned


def _banned_now(banned: torch.Tensor, enders: Sequence[int], rows: Sequence[_Row]) -> torch.Tensor:
    """Mark what may not come next, `[V]`, or `[B, V]` where some blanks may not end yet."""
    held = [i for i, row in enumerate(rows) if row.active and not row.may_end]
    if not held:
        return banned
    of_rows = banned.repeat(len(rows), 1)
    for ender in enders:
        of_rows[held, ender] = True
    return of_rows


def _finish(row: _Row) -> FilledText:
    parts: list[Int32] = []
    starts: list[int] = []
    start = length = 0
    for index, blank in zip(row.prompt.blanks, row.done, strict=True):
        starts.append(length + int(index) - start)
        length = starts[-1] + len(blank.tokens)
        parts += [row.prompt.tokens[start:index], blank.tokens]
        start = int(index) + 1
    parts.append(row.prompt.tokens[start:])
    return FilledText(tokens=np.concatenate(parts), blanks=tuple(row.done), starts=tuple(starts))
