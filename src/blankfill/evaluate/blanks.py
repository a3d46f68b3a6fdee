"""How well are held-out blanks filled? One blank at a time, the rest of the text intact.

From every held-out document (cut into pieces as in training) spans are drawn by the short law.
Each span is one item. Four answers are compared on the same items:

- the model, which reads both sides of the blank;
- the same model with everything right of the blank taken away, told the true length for free:
  without a right side there is nothing that says where a blank ends;
- an interpolated Kneser-Ney trigram, estimated on the training text, which reads the two tokens to
  the left and is told the true length for free;
- a unigram, told the length as well.

Loss is nats per token of the span, `eop` apart, so that all four answer the same question; bits per
byte divides by the bytes of the span's text. Exact match asks for the whole span, token by token,
filled greedily; from the model that reads both sides it also asks for the right length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count as count_from
from itertools import pairwise

import numpy as np
import torch

from blankfill import progress
from blankfill.config.objective import ObjectiveConfig
from blankfill.data.store import TokenStore
from blankfill.engine.transfer import to_tensors
from blankfill.errors import DataError
from blankfill.evaluate.ngram import Trigram, Unigram
from blankfill.generate.infill import FilledBlank, fill_tokens
from blankfill.metrics import example_of_targets
from blankfill.model.glm import GLM, device_of
from blankfill.model.loss import batch_loss
from blankfill.objective.batch import IGNORE_INDEX, Example, Int32, Kind
from blankfill.objective.blank import build_example
from blankfill.objective.draws import uniform_draws
from blankfill.objective.fit import longest_piece
from blankfill.objective.frame import frame_text
from blankfill.objective.pack import pack, stack
from blankfill.objective.spans import draw_lengths, max_spans, place_spans, span_budget
from blankfill.rng import generator
from blankfill.text.language import LANGUAGES
from blankfill.text.tokenizer import TextTokenizer

__all__ = [
    "BlankItem",
    "BlankReport",
    "BlankScores",
    "draw_items",
    "evaluate_blanks",
    "fill_items",
    "is_exact",
    "score_items",
]

ROW_LENGTH_FACTOR = 2
"""Scored rows are this much longer than the longest item, so that packing has room."""
ROWS_AT_ONCE = 8


@dataclass(frozen=True, slots=True, eq=False)
class BlankItem:
    """One blank of one held-out document."""

    tokens: Int32
    """`[n]` the piece that it stands in."""
    before: tuple[int, ...]
    """The document's tokens right before the piece, at most two."""
    start: int
    """First token of the blank, in the piece."""
    end: int
    """End of the blank."""
    language: str
    """Language of the document."""

    @property
    def span(self) -> Int32:
        """The tokens that were cut out."""
        return self.tokens[self.start : self.end]

    def prompt(self, mask: int, *, both_sides: bool = True) -> Int32:
        """Part A: the piece with one mask, with or without what stands to its right."""
        right = self.tokens[self.end :] if both_sides else self.tokens[:0]
        return np.concatenate([self.tokens[: self.start], [mask], right]).astype(np.int32)


@dataclass(frozen=True, kw_only=True, slots=True)
class BlankScores:
    """How one system did on the items of one language."""

    system: str
    """model, model without the right side, trigram or unigram."""
    loss_nats: float
    """Nats per blank token."""
    bits_per_byte: float
    """Bits per byte of the blanks' text."""
    exact_match: float
    """Share of blanks filled exactly."""
    end_loss_nats: float | None
    """Nats of `eop` after the true span; None for systems that are told the length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageReport:
    """The items of one language and every system's scores on them."""

    language: str
    """en or zh."""
    num_documents: int
    """Held-out documents of this language."""
    num_blanks: int
    """Items scored."""
    num_tokens: int
    """Tokens in the blanks."""
    scores: tuple[BlankScores, ...]
    """The model first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlankReport:
    """An evaluation on held-out blanks."""

    languages: tuple[LanguageReport, ...]
    """One per language that has documents."""
    seed: int
    """Seed of the blanks."""

    def score(self, language: str, system: str) -> BlankScores:
        """Find one system's scores in one language."""
        report = next(r for r in self.languages if r.language == language)
        return next(s for s in report.scores if s.system == system)


def draw_items(
    stores: Sequence[TokenStore], cfg: ObjectiveConfig, *, row_length: int, max_items: int,
    seed: int = 0,
) -> dict[str, list[BlankItem]]:  # fmt: skip
    """Draw the blanks of an evaluation.

    Args:
        stores: held-out documents.
        cfg: gives the law of the short spans.
        row_length: pieces are as long as such rows hold.
        max_items: most blanks of one language; a fixed selection where there are more.
        seed: seed of the blanks.

    Returns:
        Items by language.
    """
    longest = longest_piece(row_length, cfg)
    items: dict[str, list[BlankItem]] = {}
    for number, store in enumerate(stores):
        for d in range(len(store)):
            document = np.asarray(store.document(d)).astype(np.int32)
            language = LANGUAGES[int(store.languages[d])]
            count = -(-len(document) // longest)
            bounds = [len(document) * p // count for p in range(count + 1)] if count else []
            for p, (first, last) in enumerate(pairwise(bounds)):
                address = (number * 1_000_003 + d) * 4099 + p
                piece, before = document[first:last], tuple(document[:first][-2:].tolist())
                items.setdefault(language, []).extend(
                    BlankItem(piece, before, int(s), int(e), language)
                    for s, e in _short_spans(len(piece), cfg, seed, address)
                )
    return {
        language: [
            found[i]
            for i in np.sort(generator(seed, "items", language).permutation(len(found))[:max_items])
        ]
        for language, found in sorted(items.items())
    }


def _short_spans(num_tokens: int, cfg: ObjectiveConfig, seed: int, address: int) -> Int32:
    where, n, ratio = np.array(address), np.array([num_tokens]), np.array([cfg.mask_ratio])
    most = int(max_spans(n, cfg, ratio)[0])
    lengths = draw_lengths(
        uniform_draws(where, np.arange(most), seed, "evaluation"), num_tokens, cfg,
        budget=int(span_budget(n, ratio)[0]),
    )  # fmt: skip
    places = (
        float(uniform_draws(where, np.array(i), seed, "evaluation places")[0]) for i in count_from()
    )
    return place_spans(lengths, num_tokens, places, cfg.placement)


def evaluate_blanks(
    model: GLM,
    tokenizer: TextTokenizer,
    stores: Sequence[TokenStore],
    cfg: ObjectiveConfig,
    *,
    row_length: int,
    train_stores: Sequence[TokenStore] = (),
    max_items: int = 400,
    seed: int = 0,
) -> BlankReport:
    """Evaluate a model on held-out blanks.

    Args:
        model: in evaluation mode.
        tokenizer: the model's.
        stores: held-out documents.
        cfg: the run's objective.
        row_length: the run's row length.
        train_stores: training text, for the n-gram models; without it they are left out.
        max_items: most blanks of one language.
        seed: seed of the blanks.

    Raises:
        DataError: the stores hold no document.
    """
    items = draw_items(stores, cfg, row_length=row_length, max_items=max_items, seed=seed)
    if not items:
        raise DataError("there is no held-out document to evaluate on")
    baselines = _fit(train_stores, tokenizer.vocab_size) if train_stores else None
    reports: list[LanguageReport] = []
    for language, found in items.items():
        scores = [
            _score_model(
                model,
                tokenizer,
                found,
                cfg,
                both_sides=both_sides,
                sentinels_behind=row_length if cfg.sentinels else None,
            )
            for both_sides in (True, False)
        ]
        if baselines is not None:
            scores += _score_baselines(*baselines, tokenizer, found)
        code = LANGUAGES.index(language)
        reports.append(
            LanguageReport(
                language=language,
                num_documents=sum(int((store.languages == code).sum()) for store in stores),
                num_blanks=len(found),
                num_tokens=sum(len(item.span) for item in found),
                scores=tuple(scores),
            )
        )
    return BlankReport(languages=tuple(reports), seed=seed)


def _fit(stores: Sequence[TokenStore], vocab_size: int) -> tuple[Unigram, Trigram]:
    documents = [store.document(i) for store in stores for i in range(len(store))]
    with progress.bar("n-gram models", 2, "models") as meter:
        unigram = Unigram.fit(documents, vocab_size)
        meter.advance()
        trigram = Trigram(documents, vocab_size)
        meter.advance()
    return unigram, trigram


def _score_model(
    model: GLM, tokenizer: TextTokenizer, items: Sequence[BlankItem], cfg: ObjectiveConfig, *,
    both_sides: bool, sentinels_behind: int | None,
) -> BlankScores:  # fmt: skip
    name = "model" if both_sides else "model without the right side"
    token_nats, end_nats = score_items(
        model, tokenizer, items, cfg, both_sides=both_sides, sentinels_behind=sentinels_behind
    )
    with progress.bar(name, len(items), "blanks") as meter:
        fills = fill_items(
            model, tokenizer, items, cfg, both_sides=both_sides, advance=meter.advance,
            sentinels_behind=sentinels_behind,
        )  # fmt: skip
    num_tokens, num_bytes = _sizes(tokenizer, items)
    return BlankScores(
        system=name, loss_nats=token_nats / num_tokens,
        bits_per_byte=token_nats / math.log(2) / num_bytes,
        exact_match=float(np.mean([
            is_exact(fill, item, both_sides=both_sides)
            for fill, item in zip(fills, items, strict=True)
        ])),
        end_loss_nats=end_nats / len(items),
    )  # fmt: skip


def score_items(
    model: GLM, tokenizer: TextTokenizer, items: Sequence[BlankItem], cfg: ObjectiveConfig, *,
    both_sides: bool = True, sentinels_behind: int | None = None,
) -> tuple[float, float]:  # fmt: skip
    """Sum nats over the tokens of all items' spans, and over their `eop`."""
    # Without its right side a text goes on: it is opened, where texts are, and not closed.
    opened = int(tokenizer.ids.opening is not None)
    examples = [
        build_example(
            frame_text(
                item.tokens if both_sides else item.tokens[: item.end], tokenizer.ids,
                closed=both_sides,
            ),
            np.array([[item.start, item.end]], np.int32) + opened,
            kind=Kind.SHORT, order=np.zeros(1, np.int32), ids=tokenizer.ids, scheme=cfg.positions,
            sentinels_behind=sentinels_behind,
        )
        for item in items
    ]  # fmt: skip
    return _loss(model, examples, pad=tokenizer.ids.pad)


def is_exact(fill: FilledBlank, item: BlankItem, *, both_sides: bool = True) -> bool:
    """Tell whether a blank was filled as the text had it, at the right length.

    Without the right side nothing says where a blank ends, and the length is given for free.
    """
    if both_sides:
        return fill.ended and bool(np.array_equal(fill.tokens, item.span))
    return bool(np.array_equal(fill.tokens[: len(item.span)], item.span))


def fill_items(
    model: GLM, tokenizer: TextTokenizer, items: Sequence[BlankItem], cfg: ObjectiveConfig, *,
    both_sides: bool = True, max_new_tokens: int = 48, sentinels_behind: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> list[FilledBlank]:  # fmt: skip
    """Fill each item's blank greedily."""
    ids = tokenizer.ids
    prompts = [
        frame_text(item.prompt(ids.mask, both_sides=both_sides), ids, closed=both_sides)
        for item in items
    ]
    filled = fill_tokens(
        model, prompts,
        ids, max_new_tokens=max_new_tokens, scheme=cfg.positions,
        sentinels_behind=sentinels_behind, num_real_tokens=tokenizer.vocab_size, advance=advance,
    )  # fmt: skip
    return [text.blanks[0] for text in filled]


@torch.inference_mode()
def _loss(model: GLM, examples: Sequence[Example], *, pad: int) -> tuple[float, float]:
    """Sum nats over the tokens of all spans, and over their `eop`."""
    lengths = np.array([len(example.tokens) for example in examples])
    row_length = ROW_LENGTH_FACTOR * int(lengths.max())
    rows = pack(lengths, row_length)
    token_nats = end_nats = 0.0
    for start in range(0, len(rows), ROWS_AT_ONCE):
        members = [[examples[k] for k in row] for row in rows[start : start + ROWS_AT_ONCE]]
        zeros = [0] * sum(map(len, members))
        batch = stack(members, row_length, pad=pad, documents=zeros, languages=zeros, sources=zeros)
        tensors = to_tensors(batch, device=device_of(model))
        _, nll = batch_loss(model, tensors.tokens, tensors.positions, tensors.mask, tensors.targets)
        nats = nll.double().cpu().numpy()
        owner = example_of_targets(batch)
        is_end = np.append(owner[1:] != owner[:-1], True)  # the last target of each is `eop`
        assert (batch.targets != IGNORE_INDEX).sum() == len(nats)
        token_nats += float(nats[~is_end].sum())
        end_nats += float(nats[is_end].sum())
    return token_nats, end_nats


def _score_baselines(
    unigram: Unigram, trigram: Trigram, tokenizer: TextTokenizer, items: Sequence[BlankItem]
) -> list[BlankScores]:
    nats = {"trigram": 0.0, "unigram": 0.0}
    exact = {"trigram": 0, "unigram": 0}
    for item in items:
        marks = [trigram.begin] * (2 - len(item.before))
        line = np.array([*marks, *item.before, *item.tokens], np.int64)
        at = np.arange(item.start, item.end) + 2
        span = line[at]
        nats["trigram"] -= float(trigram.log_prob(line[at - 2], line[at - 1], span).sum())
        nats["unigram"] -= float(unigram.log_probs[span].sum())
        guess = trigram.greedy(int(line[at[0] - 2]), int(line[at[0] - 1]), len(span))
        exact["trigram"] += int(np.array_equal(guess, span))
        exact["unigram"] += int((span == unigram.best).all())
    num_tokens, num_bytes = _sizes(tokenizer, items)
    return [
        BlankScores(
            system=name, loss_nats=nats[name] / num_tokens,
            bits_per_byte=nats[name] / math.log(2) / num_bytes,
            exact_match=exact[name] / len(items), end_loss_nats=None,
        )
        for name in ("trigram", "unigram")
    ]  # fmt: skip


def _sizes(tokenizer: TextTokenizer, items: Sequence[BlankItem]) -> tuple[int, int]:
    num_bytes = sum(len(tokenizer.decode(item.span).encode("utf-8", "replace")) for item in items)
    return sum(len(item.span) for item in items), num_bytes
