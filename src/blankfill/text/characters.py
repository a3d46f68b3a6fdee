"""What a reader takes for one character, and for one word.

A character on the screen may be several code points: a letter and its accents, an emoji and its
skin, a family joined by U+200D, two letters that are a flag, a syllable of Hangul in parts. `joins`
says which code points belong together; it follows the extended grapheme clusters of Unicode
(UAX 29), of whose rules it leaves out only those for scripts with prepended marks.

A word is what stands between white space, the punctuation at its ends apart; Chinese and Japanese,
which have no spaces, have a word for each character.
"""

from __future__ import annotations

import itertools
import re
import unicodedata

__all__ = ["is_dense", "joins", "last_character", "reading_words", "visible", "word_spans"]

# Scripts that put no blanks between words: Han, kana, and their punctuation, wide forms included.
_DENSE_RANGES = (
    "\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef"
    "\U00020000-\U0003ffff"
)
_DENSE = re.compile(f"[{_DENSE_RANGES}]")
_WORD = re.compile(f"[^\\s{_DENSE_RANGES}]+|(?!\\s){_DENSE.pattern}")

_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the direction of what follows."""
_JOINER = "\u200d"
_FLAG_LETTERS = range(0x1F1E6, 0x1F200)
_SKINS = range(0x1F3FB, 0x1F400)
_TAGS = range(0xE0020, 0xE0080)
_LEADING, _VOWELS, _TRAILING = range(0x1100, 0x1160), range(0x1160, 0x11A8), range(0x11A8, 0x1200)
_SYLLABLES = range(0xAC00, 0xD7A4)
_WITH_TRAILING = 28
"""Syllables of Hangul with the same leading consonant and vowel; the first has no trailing one."""


def joins(before: str, character: str) -> bool:
    """Tell whether a code point belongs to the character that ends just before it.

    Args:
        before: what stands before, at least a few code points of it.
        character: the next code point.
    """
    if not before:
        return False
    left, code = before[-1], ord(character)
    if left == "\r" and character == "\n":
        return True
    if unicodedata.category(left) in ("Cc", "Zl", "Zp"):
        return False
    if unicodedata.category(character) in ("Mn", "Me", "Mc") or character == _JOINER:
        return True
    if code in _SKINS or code in _TAGS:
        return True
    if left == _JOINER:
        return unicodedata.category(character) == "So"
    if code in _FLAG_LETTERS:
        letters = itertools.takewhile(lambda each: ord(each) in _FLAG_LETTERS, reversed(before))
        return sum(1 for _ in letters) % 2 == 1
    return _continues_syllable(ord(left), code)


def word_spans(text: str) -> list[tuple[int, int]]:
    """Find where the words of a text start and end, white space between them."""
    return [found.span() for found in _WORD.finditer(text)]


def is_dense(character: str) -> bool:
    """Tell whether a character is of a script that puts no blanks between words."""
    return bool(_DENSE.match(character))


def last_character(text: str) -> int:
    """Give where the last character of a text begins; 0 of an empty one."""
    start = len(text) - 1
    while start > 0 and joins(text[:start], text[start]):
        start -= 1
    return max(start, 0)


def reading_words(text: str) -> list[tuple[int, int]]:
    """Find the words of a text, and its punctuation, as `(start, end)`; white space is neither.

    No character is cut.
    """
    spans = [part for start, end in word_spans(text) for part in _parts(text, start, end)]
    whole: list[tuple[int, int]] = []
    for start, end in spans:
        if whole and whole[-1][1] == start and joins(text[max(0, start - 16) : start], text[start]):
            whole[-1] = (whole[-1][0], end)
        else:
            whole.append((start, end))
    return whole


def visible(text: str) -> str:
    """Show characters that would act where they are printed, or that are none, as their escapes."""
    return "".join(
        character if character in "\n\t" or not _acts(character) else ascii(character)[1:-1]
        for character in text
    )


def _acts(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs") or character in _TURNING


def _parts(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Part what stands between spaces into the punctuation before it, itself, and that after."""
    first, last = start, end
    while first < end and unicodedata.category(text[first])[0] == "P":
        first += 1
    while last > first and unicodedata.category(text[last - 1])[0] == "P":
        last -= 1
    return [(a, b) for a, b in ((start, first), (first, last), (last, end)) if a < b]


def _continues_syllable(left: int, code: int) -> bool:
    """Tell whether a part of a Hangul syllable goes on with the one before."""
    open_syllable = left in _SYLLABLES and (left - _SYLLABLES.start) % _WITH_TRAILING == 0
    if left in _LEADING:
        return code in _LEADING or code in _VOWELS or code in _SYLLABLES
    if left in _VOWELS or open_syllable:
        return code in _VOWELS or code in _TRAILING
    return (left in _TRAILING or left in _SYLLABLES) and code in _TRAILING
