"""Watching a run: a few held-out blanks, filled again and again while it trains.

The blanks are the first of those that `blankfill evaluate` draws with its default seed, by the same
law for every run, so a curve of the run and its evaluation speak of the same text. Everything is
greedy and fixed: watching draws nothing, and a run that is watched has the weights of one that is
not.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Sequence

import numpy as np

from blankfill.config.run import RunConfig
from blankfill.data.store import TokenStore
from blankfill.errors import DataError
from blankfill.evaluate.blanks import Items, encode_set, exact_fills, fill_items, score_items
from blankfill.evaluate.held_out import read_texts
from blankfill.evaluate.items import BlankItem
from blankfill.evaluate.law import draw_blanks
from blankfill.generate import FilledBlank, LanguageModel
from blankfill.metrics import Sample
from blankfill.model.glm import GLM
from blankfill.text.tokenizer import TextTokenizer
from blankfill.train.validate import EXACT_MATCH, Validation

__all__ = ["BlankWatch"]

log = logging.getLogger(__name__)

CONTEXT_CHARACTERS = 160
"""Text that a sample keeps on either side of its blank."""
BLANK_LOSS = "validation_blank_loss_nats_"
"""Key of the nats per token of the blanks, before the language."""
_BLANK_LINES = re.compile(r"\n\s+")


class BlankWatch:
    """Fills the same held-out blanks of each language whenever it is called.

    Args:
        cfg: the run; `validation.blanks` says how many blanks of a language.
        tokenizer: the run's.
        stores: held-out documents.
    """

    def __init__(
        self, cfg: RunConfig, tokenizer: TextTokenizer, stores: Sequence[TokenStore]
    ) -> None:
        self._cfg, self._tokenizer = cfg, tokenizer
        blanks = draw_blanks(read_texts(stores), max_blanks=cfg.validation.blanks)
        self._items: Items = {}
        try:
            self._items = encode_set(blanks, tokenizer, row_length=cfg.train.row_length)
        except DataError as error:  # training goes on without
            log.warning("held-out blanks are not filled while this run trains: %s", error)

    def __call__(self, model: GLM) -> Validation:
        """Fill the blanks with a model in evaluation mode."""
        lm = LanguageModel(model=model, tokenizer=self._tokenizer, cfg=self._cfg)
        values: dict[str, float] = {}
        samples: list[Sample] = []
        for language, items in self._items.items():
            nats, _ = score_items(lm, items)
            values[BLANK_LOSS + language] = float(nats.sum()) / sum(len(i.span) for i in items)
            if not np.isfinite(nats).all():  # a model that has diverged fills nothing
                values[EXACT_MATCH + language] = 0.0
                continue
            fills = fill_items(lm, items)
            exact = exact_fills(self._tokenizer, fills, items, must_end=True).tolist()
            values[EXACT_MATCH + language] = sum(exact) / len(exact)
            samples += [
                self._sample(item, fill, correct=correct)
                for item, fill, correct in _of_different_documents(
                    zip(items, fills, exact, strict=True), self._cfg.validation.show_fills
                )
            ]
        return Validation(values=values, samples=samples)

    def _sample(self, item: BlankItem, fill: FilledBlank, *, correct: bool) -> Sample:
        blank = item.blank
        # The space before a blank belongs to it; in the text it stands before the blank.
        space = " " if blank.text.startswith(" ") else ""
        return Sample(
            language=blank.language,
            before=_last_part(blank.before, CONTEXT_CHARACTERS) + space,
            truth=blank.text.strip(),
            answer=self._tokenizer.decode(fill.tokens).strip(),
            after=_first_part(blank.after, CONTEXT_CHARACTERS),
            probability=round(math.exp(fill.logprob), 6),
            correct=correct,
        )


def _of_different_documents(
    filled: Iterable[tuple[BlankItem, FilledBlank, bool]], most: int
) -> list[tuple[BlankItem, FilledBlank, bool]]:
    """Take the first blank of each document; the others follow where there are not enough."""
    seen: set[str] = set()
    first: list[tuple[BlankItem, FilledBlank, bool]] = []
    others: list[tuple[BlankItem, FilledBlank, bool]] = []
    for each in filled:
        document = each[0].blank.document
        (others if document in seen else first).append(each)
        seen.add(document)
    return [*first, *others][:most]


def _last_part(text: str, size: int) -> str:
    text = _BLANK_LINES.sub("\n", text)
    return text if len(text) <= size else "\u2026" + text[-size:]


def _first_part(text: str, size: int) -> str:
    text = _BLANK_LINES.sub("\n", text)
    return text if len(text) <= size else text[:size] + "\u2026"
