"""The law by which the blanks of every evaluation are drawn, whatever the run that is evaluated.

It reads text alone: characters, not tokens; no objective, no row, no order of the documents. So two
runs of different tokenizers, objectives and rows are asked the very same. Version 1, for each
held-out document, of which the first 1,048,576 characters are read and equal ones count once:

1. A document is known by the SHA-256 of its text in UTF-8, in hexadecimal. It is cut into stretches
   of 256 characters.
2. For each stretch, the SHA-256 of `SEED/DOCUMENT/NUMBER` (the number of the stretch, from 0) gives
   three whole numbers: its first three groups of eight bytes, big-endian.
3. A word is a run of characters without white space and punctuation (apostrophes and hyphens inside
   of it belong to it); of Chinese and Japanese, each character is one. A word that touches an edge
   of its stretch, where the text goes on beyond it, is passed over.
4. The blank of a stretch has `1 + third % 6` words that follow each other on one line; fewer where
   the stretch has no such place, and never all of its words. Where an edge lies between two
   characters of Chinese or Japanese, it has to be one to cut at (`cuts.py`). Of the places that
   there are for so many words it takes number `second % places`. One space before its first word
   belongs to it.
5. The stretches of a language that have a blank are put in the order of their first number, and as
   many as are wanted are taken from the front: fewer blanks are the first of more.

A blank is shown with 256 characters of its document on either side (in Chinese 96), less the word
that the window's edge would cut.
"""

from __future__ import annotations

import hashlib
import heapq
import re
import string
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from blankfill.evaluate.cuts import LETTER_RANGES, Cuts
from blankfill.runs.evaluation import BlankLaw

__all__ = ["MAX_CHARACTERS", "Blank", "BlankSet", "draw_blanks"]

NAME, VERSION = "words", 1
STRETCH = 256
"""Characters that have one blank at most."""
MAX_WORDS = 6
"""Most words of a blank."""
WINDOW = {"other": 256, "en": 256, "zh": 96}
"""Characters of text on either side of a blank: with any tokenizer that has pieces for most of
their words, they fit into the 256 positions of the shortest preset's rows."""
MAX_CHARACTERS = 1 << 20
"""Characters of a document that are read: a long novel's, which bounds memory."""

_LETTERS = "".join(f"{chr(first)}-{chr(last)}" for first, last in LETTER_RANGES)
"""Characters of Chinese and Japanese that are words of their own."""
_MARKS = (
    re.escape(string.punctuation)
    + "\u00a1-\u00bf\u00d7\u00f7\u2010-\u206f\u2190-\u23ff\u2500-\u27bf"
    "\u2e00-\u2e7f\u3000-\u303f\u30a0\u30fb\ufe30-\ufe6f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40"
    "\uff5b-\uff65"
)  # fmt: skip
"""Punctuation, symbols and brackets."""
_PLAIN = rf"[^\s{_LETTERS}{_MARKS}]"
_WORD = re.compile(rf"[{_LETTERS}][\ufe00-\ufe0f]?|{_PLAIN}+(?:['\u2019\-]{_PLAIN}+)*")
_IN_WORD = re.compile(_PLAIN)
_CUT_START, _CUT_END = re.compile(rf"{_PLAIN}+"), re.compile(rf"{_PLAIN}+\Z")
_LETTER = re.compile(f"[{_LETTERS}]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Blank:
    """One blank of one held-out document."""

    language: str
    """Language of the document."""
    document: str
    """SHA-256 of its text."""
    start: int
    """First character of the blank, in the document."""
    num_words: int
    """Words in the blank."""
    before: str
    """Text on its left."""
    text: str
    """What was cut out."""
    after: str
    """Text on its right."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlankSet:
    """The blanks of an evaluation."""

    law: BlankLaw
    """What says which they are."""
    by_language: dict[str, list[Blank]]
    """Of each language that has any, in the law's order."""
    num_documents: dict[str, int]
    """Documents that were read, by language; equal ones counted once."""


_Chosen = tuple[int, str, int, Blank]
"""A blank, after what it is ordered by: the negative of its number, document and stretch."""


def draw_blanks(texts: Mapping[str, Iterable[str]], *, max_blanks: int, seed: int = 0) -> BlankSet:
    """Draw the blanks of an evaluation.

    Memory holds the blanks that are kept, the pairs of characters of Chinese and Japanese, and a
    few documents.

    Args:
        texts: of each language the held-out documents in any order; they are gone through twice.
        max_blanks: most blanks of one language.
        seed: seed of the blanks.
    """
    kept: dict[str, list[_Chosen]] = {}
    known: dict[str, set[str]] = {}
    for language in sorted(texts):
        kept[language], known[language] = [], set()
        cuts = Cuts(text for text, _ in _distinct(texts[language], set()))
        for text, document in _distinct(texts[language], known[language]):
            _choose(text, document, language, kept[language], max_blanks, seed, cuts)
    found = {language: [one[-1] for one in sorted(of)[::-1]] for language, of in kept.items() if of}
    return BlankSet(
        law=BlankLaw(
            name=NAME, version=VERSION, seed=seed, max_blanks=max_blanks, max_words=MAX_WORDS,
            window_characters=WINDOW,
            text_fingerprint=_fingerprint(sorted(set().union(*known.values()))),
            blanks_fingerprint=_fingerprint(
                f"{language} {blank.document} {blank.start} {len(blank.text)}"
                for language, blanks in found.items() for blank in blanks
            ),
        ),
        by_language=found,
        num_documents={language: len(documents) for language, documents in known.items()},
    )  # fmt: skip


def _distinct(texts: Iterable[str], known: set[str]) -> Iterator[tuple[str, str]]:
    """Give what is read of each document, equal ones once, and what it is known by."""
    for whole in texts:
        text = whole[:MAX_CHARACTERS]
        document = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        if document not in known:
            known.add(document)
            yield text, document


def _choose(
    text: str, document: str, language: str, kept: list[_Chosen], limit: int, seed: int, cuts: Cuts
) -> None:
    """Put those blanks of a document among the kept ones that come before the last of these."""
    for number in range(-(-len(text) // STRETCH)):
        address = hashlib.sha256(f"{seed}/{document}/{number}".encode()).digest()
        order, place, length = (int.from_bytes(address[i : i + 8], "big") for i in (0, 8, 16))
        if len(kept) >= limit and -order <= kept[0][0]:
            continue
        found = _place(text, number, place, 1 + length % MAX_WORDS, cuts)
        if found is None:
            continue
        start, end, num_words = found
        before, after = _window(text, start, end, WINDOW[language])
        blank = Blank(
            language=language, document=document, start=start, num_words=num_words, before=before,
            text=text[start:end], after=after,
        )  # fmt: skip
        push = heapq.heappushpop if len(kept) >= limit else heapq.heappush
        push(kept, (-order, document, number, blank))


def _place(
    text: str, number: int, place: int, num_words: int, cuts: Cuts
) -> tuple[int, int, int] | None:
    """Find the blank of a stretch: its start, its end and its words; None where it has none."""
    first, last = number * STRETCH, min((number + 1) * STRETCH, len(text))
    words = [
        found.span()
        for found in _WORD.finditer(text[first:last])
        if _is_whole(found, first > 0, last < len(text), last - first)
    ]
    line = [text.count("\n", first, first + start) for start, _ in words]
    begins = [_can_cut(text, first + start, cuts) for start, _ in words]
    ends = [_can_cut(text, first + end, cuts) for _, end in words]
    for size in range(min(num_words, len(words) - 1), 0, -1):
        places = [
            i for i in range(len(words) - size + 1)
            if begins[i] and ends[i + size - 1] and line[i] == line[i + size - 1]
        ]  # fmt: skip
        if places:
            i = places[place % len(places)]
            start, end = first + words[i][0], first + words[i + size - 1][1]
            return start - (text[start - 1 : start] == " "), end, size
    return None


def _can_cut(text: str, at: int, cuts: Cuts) -> bool:
    return at in (0, len(text)) or cuts.between(text[at - 1], text[at])


def _is_whole(word: re.Match[str], goes_on_left: bool, goes_on_right: bool, size: int) -> bool:
    if _LETTER.match(word[0]):
        return True
    return not (word.start() == 0 and goes_on_left) and not (word.end() == size and goes_on_right)


def _window(text: str, start: int, end: int, size: int) -> tuple[str, str]:
    """Give the text on either side of a blank, without a word that the window's edge cuts."""
    first, last = max(0, start - size), min(len(text), end + size)
    before, after = text[first:start], text[end:last]
    if first and _IN_WORD.match(text, first - 1) and (cut := _CUT_START.match(before)):
        before = before[cut.end() :]
    if last < len(text) and _IN_WORD.match(text, last) and (cut := _CUT_END.search(after)):
        after = after[: cut.start()]
    return before, after


def _fingerprint(parts: Iterable[str]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode() + b"\n")
    return found.hexdigest()
