"""Continuing texts of any length, all at once or piece by piece.

A text is continued in the blank `[gMASK]` at its end. Where text and continuation together are
longer than the model's rows, the prefix slides: a quarter of a row is written behind the last three
quarters of the text so far, which then are encoded anew, as GLM-130B's windows do. So each slide
costs one pass over three quarters of a row for a quarter of a row of tokens, and no token sees less
than this. A text with other blanks has them filled as well, and then has to fit.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from blankfill.config.arguments import checks_arguments
from blankfill.config.filling import (
    MinP,
    NoRepeatNgram,
    RepetitionPenalty,
    TopK,
    Typical,
    Wish,
)
from blankfill.config.ranges import NewTokens, Seed, Temperature, TopP
from blankfill.config.run import RunConfig
from blankfill.errors import BlankfillError, RequestError
from blankfill.generate.endings import ContinuationRule, Stops
from blankfill.generate.filling import Filling, Text
from blankfill.generate.infill import FilledItem, TextBlank, encode_request, fill_texts
from blankfill.generate.pieces import Pieces
from blankfill.generate.sampling import GREEDY, Sampling
from blankfill.generate.strategies import Answer, Plan, Request
from blankfill.generate.writing import FilledBlank
from blankfill.objective.batch import Int32
from blankfill.text.tokenizer import TextTokenizer
from blankfill.text.user_text import checked, is_open_ended, to_continue

if TYPE_CHECKING:
    from blankfill.generate.language_model import LanguageModel

__all__ = [
    "ContinueOptions",
    "Ending",
    "TextStream",
    "continue_texts",
    "encode_beginning",
    "stream_settings",
    "stream_text",
]

log = logging.getLogger(__name__)

STRIDE_SHARE = 4
"""One of so many parts of a row is written behind a prefix before it slides."""


class ContinueOptions(TypedDict, total=False):
    """Options of `LanguageModel.generate` and `stream`, which describe them."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical: float
    seed: int
    repetition_penalty: float
    no_repeat_ngram: int
    stop: str | Sequence[str]
    max_new_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """Where a continuation ends, and what it may not repeat."""

    max_new_tokens: int = 128
    """Most tokens."""
    stop: tuple[str, ...] = ()
    """It ends before the first of these texts."""
    no_repeat_ngram: int = 0
    """Length of the runs of tokens that are written once only; 0 allows all."""

    def __post_init__(self) -> None:
        for text in self.stop:
            if not checked(text):
                raise RequestError("stop holds an empty text; give the text to stop at")


def encode_beginning(text: str, tokenizer: TextTokenizer, cfg: RunConfig) -> Int32 | None:
    """Turn a text that is continued at its end into tokens, of any number.

    Returns:
        `[n]` its tokens; None of a text with blanks in it, which then fits.

    Raises:
        RequestError: it is no text, or has blanks and is too long.
    """
    asked = to_continue(checked(text))
    if not is_open_ended(text):
        encode_request(asked, tokenizer, cfg)
        return None
    # The continuation brings the space before it.
    return tokenizer.encode(asked.removesuffix("[gMASK]").removesuffix(" "))


def continue_texts(
    lm: LanguageModel,
    texts: Sequence[str],
    *,
    max_new_tokens: int = 128,
    stop: Sequence[str] = (),
    no_repeat_ngram: int = 0,
    sampling: Sampling = GREEDY,
    batch_size: int = 32,
    advance: Callable[[int], None] | None = None,
) -> list[FilledItem]:
    """Continue each text after `[gMASK]`, which is put at its end where it has none.

    Args:
        lm: the model.
        texts: one that cannot be continued gets its error for an answer.
        max_new_tokens: longest continuation.
        stop: texts that end it, which are not part of it.
        no_repeat_ngram: length of the runs of tokens that are written once only; 0 allows all.
        sampling: greedy or drawn.
        batch_size: most texts that run together.
        advance: called with the number of texts that were just finished.

    Raises:
        RequestError: a stop string is empty.
        CheckpointError: the model's scores are not numbers.
    """
    ending = Ending(
        max_new_tokens=max_new_tokens, stop=tuple(stop), no_repeat_ngram=no_repeat_ngram
    )
    items: dict[int, FilledItem] = {}
    open_ended: dict[int, _Continuation] = {}
    with_blanks: list[int] = []
    for i, text in enumerate(texts):
        try:
            tokens = encode_beginning(text, lm.tokenizer, lm.cfg)
        except BlankfillError as error:
            items[i] = FilledItem(prompt=text, text="", blanks=(), error=str(error))
            if advance is not None:
                advance(1)
            continue
        if tokens is None:
            with_blanks.append(i)
        else:
            open_ended[i] = _Continuation(lm, text, tokens, ending)
    if open_ended:
        every = [each.text for each in open_ended.values()]
        with lm.computing():
            Filling(lm, every, Wish(), sampling, batch_size, advance).run()
        items |= {i: each.item() for i, each in open_ended.items()}
    if with_blanks:
        if ending.stop or ending.no_repeat_ngram:
            log.warning(
                "stop and no_repeat_ngram are of what is written at the end of a text; %d with "
                "blanks in them are filled without (fill has a --stop of its own)",
                len(with_blanks),
            )
        filled = fill_texts(
            lm, [to_continue(texts[i]) for i in with_blanks], max_new_tokens=max_new_tokens,
            sampling=sampling, batch_size=batch_size, advance=advance,
        )  # fmt: skip
        items |= {
            i: replace(item, prompt=texts[i]) for i, item in zip(with_blanks, filled, strict=True)
        }
    return [items[i] for i in range(len(texts))]


class TextStream:
    """A continuation that comes piece by piece.

        stream = lm.stream("Once upon a time")
        for piece in stream:
            print(piece, end="", flush=True)
        stream.result.blanks[0].probability

    The model is used by one step of it at a time, so that other calls go on between pieces.
    """

    def __init__(self, beginning: str, pieces: Iterator[str], result: list[FilledItem]) -> None:
        self.beginning = beginning
        """The text that is continued."""
        self._pieces, self._result = pieces, result

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    @property
    def result(self) -> FilledItem:
        """What `generate` gives, once the last piece has come; the rest is waited for."""
        for _ in self._pieces:
            pass
        return self._result[0]


@checks_arguments
def stream_settings(
    text: str, /, *, temperature: Temperature = 0.0, top_k: TopK = 0, top_p: TopP = 1.0,
    min_p: MinP = 0.0, typical: Typical = 1.0, seed: Seed = 0,
    repetition_penalty: RepetitionPenalty = 1.0, no_repeat_ngram: NoRepeatNgram = 0,
    stop: str | Sequence[str] = (), max_new_tokens: NewTokens = 128,
) -> tuple[str, Sampling, Ending]:  # fmt: skip
    """Check what a stream is asked for: its text, and options as of `LanguageModel.generate`.

    Raises:
        ConfigError: an option cannot be used.
        RequestError: a stop string is empty.
    """
    sampling = Sampling(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, typical=typical, seed=seed,
        repetition_penalty=repetition_penalty,
    )  # fmt: skip
    ending = Ending(
        max_new_tokens=max_new_tokens, no_repeat_ngram=no_repeat_ngram,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
    )  # fmt: skip
    return text, sampling, ending


def stream_text(lm: LanguageModel, text: str, sampling: Sampling, ending: Ending) -> TextStream:
    """Continue a text piece by piece; no piece cuts a character, and none is taken back.

    Args:
        lm: the model.
        text: without blanks, but for a `[gMASK]` at its end.
        sampling: greedy or drawn.
        ending: where it ends.

    Raises:
        RequestError: it is no text, or has blanks in it.
    """
    tokens = encode_beginning(text, lm.tokenizer, lm.cfg)
    if tokens is None:
        raise RequestError(
            "the text has blanks in it, and what is streamed comes at its end; fill it, or ask for "
            "the whole answer"
        )
    continuation = _Continuation(lm, text, tokens, ending)
    result: list[FilledItem] = []
    pieces = _pieces(lm, continuation, sampling, result)
    return TextStream(lm.tokenizer.decode(tokens), pieces, result)


def _pieces(
    lm: LanguageModel, continuation: _Continuation, sampling: Sampling, result: list[FilledItem]
) -> Generator[str]:
    pieces = Pieces(lm.tokenizer, continuation.beginning.tolist(), continuation.rule.stops)
    with lm.lock, lm.computing():
        filling = Filling(lm, [continuation.text], Wish(), sampling, 1, None)
    going_on = True
    while going_on:
        with lm.lock, lm.computing():
            going_on = filling.step()
        if continuation.text.answer is not None:
            break
        piece = pieces.more([*continuation.written, *filling.written(continuation.text)])
        if piece:
            yield piece
    item = continuation.item()
    result.append(item)
    if rest := pieces.rest(item.blanks[0].text):
        yield rest


@dataclass(slots=True, eq=False)
class _Continuation:
    """A text that is being continued, behind one prefix after the other."""

    lm: LanguageModel
    prompt: str
    beginning: Int32
    """`[n]` tokens of the text as it was given."""
    ending: Ending
    written: list[int] = field(default_factory=list[int])
    """Tokens of the segments that are finished."""
    num_unseen: int = 0
    """Tokens of the text as it was given that the first prefix leaves out."""
    ties: list[int] = field(default_factory=list[int])
    logprob: float = 0.0
    rule: ContinuationRule = field(init=False)
    text: Text = field(init=False)

    def __post_init__(self) -> None:
        lm, ending = self.lm, self.ending
        self.rule = ContinuationRule(
            Stops(ending.stop, lm.tokenizer), (lm.ids.eop, lm.ids.eos), lm.model.cfg.vocab_size,
            ending.no_repeat_ngram,
        )  # fmt: skip
        has_rule = bool(ending.stop or ending.no_repeat_ngram)
        self.text = Text(
            tokens=self.beginning, plan=self._plan(), limit=ending.max_new_tokens, held=False,
            forced=(), rules=(self.rule,) if has_rule else (),
        )  # fmt: skip

    def _plan(self) -> Plan:
        """Ask for one segment after the other, until the text ends."""
        lm = self.lm
        row = lm.row_length
        number = 0
        while True:
            left = self.ending.max_new_tokens - len(self.written)
            tokens = np.concatenate([self.beginning, np.array(self.written, np.int32)])
            # A row holds the prefix, `[gMASK]`, `sop` and all that is written.
            prefix = row - 2 - min(left, max(1, row // STRIDE_SHARE))
            kept = tokens[-prefix:] if len(tokens) > prefix else tokens
            if not number and len(kept) < len(tokens):
                self.num_unseen = len(tokens) - len(kept)
                log.info(
                    "the text has %s tokens, and a row of this model %s: it goes on behind its "
                    "last %s", f"{len(tokens):,}", f"{row:,}", f"{len(kept):,}",
                )  # fmt: skip
            room = min(left, row - 2 - len(kept))
            (answer,) = yield [
                Request(
                    tokens=np.append(kept, np.int32(lm.ids.gmask)), blanks=(0,), draw=number,
                    limit=room,
                )
            ]  # fmt: skip
            fill = answer.fills[0]
            self.ties += [len(self.written) + place for place in fill.near_ties]
            self.written += fill.tokens.tolist()
            self.rule.before = self.written[:]
            self.logprob += fill.logprob
            if fill.ended or len(self.written) >= self.ending.max_new_tokens:
                break
            number += 1
        return Answer(fills={0: FilledBlank(
            tokens=np.array(self.written, np.int32), logprob=self.logprob, ended=fill.ended,
            near_ties=tuple(self.ties),
        )})  # fmt: skip

    def item(self) -> FilledItem:
        """Give the text with its continuation."""
        tokenizer = self.lm.tokenizer
        assert self.text.answer is not None
        fill = self.text.answer.fills[0]
        before = tokenizer.decode(self.beginning)
        whole = tokenizer.decode(np.concatenate([self.beginning, fill.tokens]))
        text = whole[len(before) :]
        found = self.rule.stops.first_in(text)
        if found is not None:
            text = text[: found[0]]
        blank = TextBlank(
            text=text, probability=math.exp(fill.logprob),
            tokens=tuple(tokenizer.token(int(token)) for token in fill.tokens), ended=fill.ended,
            start=len(before), candidates=(), near_ties=fill.near_ties,
            stop=None if found is None else found[1],
        )  # fmt: skip
        return FilledItem(
            prompt=self.prompt, text=before + text, blanks=(blank,), trimmed=self.num_unseen
        )
