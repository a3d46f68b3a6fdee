"""How well are held-out blanks filled? One blank at a time, the rest of the text intact.

Each blank that `items.py` draws is one item. Four answers are compared on the same items:

- the model, which reads both sides of the blank;
- the same model with everything right of the blank taken away, told the true length for free:
  without a right side there is nothing that says where a blank ends;
- an interpolated Kneser-Ney trigram, estimated on the training text (`baselines.py`), which reads
  the two tokens to the left and is told the true length for free;
- a unigram, told the length as well.

Loss is nats per token of the span, `eop` apart, so that all four answer the same question; bits per
byte divides by the bytes of the span's text. Exact match asks for the whole span, token by token,
filled greedily; from the model that reads both sides it also asks for the right length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from blankfill import progress
from blankfill.config.objective import ObjectiveConfig
from blankfill.data.store import TokenStore
from blankfill.engine.transfer import to_tensors
from blankfill.errors import DataError
from blankfill.evaluate.baselines import Baselines, fit_baselines
from blankfill.evaluate.items import BlankItem, draw_items
from blankfill.generate import FilledBlank, LanguageModel, fill_tokens
from blankfill.metrics import example_of_targets
from blankfill.model.glm import GLM, device_of
from blankfill.objective.batch import IGNORE_INDEX, Example, Kind
from blankfill.objective.blank import build_example
from blankfill.objective.frame import frame_text
from blankfill.objective.pack import pack, stack
from blankfill.results import short_repr
from blankfill.text.language import LANGUAGES
from blankfill.text.tokenizer import TextTokenizer

__all__ = [
    "BlankReport",
    "BlankScores",
    "evaluate_blanks",
    "fill_items",
    "is_exact",
    "score_items",
]

ROW_LENGTH_FACTOR = 2
"""Scored rows are this much longer than the longest item, so that packing has room."""
ROWS_AT_ONCE = 8


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

    __repr__ = short_repr


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

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class BlankReport:
    """An evaluation on held-out blanks."""

    languages: tuple[LanguageReport, ...]
    """One per language that has documents."""
    seed: int
    """Seed of the blanks."""
    ngram_tokens: int = 0
    """Training tokens that the n-gram models were estimated on; 0 where there are none."""
    training_tokens: int = 0
    """Tokens of the training text that these were drawn from."""

    __repr__ = short_repr

    def score(self, language: str, system: str) -> BlankScores:
        """Find one system's scores in one language."""
        report = next(r for r in self.languages if r.language == language)
        return next(s for s in report.scores if s.system == system)


def evaluate_blanks(
    lm: LanguageModel,
    stores: Sequence[TokenStore],
    objective: ObjectiveConfig,
    *,
    row_length: int,
    train_stores: Sequence[TokenStore] = (),
    max_items: int = 400,
    seed: int = 0,
) -> BlankReport:
    """Evaluate a model on held-out blanks.

    Args:
        lm: the model.
        stores: held-out documents.
        objective: decides which blanks are drawn: the run's own, or another's to compare the two.
        row_length: of the same run.
        train_stores: training text, for the n-gram models; without it they are left out.
        max_items: most blanks of one language.
        seed: seed of the blanks.

    Raises:
        DataError: the stores hold no document.
    """
    items = draw_items(stores, objective, row_length=row_length, max_items=max_items, seed=seed)
    if not items:
        raise DataError(
            "there is no held-out document to evaluate on; name a store that holds text"
        )
    baselines = fit_baselines(train_stores, lm.tokenizer.vocab_size) if train_stores else None
    reports: list[LanguageReport] = []
    for language, found in items.items():
        scores = [_score_model(lm, found, both_sides=both_sides) for both_sides in (True, False)]
        if baselines is not None:
            scores += _score_baselines(baselines, lm.tokenizer, found)
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
    return BlankReport(
        languages=tuple(reports), seed=seed,
        ngram_tokens=baselines.num_tokens if baselines else 0,
        training_tokens=baselines.of_tokens if baselines else 0,
    )  # fmt: skip


def _score_model(lm: LanguageModel, items: Sequence[BlankItem], *, both_sides: bool) -> BlankScores:
    name = "model" if both_sides else "model without the right side"
    token_nats, end_nats = score_items(lm, items, both_sides=both_sides)
    with progress.bar(name, len(items), "blanks") as meter:
        fills = fill_items(lm, items, both_sides=both_sides, advance=meter.advance)
    num_tokens, num_bytes = _sizes(lm.tokenizer, items)
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
    lm: LanguageModel, items: Sequence[BlankItem], *, both_sides: bool = True
) -> tuple[float, float]:
    """Sum nats over the tokens of all items' spans, and over their `eop`."""
    # Without its right side a text goes on: it is opened, where texts are, and not closed.
    opened = int(lm.ids.opening is not None)
    examples = [
        build_example(
            frame_text(
                item.tokens if both_sides else item.tokens[: item.end], lm.ids, closed=both_sides
            ),
            np.array([[item.start, item.end]], np.int32) + opened,
            kind=Kind.SHORT, order=np.zeros(1, np.int32), ids=lm.ids, scheme=lm.scheme,
            sentinel_position=lm.sentinel_position,
        )
        for item in items
    ]  # fmt: skip
    with lm.computing():
        return _loss(lm.model, examples, pad=lm.ids.pad)


def is_exact(fill: FilledBlank, item: BlankItem, *, both_sides: bool = True) -> bool:
    """Tell whether a blank was filled as the text had it, at the right length.

    Without the right side nothing says where a blank ends, so the true length is taken for known.
    """
    if both_sides:
        return fill.ended and bool(np.array_equal(fill.tokens, item.span))
    return bool(np.array_equal(fill.tokens[: len(item.span)], item.span))


def fill_items(
    lm: LanguageModel,
    items: Sequence[BlankItem],
    *,
    both_sides: bool = True,
    max_new_tokens: int = 48,
    advance: Callable[[int], None] | None = None,
) -> list[FilledBlank]:
    """Fill each item's blank greedily."""
    ids = lm.ids
    prompts = [
        frame_text(item.prompt(ids.mask, both_sides=both_sides), ids, closed=both_sides)
        for item in items
    ]
    filled = fill_tokens(lm, prompts, max_new_tokens=max_new_tokens, advance=advance)
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
        _, nll = model(tensors.tokens, tensors.positions, tensors.mask, targets=tensors.targets)
        nats = nll.double().cpu().numpy()
        owner = example_of_targets(batch)
        is_end = np.append(owner[1:] != owner[:-1], True)  # the last target of each is `eop`
        assert (batch.targets != IGNORE_INDEX).sum() == len(nats)
        token_nats += float(nats[~is_end].sum())
        end_nats += float(nats[is_end].sum())
    return token_nats, end_nats


def _score_baselines(
    baselines: Baselines, tokenizer: TextTokenizer, items: Sequence[BlankItem]
) -> list[BlankScores]:
    num_tokens, num_bytes = _sizes(tokenizer, items)
    return [
        BlankScores(
            system=name, loss_nats=nats / num_tokens,
            bits_per_byte=nats / math.log(2) / num_bytes,
            exact_match=exact / len(items), end_loss_nats=None,
        )
        for name, (nats, exact) in baselines.score(items).items()
    ]  # fmt: skip


def _sizes(tokenizer: TextTokenizer, items: Sequence[BlankItem]) -> tuple[int, int]:
    num_bytes = sum(len(tokenizer.decode(item.span).encode("utf-8", "replace")) for item in items)
    return sum(len(item.span) for item in items), num_bytes
