"""How well are held-out blanks filled? One blank at a time, the rest of the text intact.

The blanks are the law's (`law.py`), the same for every run. Four answers are compared on them:

- the model, which reads both sides of the blank;
- the same model with everything right of the blank taken away: nothing says where a blank ends;
- an interpolated Kneser-Ney trigram, estimated on the training text (`baselines.py`), which reads
  the two tokens to the left;
- a unigram, which reads nothing.

An exact fill is asked for twice. Once the end has to be found as well, which only who reads both
sides can be asked. Once all four are told how many tokens the blank has. A fill is exact where its
text is, whatever its tokens, and filled greedily.

Loss is that of the true tokens, the end apart, so that all four answer the same question. Per token
it depends on the tokenizer; per character, word or byte of the blanks' text it does not.

Shapes: n blanks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from blankfill import progress
from blankfill.data.store import TokenStore
from blankfill.engine.transfer import to_tensors
from blankfill.errors import CheckpointError, DataError
from blankfill.evaluate.answers import Answers, score_answers
from blankfill.evaluate.baselines import Baselines, fit_baselines
from blankfill.evaluate.items import BlankItem, encode_blanks
from blankfill.evaluate.law import BlankSet
from blankfill.generate import FilledBlank, LanguageModel, fill_tokens
from blankfill.metrics import example_of_targets
from blankfill.model.glm import GLM, device_of
from blankfill.objective.batch import IGNORE_INDEX, Example, Kind
from blankfill.objective.blank import build_example
from blankfill.objective.frame import frame_text
from blankfill.objective.pack import pack, stack
from blankfill.runs.evaluation import BlankReport, LanguageReport
from blankfill.text.tokenizer import TextTokenizer

__all__ = [
    "Items",
    "encode_set",
    "evaluate_blanks",
    "evaluate_items",
    "exact_fills",
    "fill_items",
    "score_items",
]

ROW_LENGTH_FACTOR = 2
"""Scored rows are this much longer than the longest item, so that packing has room."""
ROWS_AT_ONCE = 8

Items = dict[str, list[BlankItem]]
"""Blanks in a model's tokens, by language."""


def evaluate_blanks(
    lm: LanguageModel, blanks: BlankSet, *, train_stores: Sequence[TokenStore] = ()
) -> BlankReport:
    """Evaluate a model on held-out blanks.

    Args:
        lm: the model.
        blanks: as the law draws them.
        train_stores: training text, for the n-gram models; without it they are left out.

    Raises:
        DataError: the model's rows are too short for a blank.
        CheckpointError: the model's loss is not a number.
    """
    items = encode_set(blanks, lm.tokenizer, row_length=lm.cfg.train.row_length)
    baselines = fit_baselines(train_stores, lm.tokenizer.vocab_size) if train_stores else None
    return evaluate_items(lm, blanks, items, baselines)


def encode_set(blanks: BlankSet, tokenizer: TextTokenizer, *, row_length: int) -> Items:
    """Encode an evaluation's blanks for one model.

    Raises:
        DataError: the model's rows are too short for a blank, or its tokenizer has no token for
            any.
    """
    items = {
        language: encode_blanks(found, tokenizer, row_length=row_length)
        for language, found in blanks.by_language.items()
    }
    if not any(items.values()):
        raise DataError("the run's tokenizer has no token for any blank of the held-out text; "
                        "evaluate it on text of its own languages")  # fmt: skip
    return {language: found for language, found in items.items() if found}


def evaluate_items(
    lm: LanguageModel, blanks: BlankSet, items: Items, baselines: Baselines | None = None
) -> BlankReport:
    """Evaluate a model on blanks that were encoded for it, as `evaluate_blanks` does.

    Args:
        lm: the model.
        blanks: what the items are of.
        items: from `encode_set`.
        baselines: the n-gram models; without them they are left out.
    """
    reports: list[LanguageReport] = []
    for language, found in items.items():
        answers = [_ask_model(lm, found, both_sides=both_sides) for both_sides in (True, False)]
        answers += baselines.score(found) if baselines is not None else []
        reports.append(
            LanguageReport(
                language=language,
                num_documents=blanks.num_documents[language],
                num_blank_documents=len({item.blank.document for item in found}),
                num_blanks=len(found),
                num_words=sum(item.blank.num_words for item in found),
                num_characters=sum(len(item.blank.text) for item in found),
                num_tokens=sum(len(item.span) for item in found),
                num_shortened=sum(item.shortened for item in found),
                scores=tuple(score_answers(one, found) for one in answers),
            )
        )
    return BlankReport(
        law=blanks.law, languages=tuple(reports),
        ngram_tokens=baselines.num_tokens if baselines else 0,
        training_tokens=baselines.of_tokens if baselines else 0,
    )  # fmt: skip


def _ask_model(lm: LanguageModel, items: Sequence[BlankItem], *, both_sides: bool) -> Answers:
    nats, end_nats = score_items(lm, items, both_sides=both_sides)
    if not np.isfinite(nats).all():
        raise CheckpointError(
            f"the loss of {lm.path or 'the model'} on held-out blanks is not a finite number: its "
            "weights are damaged, or its training diverged; evaluate an earlier checkpoint"
        )
    reads = "both sides" if both_sides else "left side"
    with progress.bar(f"fills, {reads}", len(items) * (1 + both_sides), "blanks") as meter:
        given = fill_items(
            lm, items, both_sides=both_sides, given_length=True, advance=meter.advance
        )
        free = fill_items(lm, items, advance=meter.advance) if both_sides else None
    return Answers(
        system="model", reads=reads, nats=nats,
        exact_given_length=exact_fills(lm.tokenizer, given, items),
        exact=None if free is None else exact_fills(lm.tokenizer, free, items, must_end=True),
        end_nats=end_nats if both_sides else None,
    )  # fmt: skip


def score_items(
    lm: LanguageModel, items: Sequence[BlankItem], *, both_sides: bool = True
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Score the true text of each blank: `[n]` nats of its tokens, `[n]` nats of its end."""
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


def exact_fills(
    tokenizer: TextTokenizer, fills: Sequence[FilledBlank], items: Sequence[BlankItem], *,
    must_end: bool = False,
) -> npt.NDArray[np.bool_]:  # fmt: skip
    """Tell which blanks were filled with the true text, `[n]`.

    The texts are compared as the tokenizer writes them: one that keeps no capital letters asks for
    none.

    Args:
        tokenizer: the model's.
        fills: the answers.
        items: the blanks.
        must_end: whether the fill has to end there by itself.
    """
    decode = tokenizer.decode
    same = [
        decode(fill.tokens) == decode(item.span) and (fill.ended or not must_end)
        for fill, item in zip(fills, items, strict=True)
    ]
    return np.array(same, np.bool_)


def fill_items(
    lm: LanguageModel,
    items: Sequence[BlankItem],
    *,
    both_sides: bool = True,
    given_length: bool = False,
    max_new_tokens: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> list[FilledBlank]:
    """Fill each item's blank greedily.

    Args:
        lm: the model.
        items: the blanks.
        both_sides: whether the model reads what stands right of them.
        given_length: write as many tokens as the blank has, and end there.
        max_new_tokens: longest fill where the length is not given; one token more than the longest
            blank where this is not given, since a fill that runs past it is wrong however it ends.
        advance: called with the number of blanks that were just filled.
    """
    ids = lm.ids
    prompts = [
        frame_text(item.prompt(ids.mask, both_sides=both_sides), ids, closed=both_sides)
        for item in items
    ]
    lengths = [len(item.span) for item in items]
    filled = fill_tokens(
        lm, prompts, max_new_tokens=max_new_tokens or max(lengths, default=0) + 1,
        lengths=lengths if given_length else None, advance=advance,
    )  # fmt: skip
    return [text.blanks[0] for text in filled]


@torch.inference_mode()
def _loss(
    model: GLM, examples: Sequence[Example], *, pad: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Sum nats over the tokens of each span, `[n]`, and give those of its `eop`, `[n]`."""
    lengths = np.array([len(example.tokens) for example in examples])
    row_length = ROW_LENGTH_FACTOR * int(lengths.max())
    rows = pack(lengths, row_length)
    token_nats, end_nats = np.zeros(len(examples)), np.zeros(len(examples))
    for start in range(0, len(rows), ROWS_AT_ONCE):
        chosen = rows[start : start + ROWS_AT_ONCE]
        zeros = [0] * sum(map(len, chosen))
        batch = stack(
            [[examples[k] for k in row] for row in chosen], row_length, pad=pad,
            documents=zeros, languages=zeros, sources=zeros,
        )  # fmt: skip
        tensors = to_tensors(batch, device=device_of(model))
        _, nll = model(tensors.tokens, tensors.positions, tensors.mask, targets=tensors.targets)
        nats = nll.double().cpu().numpy()
        owner = example_of_targets(batch)
        is_end = np.append(owner[1:] != owner[:-1], True)  # the last target of each is `eop`
        assert (batch.targets != IGNORE_INDEX).sum() == len(nats)
        numbers = np.concatenate(chosen)[owner]
        np.add.at(token_nats, numbers[~is_end], nats[~is_end])
        end_nats[numbers[is_end]] = nats[is_end]
    return token_nats, end_nats
