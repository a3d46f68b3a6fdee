"""Putting questions to a model: candidates scored, answers written, texts measured.

A question becomes a Part A with one blank, and for each candidate the tokens that are scored behind
it; candidates of one question share its Part A, which is encoded once. What stands before and after
the blank, and each candidate, are encoded by themselves. Where all of it has no room in a row, what
is furthest from the blank is left away; a candidate that has none makes the question a bad one.

Shapes: n tokens of a row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from blankfill.errors import DataError, RequestError
from blankfill.evaluate.items import shares_of
from blankfill.evaluate.task import BadItemError, Question
from blankfill.evaluate.task_files import AskedTask
from blankfill.generate import LanguageModel, fill_tokens
from blankfill.generate.known import known_logprobs
from blankfill.generate.whole import TextScore, score_text
from blankfill.generate.writing import Writing
from blankfill.objective.batch import Int32
from blankfill.objective.blank import Prompt, build_prompt
from blankfill.objective.special import DISPLAY
from blankfill.text.tokenizer import TextTokenizer

__all__ = [
    "EncodedQuestion",
    "EncodedTask",
    "Frames",
    "Row",
    "ScoredRow",
    "encode_task",
    "lay_out",
    "measure_texts",
    "row_logprobs",
    "row_writings",
    "score_candidates",
    "write_answers",
]

ROWS_AT_A_TIME = 2_048
"""Candidates whose rows are built at once."""
_UNIT = re.compile(r"\s*(?:[\u3400-\u9fff]|[^\W\u3400-\u9fff]+|[^\w\s]|\Z)")
"""A word with the space before it, a Chinese character, a mark."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredRow:
    """What stands behind a Part A, and how much of it is scored."""

    tokens: Int32
    """`[n]` tokens of Part B."""
    first: int = 0
    """The first of them that counts; those before it are context."""
    ends: bool = False
    """Whether the end of the blank after them counts too."""
    num_bytes: int = 1
    """Bytes of the candidate's text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedQuestion:
    """A question in a model's tokens."""

    part_a: Int32
    """Part A with one mask, its frame included."""
    rows: tuple[ScoredRow, ...] = ()
    """One for each candidate; where the model writes, what it reads first, if anything."""
    shortened: bool = False
    """Whether text was left away that has no room."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedTask:
    """The questions of a task in a model's tokens."""

    asked: AskedTask
    """What is asked."""
    kept: tuple[int, ...]
    """Numbers of the questions that have room."""
    questions: tuple[EncodedQuestion, ...]
    """Those, in order; none where texts are measured."""
    bad: tuple[str, ...]
    """What cannot be asked of any model, or not of this one, and why."""


def encode_task(asked: AskedTask, tokenizer: TextTokenizer, row_length: int) -> EncodedTask:
    """Encode the questions of a task for one model.

    Args:
        asked: the questions.
        tokenizer: the model's.
        row_length: positions of its rows.

    Raises:
        DataError: no question has room in a row.
    """
    if asked.task.metric == "bits per byte":
        return EncodedTask(
            asked=asked, kept=tuple(range(len(asked.questions))), questions=(), bad=asked.bad
        )
    bad = list(asked.bad)
    kept: list[int] = []
    encoded: list[EncodedQuestion] = []
    frames = Frames(tokenizer)
    for k, question in enumerate(asked.questions):
        shown = "\n\n".join([*(asked.examples[k] if asked.examples else ()), question.before])
        try:
            encoded.append(
                _encode(question, shown, asked, frames, row_length)
            )  # fmt: skip
            kept.append(k)
        except BadItemError as error:
            bad.append(f"item {asked.numbers[k] + 1}: {error}")
    if not kept:
        raise DataError(f"{asked.path}: no item of it can be asked of this run; {bad[-1]}")
    return EncodedTask(asked=asked, kept=tuple(kept), questions=tuple(encoded), bad=tuple(bad))


def score_candidates(
    lm: LanguageModel, task: EncodedTask, advance: Callable[[int], None] | None = None
) -> list[list[float]]:
    """Give what candidates are compared by, question by question.

    Args:
        lm: the model.
        task: questions with candidates.
        advance: called with the number of candidates that were just scored.

    Raises:
        CheckpointError: the model's scores are not numbers.
    """
    compared = task.asked.protocol.compared
    scores: list[list[float]] = []
    for some in _some(task.questions):
        pairs = [(question.part_a, row) for question in some for row in question.rows]
        values = iter(row_logprobs(lm, pairs, advance))
        for question in some:
            sums = [math.fsum(next(values)) for _ in question.rows]
            if compared == "byte":
                sums = [
                    value / row.num_bytes for value, row in zip(sums, question.rows, strict=True)
                ]
            scores.append(sums)
    return scores


def row_logprobs(
    lm: LanguageModel, rows: Sequence[tuple[Int32, ScoredRow]],
    advance: Callable[[int], None] | None = None,
) -> list[list[float]]:  # fmt: skip
    """Give the log-probability of every token that counts, row by row.

    Args:
        lm: the model.
        rows: Part A and what stands behind it; equal Parts A are encoded once.
        advance: called with the number of rows that were just scored.
    """
    found = known_logprobs(lm, row_writings(lm, rows), advance)
    return [values[row.first :] for values, (_, row) in zip(found, rows, strict=True)]


def row_writings(lm: LanguageModel, rows: Sequence[tuple[Int32, ScoredRow]]) -> list[Writing]:
    """Give rows as the engine takes them; equal Parts A are one."""
    prompts: dict[bytes, Prompt] = {}
    writings: list[Writing] = []
    for part_a, row in rows:
        key = np.ascontiguousarray(part_a).tobytes()
        if key not in prompts:
            prompts[key] = build_prompt(part_a, lm.ids, sentinel_position=lm.sentinel_position)
        tokens = row.tokens.tolist()
        # What is not to end is read as if the blank were full with its last token.
        writings.append(
            Writing(
                prompt=prompts[key], scheme=lm.scheme, enders=(lm.ids.eop, lm.ids.eos), order=(0,),
                limit=len(tokens) - (not row.ends),
                forced=[[*tokens, lm.ids.eop] if row.ends else tokens],
            )
        )  # fmt: skip
    return writings


def write_answers(
    lm: LanguageModel, task: EncodedTask, advance: Callable[[int], None] | None = None
) -> list[str]:
    """Have the model write its answers, greedily.

    Args:
        lm: the model.
        task: questions without candidates.
        advance: called with the number of questions that were just answered.
    """
    read = [q.rows[0].tokens.tolist() if q.rows else [] for q in task.questions]
    longest = task.asked.task.max_new_tokens + max(map(len, read), default=0)
    filled = fill_tokens(
        lm, [q.part_a for q in task.questions], max_new_tokens=longest,
        forced=[[tokens] for tokens in read], advance=advance,
    )  # fmt: skip
    most = task.asked.task.max_new_tokens
    return [
        lm.tokenizer.decode(text.blanks[0].tokens[len(tokens) : len(tokens) + most])
        for text, tokens in zip(filled, read, strict=True)
    ]


def measure_texts(
    lm: LanguageModel, task: EncodedTask, advance: Callable[[int], None] | None = None
) -> list[TextScore | str]:
    """Give the probability of each text, every token once; why, where one has none.

    Args:
        lm: the model.
        task: texts.
        advance: called with the number of texts that were just measured.
    """
    one_way = task.asked.protocol.sees == "one-way"
    found: list[TextScore | str] = []
    for question in task.asked.questions:
        try:
            mode = "one-way" if one_way else "bidirectional"
            found.append(score_text(lm, question.before, mode=mode))
        except RequestError as error:
            found.append(str(error))
        if advance is not None:
            advance(1)
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What a model is given to read before a candidate."""

    left: Int32
    """`[n]` text before the blank."""
    right: Int32
    """`[n]` text after it, where that is read."""
    in_blank: bool
    """Whether the candidate stands in a `[MASK]`, not behind `[gMASK]`."""
    one_way: bool
    """Whether the text is read from left to right, behind Part A."""


class Frames:
    """How a tokenizer's models are prompted: the tokens around a text with one blank.

    Args:
        tokenizer: our own, or a published vocabulary.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.tokenizer = tokenizer
        self._known: dict[tuple[bool, bool], tuple[Int32, Int32]] = {}

    def around(self, *, document: bool, at_end: bool) -> tuple[Int32, Int32]:
        """Give what stands before the text, and the blank or what stands after the text.

        Args:
            document: whether the blank is one of a document, `[gMASK]`, where the models know it.
            at_end: whether nothing follows the blank.

        Returns:
            Opening tokens, and the mask token with the closing ones.
        """
        key = (document, at_end)
        if key not in self._known:
            self._known[key] = self._find(document, at_end)
        return self._known[key]

    def _find(self, document: bool, at_end: bool) -> tuple[Int32, Int32]:
        ids = self.tokenizer.ids
        mark, mask = (DISPLAY["gmask"], ids.gmask) if document else (DISPLAY["mask"], ids.mask)
        try:
            tokens = self.tokenizer.encode_with_blanks(mark)
        except DataError:  # its models never saw this blank
            return self._find(False, at_end)
        place = int(np.flatnonzero(tokens == mask)[0])
        closing = tokens[place + 1 :]
        if not at_end:  # a text that ends in a blank may be left open, no other is
            whole = self.tokenizer.encode_with_blanks(mark + "a")
            plain = self.tokenizer.encode("a")
            closing = whole[place + 1 + len(plain) :]
        return tokens[:place], np.concatenate([tokens[place : place + 1], closing])


def _encode(
    question: Question, before: str, asked: AskedTask, frames: Frames, row_length: int
) -> EncodedQuestion:  # fmt: skip
    """Encode one question.

    Raises:
        BadItemError: a candidate has no room in a row, or no tokens.
    """
    encode, protocol = frames.tokenizer.encode, asked.protocol
    after, candidates = question.after, question.candidates
    is_whole = not before.strip() and not after.strip()
    if is_whole and protocol.sees == "both sides" and candidates:
        before, candidates, after = _where_they_differ(candidates)
        is_whole = not before and not after
    in_blank = protocol.sees == "both sides" and not is_whole
    texts = candidates if in_blank else tuple(each + after for each in candidates)
    spans = [encode(text) for text in texts]
    if any(not len(span) for span in spans):
        raise BadItemError("the run's tokenizer has no token for a candidate of it")
    ends = in_blank and protocol.compared == "whole"
    longest = max(map(len, spans)) if spans else asked.task.max_new_tokens
    row = Row(
        left=encode(before), right=encode(after) if in_blank else encode(""), in_blank=in_blank,
        one_way=protocol.sees == "one-way",
    )  # fmt: skip
    part_a, context, shortened = lay_out(row, longest, frames, row_length)
    rows = tuple(
        ScoredRow(
            tokens=np.concatenate([context, span]).astype(np.int32), first=len(context), ends=ends,
            num_bytes=len(text.encode()),
        )
        for span, text in zip(spans, texts, strict=True)
    )  # fmt: skip
    if not candidates and row.one_way:
        rows = (ScoredRow(tokens=context),)
    return EncodedQuestion(part_a=part_a, rows=rows, shortened=shortened)


def lay_out(row: Row, longest: int, frames: Frames, row_length: int) -> tuple[Int32, Int32, bool]:
    """Lay out what is read before a candidate, what is furthest from the blank left away.

    Args:
        row: what there is to read.
        longest: tokens of the longest candidate.
        frames: of the model's tokenizer.
        row_length: positions of the model's rows.

    Returns:
        Part A, what stands behind it before the candidate, and whether anything was left away.

    Raises:
        BadItemError: the candidate has no room in a row.
    """
    left, right = row.left, row.right
    opening, blank = frames.around(document=not row.in_blank, at_end=not len(right))
    room = row_length - len(opening) - len(blank) - longest - 1
    if room < 0:
        raise BadItemError(
            f"what stands in its blank takes up to {longest:,} tokens, too many for rows of "
            f"{row_length:,} positions (train.row_length)"
        )
    num_left, num_right = shares_of(len(left), len(right), room)
    shortened = num_left < len(left) or num_right < len(right)
    left, right = left[len(left) - num_left :], right[:num_right]
    context, left = (left, left[:0]) if row.one_way else (left[:0], left)
    part_a = np.concatenate([opening, left, blank[:1], right, blank[1:]])
    return part_a.astype(np.int32), context, shortened


def _where_they_differ(candidates: Sequence[str]) -> tuple[str, tuple[str, ...], str]:
    """Cut what all candidates begin and end with from them; something is left of each."""
    units = [_UNIT.findall(text) for text in candidates]
    fewest = min(map(len, units)) - 1
    start = _alike(units, fewest)
    end = _alike([each[::-1] for each in units], fewest - start)
    before = "".join(units[0][:start])
    after = "".join(units[0][len(units[0]) - end :])
    return before, tuple("".join(each[start : len(each) - end]) for each in units), after


def _alike(units: Sequence[Sequence[str]], most: int) -> int:
    """Count the units that all begin with."""
    count = 0
    while count < most and len({each[count] for each in units}) == 1:
        count += 1
    return count


def _some(questions: Sequence[EncodedQuestion]) -> Iterator[list[EncodedQuestion]]:
    """Give questions in groups of a bounded number of candidates."""
    group: list[EncodedQuestion] = []
    size = 0
    for question in questions:
        if group and size + len(question.rows) > ROWS_AT_A_TIME:
            yield group
            group, size = [], 0
        group.append(question)
        size += len(question.rows)
    if group:
        yield group
