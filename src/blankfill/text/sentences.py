"""Where sentences end, in Chinese and English.

A sentence ends after a stop and the closing quotes and brackets that follow it, or after a line
break. A full stop in a decimal, an abbreviation, an initial or an address ends no sentence. Nor
does a stop that is followed by lower case or a comma (`"Stop!" he said.`). The space between two
sentences belongs to the second, because a tokenizer's pieces begin with their space.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from blankfill.text.characters import word_spans
from blankfill.text.tokenizer import TextTokenizer, Tokenizer, WordTokenizer

__all__ = ["sentence_ends", "sentence_tokens"]

_CLOSERS = "”’\"'）)】」』》〉］]}"
_STOP = re.compile(rf"([.。！？!?…；]+)([{re.escape(_CLOSERS)}]*)|\n\s*")
_WORD = re.compile(r"[A-Za-z](?:[A-Za-z]|\.(?=[A-Za-z]))*$")
_LONGEST_WORD = 24
_GLM_STOPS = frozenset(".?!;:。？！；：…\n\u010a")  # U+010A is a line break in byte-level BPE
_GOES_ON = frozenset("，、：,:;—")
_ABBREVIATIONS = frozenset(
    """
    adm approx apr art assoc aug ave bros capt ch chap cf co col comdr corp cpl dec dept dr eds
    eq esq est etc ex feb fig figs fr gen gov govt hon inc incl jan jr jul jun lat lieut lit lt
    ltd maj mar messrs mme mr mrs ms mt nov oct op pl pp pres prof ref rep rev sec sen sept sgt
    sq sr st ste tel transl univ viz vol vols vs a.d a.m b.c e.g i.e p.m ph.d u.k u.n u.s
    """.split()  # noqa: SIM905
)
"""What a full stop follows without ending a sentence, in lower case."""


def sentence_ends(text: str) -> list[int]:
    """Find where the sentences of a text end.

    Returns:
        Character offsets, ascending; the last is the text's length, none where it is empty. Cutting
        the text there loses nothing.
    """
    ends: list[int] = []
    for stop in _STOP.finditer(text):
        end = stop.end()
        if stop[1] and not _ends_here(text, stop[1], stop.start(), end, bool(stop[2])):
            continue
        if not text[ends[-1] if ends else 0 : end].strip():
            # Spaces and line breaks alone are no sentence; they stay with the one before.
            if ends:
                ends[-1] = end
            continue
        ends.append(end)
    if text and (not ends or ends[-1] != len(text)):
        if ends and not text[ends[-1] :].strip():
            ends[-1] = len(text)
        else:
            ends.append(len(text))
    return ends


def sentence_tokens(
    text: str, tokens: npt.NDArray[np.int32], tokenizer: TextTokenizer
) -> npt.NDArray[np.int64]:
    """Find the tokens after which the sentences of a text end.

    Args:
        text: the text.
        tokens: `[n]` its ids.
        tokenizer: made them.

    Returns:
        Ascending ends in tokens, the last of them n; the end of a sentence that lies inside of a
        token is left out.
    """
    if not isinstance(tokenizer, Tokenizer | WordTokenizer):
        return _ends_after_stops(tokens, tokenizer)
    ends = sentence_ends(text)
    if isinstance(tokenizer, Tokenizer):
        parts = [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]
        sizes, of_tokens = [len(part.encode()) for part in parts], tokenizer.byte_lengths[tokens]
    else:
        spans = np.array(word_spans(text), np.int64).reshape(-1, 2)
        # A sentence cannot end inside a word.
        begun = np.searchsorted(spans[:, 0], ends)
        whole = begun == np.searchsorted(spans[:, 1], ends, side="right")
        sizes = np.diff(begun[whole], prepend=0)
        of_tokens = np.ones(len(tokens), np.int64)
    wanted, have = np.cumsum(sizes, dtype=np.int64), np.cumsum(of_tokens)
    found = np.searchsorted(have, wanted)
    return np.unique(found[(wanted > 0) & (have[found] == wanted)]) + 1


def _ends_after_stops(
    tokens: npt.NDArray[np.int32], tokenizer: TextTokenizer
) -> npt.NDArray[np.int64]:
    """Find the ends in ids of a published vocabulary, which cannot be aligned with the text: after
    tokens that hold a stop, as GLM's own code does (`blocklm_utils.py`)."""
    kinds, places = np.unique(tokens, return_inverse=True)
    shown = [tokenizer.token(int(kind)) for kind in kinds]
    stops = np.array([token == "<n>" or bool(_GLM_STOPS & set(token)) for token in shown], np.bool_)
    ends = np.flatnonzero(stops[places]) + 1
    return np.unique(np.append(ends, len(tokens))) if len(tokens) else ends


def _ends_here(text: str, stops: str, start: int, end: int, closed: bool) -> bool:
    """Tell whether the stops that stand at `start:end`, closers included, end a sentence."""
    following = text[end : end + 1]
    next_visible = text[end : end + 40].lstrip(" \t\u3000")[:1]
    if next_visible in _GOES_ON and next_visible:
        return False
    if next_visible.islower():
        return False
    if stops[-1] != ".":
        return True
    if following and not closed and not following.isspace() and following.isascii():
        return False  # 3.14, example.org, U.S.A
    if len(stops) > 1:
        return True
    word = _WORD.search(text, max(0, start - _LONGEST_WORD), start)
    if word is None:
        # The number of a list's item or of a heading ("1. ") opens a sentence.
        line = text[max(0, start - 4) : start].rpartition("\n")
        return not (line[2].strip().isdigit() and (line[1] or start <= len(line[2])))
    name = word[0]
    if len(name) == 1 and name.isupper() and name != "I":
        return False
    return name.lower() not in _ABBREVIATIONS or (not next_visible)
