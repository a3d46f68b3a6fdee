"""Which language a document is in, by its script.

Counted, not guessed by a model: Chinese is written in Han characters, English in Latin letters. A
Latin letter is worth a third of a Han character, because that is how many bytes of UTF-8 each
takes. So French counts as `en`; Japanese is distinguished from Chinese by its kana.
"""

from __future__ import annotations

import re

__all__ = ["LANGUAGES", "language_code"]

LANGUAGES = ("other", "en", "zh")
"""The languages that blankfill counts separately; a document's code is an index into it."""

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")
_KANA = re.compile("[\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f]")
_LETTER = re.compile(r"[^\W\d_]")

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
    sample = text[:_SAMPLE_CHARACTERS]
    han = len(_HAN.findall(sample))
    kana = len(_KANA.findall(sample))
    latin = len(_LATIN.findall(sample))
    # Han characters, kana and Latin letters are letters too: what is left is another script.
    other = len(_LETTER.findall(sample)) - han - kana - latin
    if kana > _KANA_SHARE * (han + kana):
        other, han = other + han + kana, 0
    if han and _HAN_WORTH * han >= max(latin, other):
        return 2
    if latin and latin >= other:
        return 1
    return 0
