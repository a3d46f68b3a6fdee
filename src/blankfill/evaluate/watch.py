"""Watching a run: a few held-out blanks, filled again and again while it trains.

The blanks are the first of those that `blankfill evaluate` draws with its default seed, so a curve
of the run and its evaluation speak of the same text. Everything is greedy and fixed: watching
draws nothing, and a run that is watched has the weights of one that is not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from blankfill.config.run import RunConfig
from blankfill.data.store import TokenStore
from blankfill.evaluate.blanks import fill_items, is_exact, score_items
from blankfill.evaluate.items import BlankItem, draw_items
from blankfill.generate import FilledBlank, LanguageModel
from blankfill.metrics import Sample
from blankfill.model.glm import GLM
from blankfill.text.tokenizer import TextTokenizer
from blankfill.train.validate import EXACT_MATCH, Validation

__all__ = ["BlankWatch"]

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
        self._items = draw_items(
            stores, cfg.objective, row_length=cfg.train.row_length,
            max_items=cfg.validation.blanks,
        )  # fmt: skip

    def __call__(self, model: GLM) -> Validation:
        """Fill the blanks with a model in evaluation mode."""
        lm = LanguageModel(model=model, tokenizer=self._tokenizer, cfg=self._cfg)
        values: dict[str, float] = {}
        samples: list[Sample] = []
        for language, items in self._items.items():
            nats, _ = score_items(lm, items)
            # A fill that runs past the longest true span is wrong, however it would end.
            longest = max(len(item.span) for item in items) + 1
            fills = fill_items(lm, items, max_new_tokens=longest)
            exact = [is_exact(fill, item) for fill, item in zip(fills, items, strict=True)]
            values[BLANK_LOSS + language] = nats / sum(len(item.span) for item in items)
            values[EXACT_MATCH + language] = sum(exact) / len(exact)
            samples += [
                self._sample(item, fill, correct=correct)
                for item, fill, correct in list(zip(items, fills, exact, strict=True))[
                    : self._cfg.validation.show_fills
                ]
            ]
        return Validation(values=values, samples=samples)

    def _sample(self, item: BlankItem, fill: FilledBlank, *, correct: bool) -> Sample:
        decode = self._tokenizer.decode
        before, after = decode(item.tokens[: item.start]), decode(item.tokens[item.end :])
        truth, answer = decode(item.span), decode(fill.tokens)
        # A piece brings the space before its word: in the text it stands before the blank.
        space = " " if truth.startswith(" ") else ""
        return Sample(
            language=item.language,
            before=_last_part(before, CONTEXT_CHARACTERS) + space,
            truth=truth.strip(),
            answer=answer.strip(),
            after=_first_part(after, CONTEXT_CHARACTERS),
            probability=round(math.exp(fill.logprob), 6),
            correct=correct,
        )


def _last_part(text: str, size: int) -> str:
    text = _BLANK_LINES.sub("\n", text)
    return text if len(text) <= size else "\u2026" + text[-size:]


def _first_part(text: str, size: int) -> str:
    text = _BLANK_LINES.sub("\n", text)
    return text if len(text) <= size else text[:size] + "\u2026"
