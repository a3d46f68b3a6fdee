"""Right or wrong: written answers beside the right ones, as SQuAD judges them.

English is compared in small letters, without punctuation, articles and runs of space; Chinese
character by character, without punctuation and space (CMRC 2018's own script does so). F1 is over
words, or characters; of several right answers the best counts.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

__all__ = ["f1_score", "first_word", "is_exact", "units"]

_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]|[^\s\u3400-\u9fff\uf900-\ufaff]+")
_FIRST = re.compile(r"\w+(?:['\u2019\-]\w+)*")


def units(text: str, language: str) -> list[str]:
    """Give the words of an answer, of Chinese the characters, as they are compared."""
    plain = "".join(
        " " if unicodedata.category(character)[0] in "PSZC" else character
        for character in text.lower()
    )
    if language == "zh":
        return _HAN.findall(plain)
    joined = "".join(c for c in text.lower() if unicodedata.category(c)[0] not in "PS")
    return _ARTICLE.sub(" ", joined).split()


def is_exact(answer: str, right: Sequence[str], language: str) -> bool:
    """Tell whether an answer is one of the right ones."""
    own = units(answer, language)
    return any(units(each, language) == own for each in right)


def f1_score(answer: str, right: Sequence[str], language: str) -> float:
    """Give the overlap of an answer with the right one that is most like it."""
    own = Counter(units(answer, language))
    best = 0.0
    for each in right:
        other = Counter(units(each, language))
        shared = sum((own & other).values())
        if not own or not other:
            best = max(best, float(own == other))
        elif shared:
            precision, recall = shared / sum(own.values()), shared / sum(other.values())
            best = max(best, 2 * precision * recall / (precision + recall))
    return best


def first_word(answer: str) -> str:
    """Give the first word of what was written, in small letters; "" where it has none."""
    found = _FIRST.search(answer)
    return found[0].lower() if found else ""
