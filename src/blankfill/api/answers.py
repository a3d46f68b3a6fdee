"""The texts of a call, many or few: checked, answered in order, some at a time, and handed on.

What is in memory is bounded, however many texts there are: those that run together, and where
neither a file nor a caller takes the answers from us, the answers. A text that cannot be answered
has its error for an answer.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from blankfill import progress
from blankfill.api.parameters import Paths, Texts, as_list, as_path
from blankfill.errors import BlankfillError, RequestError
from blankfill.results import short_repr, to_dict
from blankfill.text.line_texts import MOST_TEXTS, lines_of_files, lines_of_stdin
from blankfill.text.user_text import UserText, checked, is_open_ended

if TYPE_CHECKING:
    from blankfill.api.answers_file import AnswersFile
    from blankfill.config.run import RunConfig
    from blankfill.generate import FilledItem, LanguageModel, TextStream
    from blankfill.text.tokenizer import TextTokenizer

__all__ = ["FillResult", "GivenTexts", "answer_all", "answer_one"]

SHOWN_ERRORS = 3
"""Errors that are named where no text is usable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FillResult:
    """Texts and what they were filled or continued with."""

    run: str
    """The run's folder."""
    step: int
    """Optimizer steps of the checkpoint that answered."""
    items: tuple[FilledItem, ...] = ()
    """One per text, in order; one that could not be filled has its `error` instead. None where
    they were written to a file or handed over as they came."""
    num_texts: int = 0
    """Texts that were answered, errors among them."""
    num_errors: int = 0
    """Texts that could not be answered."""
    num_found: int = 0
    """Texts whose answers stood in the file already."""
    out: str | None = None
    """The file that the answers are in, where one was named."""

    __repr__ = short_repr
    to_dict = to_dict

    def _repr_html_(self) -> str:
        from blankfill.generate.notebook import items_html

        return items_html(self.items)

    @property
    def exit_code(self) -> int:
        """2 where a text could not be answered."""
        return 2 if self.num_errors or any(item.error is not None for item in self.items) else 0


Each = Callable[[FillResult], object]
"""What is called with answers as they come."""


class Ask(Protocol):
    """Answers texts that can be read."""

    def __call__(self, texts: Sequence[str], *, advance: Callable[[int], None]) -> list[FilledItem]:
        """Answer each text, in order, and count those that are finished."""
        ...


class GivenTexts:
    """The texts of a call: given in it, or the lines of stdin or files.

    Args:
        texts: as given; a single `-` reads stdin's lines.
        files: whose lines are texts too.
        check: refuses a text that cannot be used whatever the model is.
        continues: whether texts are continued, and not filled.
        trim: whether texts that are too long may be cut.

    Raises:
        RequestError: there is no text, or none that can be used.
        DataError: a file cannot be read.
    """

    def __init__(
        self, texts: Texts, files: Paths | None, check: Callable[[str], object] = checked, *,
        continues: bool = False, trim: bool = False,
    ) -> None:  # fmt: skip
        self._continues, self._trim = continues, trim
        self.total, chunks = _chunks_of(as_list(texts), files)
        self._first = next(chunks, [])
        following = next(chunks, None) if self.total is not None else None
        self._is_all = self.total is not None and following is None
        self._rest = itertools.chain([following] if following else [], chunks)
        if not self._first:
            raise RequestError("stdin or the files hold no text; give one text a line")
        self._check(lambda text: check(checked(text)))

    @property
    def is_one(self) -> bool:
        """Whether there is one text alone."""
        return self._is_all and len(self._first) == 1

    def fit(self, tokenizer: TextTokenizer, cfg: RunConfig) -> None:
        """Find out before a model's weights are loaded whether it can take none of the texts.

        Raises:
            RequestError: it can take none.
        """
        from blankfill.generate.continuing import encode_beginning
        from blankfill.generate.infill import encode_request

        fill = functools.partial(encode_request, trim=self._trim)
        encode = encode_beginning if self._continues else fill
        self._check(lambda text: encode(text, tokenizer, cfg))

    def open_ended(self) -> str | None:
        """Give the text where it is one alone without blanks in it, to be continued at its end."""
        text = self._first[0].text
        return text if self.is_one and is_open_ended(text) else None

    def chunks(self) -> Iterator[list[UserText]]:
        """Give the texts, in order, some at a time."""
        return itertools.chain([self._first], self._rest)

    def require_one(self, items: Sequence[FilledItem]) -> None:
        """Go on where one of the first answers is no error, or more texts may come.

        Raises:
            RequestError: there is no answer at all.
        """
        if self._is_all:
            _require_one([item.error for item in items])

    def _check(self, check: Callable[[str], object]) -> None:
        errors = [_error_of(text, check) for text in self._first]
        if self._is_all:
            _require_one(errors)


def answer_all(
    lm: LanguageModel, given: GivenTexts, ask: Ask, *, verb: str, file: AnswersFile | None = None,
    each: Each | None = None,
) -> FillResult:  # fmt: skip
    """Answer all texts of a call, in order.

    Args:
        lm: the model.
        given: the texts.
        ask: answers those that can be read.
        verb: for the bar.
        file: where the answers go; what it holds already is not asked again.
        each: what gets the answers as they come, where there is no file.
    """
    result = FillResult(run=str(lm.path), step=lm.step, out=None if file is None else file.name)
    kept: list[FilledItem] = []
    with _bar(verb, given, to_file=file is not None, shown=each is not None) as advance:
        for chunk in given.chunks():
            waiting = chunk if file is None else file.without_answered(chunk)
            advance(len(chunk) - len(waiting))
            result = replace(result, num_found=result.num_found + len(chunk) - len(waiting))
            if not waiting:
                continue
            items = _answer(waiting, ask, advance)
            if not result.num_texts and file is None:
                given.require_one(items)
            result = replace(
                result, num_texts=result.num_texts + len(items),
                num_errors=result.num_errors + sum(item.error is not None for item in items),
            )  # fmt: skip
            if file is not None:
                file.write(items)
            elif each is not None:
                each(replace(result, items=tuple(items)))
            else:
                kept += items
        if file is not None:
            file.finish()
    return replace(result, items=tuple(kept))


def answer_one(
    lm: LanguageModel, stream: TextStream, *, pieces: Callable[[str], object], each: Each | None
) -> FillResult:
    """Hand a text and the pieces of its continuation on as they come."""
    pieces(stream.beginning)
    for piece in stream:
        pieces(piece)
    result = FillResult(run=str(lm.path), step=lm.step, num_texts=1, items=(stream.result,))
    if each is None:
        return result
    each(result)
    return replace(result, items=())


def _answer(
    texts: Sequence[UserText], ask: Ask, advance: Callable[[int], None]
) -> list[FilledItem]:
    """Answer some texts; the errors of those that cannot be read stand between the answers."""
    from blankfill.generate import FilledItem

    readable = [each.text for each in texts if each.error is None]
    done = iter(ask(readable, advance=advance) if readable else [])
    items: list[FilledItem] = []
    for each in texts:
        if each.error is None:
            item = next(done)
        else:
            item = FilledItem(prompt=each.text, text="", blanks=(), error=each.error)
            advance(1)
        items.append(replace(item, error=_name_place(each, item.error)))
    return items


@contextlib.contextmanager
def _bar(
    verb: str, given: GivenTexts, *, to_file: bool, shown: bool
) -> Generator[Callable[[int], None]]:
    """Show how many texts are done, unless the answers show it or there is one alone: a bar would
    stand between the question and its answer."""
    if given.is_one or (shown and not to_file and sys.stdout.isatty()):
        yield lambda _: None
        return
    with progress.bar(verb, given.total, "texts") as meter:
        yield lambda count: meter.advance(count) if count else None


def _chunks_of(
    texts: list[str], files: Paths | None
) -> tuple[int | None, Iterator[list[UserText]]]:
    """Take the texts as given, or the lines of stdin or files: how many, and some at a time.

    Raises:
        RequestError: there is no text.
        DataError: a file cannot be read.
    """
    if files is not None:
        if texts:
            raise RequestError("texts and --files are both given; leave one of them out")
        paths = [as_path(path) for path in as_list(files)]
        if not paths:
            raise RequestError("files is empty; name files of texts, one a line")
        found, lines = lines_of_files([Path(path) for path in paths])
        counts = [file.num_texts for file in found]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None, lines
    if not texts:
        raise RequestError(
            "no text was given; write it after the run, or - to read stdin, or name --files"
        )
    if texts == ["-"]:
        return None, lines_of_stdin()
    one = len(texts) == 1
    given = [UserText(text, "" if one else f"text {i}") for i, text in enumerate(texts, start=1)]
    return len(given), (
        given[k : k + MOST_TEXTS] for k in range(0, len(given), MOST_TEXTS)
    )  # fmt: skip


def _error_of(text: UserText, check: Callable[[str], object]) -> str | None:
    """Say what is wrong with a text; None where nothing is."""
    if text.error is None:
        try:
            check(text.text)
        except BlankfillError as wrong:
            return _name_place(text, str(wrong))
        return None
    return _name_place(text, text.error)


def _name_place(text: UserText, error: str | None) -> str | None:
    """Say in an error which of several texts it is about."""
    return f"{text.place}: {error}" if error is not None and text.place else error


def _require_one(errors: Sequence[str | None]) -> None:
    """Go on where one text is usable; else name what is wrong with each, up to a few."""
    if all(error is not None for error in errors):
        shown = "; ".join(map(str, errors[:SHOWN_ERRORS]))
        more = len(errors) - SHOWN_ERRORS
        raise RequestError(f"{shown}; and {more:,} more" if more > 0 else shown)
