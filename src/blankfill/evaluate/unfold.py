"""From a line of a file to its items: passages with several questions, fields put together.

Each function takes a line, its number and all lines of the file, and gives records that a wording
can be filled with. What a line does not hold as it should raises `BadItemError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import cast

from blankfill.evaluate.task import BadItemError, Record
from blankfill.rng import generator

__all__ = [
    "abstract_and_keywords",
    "blanks_of_article",
    "cause_or_effect",
    "choice_questions",
    "exam_blanks",
    "exam_letters",
    "numbered_blanks",
    "pretokenized",
    "pronoun",
    "qa_of_passage",
    "saying",
    "split_at_idiom",
    "words_of_passage",
]

LETTERS = "ABCD"
NUM_OTHERS = 3
"""Other answers that a saying's own one stands among."""
_HIDDEN = "XXXXX"
_IDIOM = "#idiom#"
_BLANK = re.compile(r"\[[sg]?MASK\]")
_WORD = re.compile(r"\w")
_DOT = r"[.\uff0e\u3001]"
_EXAM_OPTIONS = re.compile(
    rf"(\d{{1,3}})\s*{_DOT}?"
    # The dot after a letter may be lost; then spaces set the letter apart.
    + "".join(rf"(?:\s*{letter}\s*{_DOT}\s*|\s+{letter}\s+)(.*?)" for letter in LETTERS)
    + rf"\s*(?=\n|\d{{1,3}}\s*{_DOT}|$)",
    re.DOTALL,
)
_NAMED_BLANK = re.compile(r"\[BLANK(\d+)\]")


def cause_or_effect(line: Record, number: int, lines: Sequence[Record]) -> Iterator[Record]:
    """COPA: how the premise goes on, and the alternatives as the end of a sentence."""
    joint = {"cause": "because", "effect": "so"}.get(_text(line, "question"))
    if joint is None:
        raise BadItemError("its field 'question' is neither cause nor effect")
    premise = _text(line, "premise").rstrip(". ")
    alternatives = {
        name: text[0].lower() + text[1:].rstrip(". ")
        for name in ("choice1", "choice2")
        if (text := _text(line, name))
    }
    yield {**line, **alternatives, "premise": premise, "joint": joint}


def blanks_of_article(line: Record, number: int, lines: Sequence[Record]) -> Iterator[Record]:
    """CLOTH: each `_` of an article in turn, the others filled with their right words."""
    parts = _text(line, "article").split("_")
    options = [[str(word) for word in _list(each, "options")] for each in _list(line, "options")]
    answers = [str(letter) for letter in _list(line, "answers")]
    yield from _each_blank(parts, options, answers)


def exam_blanks(line: Record, number: int, lines: Sequence[Record]) -> Iterator[Record]:
    """GAOKAO's English cloze: numbered blanks in a passage, their options in a list after it."""
    text = re.sub(r"[ \u3000\t_]+", " ", _text(line, "question"))
    found = list(_EXAM_OPTIONS.finditer(text))
    answers = [str(letter) for letter in _list(line, "answer")]
    if len(found) != len(answers):
        raise BadItemError(f"{len(found)} lists of options can be told in it, for {len(answers)} "
                           "answers")  # fmt: skip
    passage = text[: found[0].start()]
    _, _, passage = passage.partition("\n")
    passage = " ".join(passage.split())
    parts: list[str] = []
    for match in found:
        at = re.search(rf"(?<!\d){match[1]}(?!\d)", passage)
        if at is None:
            raise BadItemError(f"its blank {match[1]} cannot be told in the passage")
        parts.append(passage[: at.start()])
        passage = passage[at.end() :]
    options = [
        [" ".join(match[k].split()).strip(" .\uff0e") for k in range(2, 6)] for match in found
    ]
    yield from _each_blank([*parts, passage], options, answers)


def exam_letters(line: Record, number: int, lines: Sequence[Record]) -> Iterator[Record]:
    """GAOKAO's choices: the whole question, which of its parts is asked for, and the letter."""
    answers = [str(letter) for letter in _list(line, "answer")]
    question = _text(line, "question").strip()
    for k, answer in enumerate(answers):
        part = f"\u7b2c{k + 1}\u9898" if len(answers) > 1 else ""
        yield {**line, "question": question, "part": part, "answer": answer}


def qa_of_passage(line: Record, number: int, lines: Sequence[Record]) -> Iterator[Record]:
    """SQuAD's layout: a passage with questions, each with its right answers."""
    for each in _list(line, "qas"):
        if not isinstance(each, dict):
            raise BadItemError("its field 'qas' holds something else than questions")
        record = cast("Record", each)
        answers = [_text(answer, "text") for answer in _list(record, "answers")]
        yield {"context": _text(line, "context"), "question": _text(record, "question"),
               "answers": list(dict.fromkeys(answers))}  # fmt: skip


def choice_questions(line: Record, number: int, lines: Sequence[Record]) -> Iterator[Record]:
    """C3: a text or dialogue with questions, each with its candidates."""
    document = "\n".join(str(part) for part in _list(line, "document"))
    for each in _list(line, "questions"):
        if not isinstance(each, dict):
            raise BadItemError("its field 'questions' holds something else than questions")
        yield {"document": document, **cast("Record", each)}


def words_of_passage(line: Record, number: int, lines: Sequence[Record]) -> Iterator[Record]:
    """CMRC 2017, CFT: a word is asked for; the candidates are the words of the passage.

    The passage is cut into words by spaces, which are taken out. Where the query is a sentence of
    the passage the blank stands there; else the query comes after it.
    """
    sentences = [str(each) for each in _list(line, "sentences")]
    query, answer = _text(line, "query"), _text(line, "answer")
    words = dict.fromkeys(
        word for sentence in sentences for word in sentence.split() if _WORD.search(word)
    )
    words.pop(_HIDDEN, None)
    text = "".join("".join(sentences).split())
    query = "".join(query.split())
    place = text if _HIDDEN in text else query
    before, _, after = place.partition(_HIDDEN)
    # A word that is hidden in two places is read in one of them alone.
    after = after.replace(_HIDDEN, answer)
    before = before if _HIDDEN in text else f"{text}\n{before}"
    yield {
        "before": before, "after": after, "passage": text, "query": query, "words": list(words),
        "answer": answer,
    }  # fmt: skip


def numbered_blanks(line: Record, number: int, lines: Sequence[Record]) -> Iterator[Record]:
    """CMRC 2019: sentences for the blanks of a passage, the others filled with their right ones."""
    choices = [str(each) for each in _list(line, "choices")]
    answers = _list(line, "answers")
    parts = _NAMED_BLANK.split(_text(line, "context"))
    if parts[1::2] != [str(k + 1) for k in range(len(answers))]:
        raise BadItemError("its blanks are not numbered as its answers are")
    if not all(isinstance(k, int) and 0 <= k < len(choices) for k in answers):
        raise BadItemError("an answer of it is none of its choices")
    right = [cast("int", k) for k in answers]
    texts, filled = parts[::2], [choices[k] for k in right]
    for k, answer in enumerate(right):
        before, after = _around(texts, filled, k)
        yield {"before": before, "after": after, "options": choices, "answer": answer}


def split_at_idiom(line: Record, number: int, lines: Sequence[Record]) -> Iterator[Record]:
    """ChID: a text with one `#idiom#`."""
    before, mark, after = _text(line, "content").partition(_IDIOM)
    if not mark or _IDIOM in after:
        raise BadItemError(f"its field 'content' has not one {_IDIOM}")
    yield {**line, "before": before, "after": after}


def pronoun(line: Record, number: int, lines: Sequence[Record]) -> Iterator[Record]:
    """CLUEWSC: a text, a pronoun in it, and what it may stand for."""
    target = line.get("target")
    if not isinstance(target, dict):
        raise BadItemError("it has no field 'target'")
    spans = cast("Record", target)
    yield {**line, "noun": _text(spans, "span1_text"), "pronoun": _text(spans, "span2_text")}


def abstract_and_keywords(line: Record, number: int, lines: Sequence[Record]) -> Iterator[Record]:
    """CSL: an abstract, and keywords that are all its own or not."""
    words = [str(word) for word in _list(line, "keyword")]
    yield {**line, "keywords": "\u3001".join(words), "keywords_en": ", ".join(words)}


def saying(line: Record, number: int, lines: Sequence[Record]) -> Iterator[Record]:
    """Two-part sayings: the second half among those of other ones, always the same."""
    own = _text(line, "answer").split("\uff1b")[0]
    draws = generator(0, "sayings", number)
    places = draws.integers(0, len(lines), 10 * NUM_OTHERS).tolist()
    drawn = (str(lines[place].get("answer", "")).split("\uff1b")[0] for place in places)
    options = [other for other in dict.fromkeys(drawn) if other and other != own][:NUM_OTHERS]
    options.insert(int(draws.integers(0, len(options) + 1)), own)
    yield {"riddle": _text(line, "riddle"), "options": options, "answer": own}


def pretokenized(line: Record, number: int, lines: Sequence[Record]) -> Iterator[Record]:
    """GLM-130B's format: a text whose blank, where it has none, comes at its end."""
    before, mark, after = _text(line, "inputs_pretokenized"), "", ""
    if found := _BLANK.search(before):
        before, mark, after = before[: found.start()], found[0], before[found.end() :]
    if mark and _BLANK.search(after):
        raise BadItemError("it has more than one blank")
    yield {**line, "before": before, "after": after}


def _each_blank(
    parts: Sequence[str], options: Sequence[Sequence[str]], answers: Sequence[str]
) -> Iterator[Record]:
    """Ask for each blank of a text in turn; answers are letters."""
    if not len(parts) - 1 == len(options) == len(answers):
        raise BadItemError(f"it has {len(parts) - 1} blanks, {len(options)} lists of options and "
                           f"{len(answers)} answers")  # fmt: skip
    places = [LETTERS.find(answer) for answer in answers]
    if any(not 0 <= place < len(of) for place, of in zip(places, options, strict=True)):
        raise BadItemError("an answer of it is the letter of no option")
    filled = [of[place] for place, of in zip(places, options, strict=True)]
    for k, place in enumerate(places):
        before, after = _around(parts, filled, k)
        yield {"before": before, "after": after, "options": list(options[k]), "answer": place}


def _around(parts: Sequence[str], filled: Sequence[str], k: int) -> tuple[str, str]:
    """Give the text on either side of blank k, the other blanks filled."""
    before = "".join(part + word for part, word in zip(parts[:k], filled, strict=False)) + parts[k]
    after = parts[k + 1] + "".join(
        word + part for word, part in zip(filled[k + 1 :], parts[k + 2 :], strict=True)
    )
    return before, after


def _text(record: object, name: str) -> str:
    value = cast("Record", record).get(name) if isinstance(record, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise BadItemError(f"it has no text in its field {name!r}")
    return value


def _list(record: object, name: str) -> list[object]:
    value = cast("Record", record).get(name) if isinstance(record, dict) else record
    if not isinstance(value, list) or not value:
        raise BadItemError(f"it has no list in its field {name!r}")
    return cast("list[object]", value)
