"""Which language a document is in, by its script.

Counted, not guessed by a model: Chinese is written in Han characters, English in Latin letters. A
Latin letter is worth a third of a Han character, because that is how many bytes of UTF-8 each
takes. So French counts as `en`; Japanese is distinguished from Chinese by its kana.
"""

from __future__ import annotations

import re

import numpy as np

__all__ = ["LANGUAGES", "language_code"]

LANGUAGES = ("other", "en", "zh")
"""The languages that blankfill counts separately; a document's code is an index into it."""

# In the order of the numbers in `_KINDS`, from 2. Han characters, kana and Latin letters are
# letters too, so the first that fits is it.
_SCRIPTS = (
    re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"),
    re.compile("[\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f]"),
    re.compile("[A-Za-z\u00c0-\u024f]"),
    re.compile(r"[^\W\d_]"),
)
_KINDS = np.zeros(0x110000, np.uint8)
"""Of each code point that was met: 1 no letter, 2 Han, 3 kana, 4 Latin, 5 another letter. A cache:
to fill all of it would take longer than most programs read."""

_SAMPLE_CHARACTERS = 8192  # enough to tell a script; whole books need not be counted
_HAN_WORTH = 3  # bytes of UTF-8 in a Han character; a Latin letter takes one
_KANA_SHARE = 0.3  # Japanese prose has half; Chinese about Japan has up to a fifth in its names


def language_code(text: str) -> int:
    """Tell the language of a text by its script.

    Args:
        text: the document; its first 8,192 characters decide.

    Returns:
        An index into `LANGUAGES`; 0 where neither Han nor Latin letters prevail.
    """
    # Surrogates are no letters, as all that has no kind.
    points = np.frombuffer(text[:_SAMPLE_CHARACTERS].encode("utf-32-le", "surrogatepass"), "<u4")
    kinds = _KINDS[points]
    if not kinds.all():
        for point in np.unique(points[kinds == 0]).tolist():
            _KINDS[point] = _kind(chr(point))
        kinds = _KINDS[points]
    _, _, han, kana, latin, other = np.bincount(kinds, minlength=6).tolist()
    if kana > _KANA_SHARE * (han + kana):
        other, han = other + han + kana, 0
    if han and _HAN_WORTH * han >= max(latin, other):
        return 2
    if latin and latin >= other:
        return 1
    return 0


def _kind(character: str) -> int:
    return next((kind for kind, script in enumerate(_SCRIPTS, 2) if script.match(character)), 1)
