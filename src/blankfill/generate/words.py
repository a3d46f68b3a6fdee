"""Bounds about characters as one automaton over tokens: begin, end, required and forbidden words.

First the automaton is made over characters. Those that no bound names are alike, but for whether
they belong to a word, so it has few states. Then every token leads from every state to another one.
How many tokens a state is away from an end is counted over tokens as well, which is what makes sure
that a fill is never led to where it cannot be ended in time.

A word is whole where no letter or digit touches its first or last; characters of Chinese and
Japanese touch nothing. Characters that the vocabulary has no piece for are written in bytes; those
that no bound names count as no letters then. A character of a bound that has a piece is never
written in bytes.

Shapes: S states, C classes of characters, V ids, L characters of the longest piece.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from blankfill.errors import RequestError
from blankfill.generate.spelling import Spelling
from blankfill.text.characters import is_dense

__all__ = ["Automaton", "Phrases", "automaton_of"]

MOST_ENTRIES = 2**26
"""Most pairs of a state and a token: 256 MiB."""
MOST_STATES = 4_096
"""Most states of the automaton over characters."""
FAR = 2**20
"""Tokens to an end where there is none."""


class Phrases(NamedTuple):
    """What a fill has to hold, and what not."""

    begin: str = ""
    end: str = ""
    required: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    has_inside: bool = False
    """Whether a character stands between the beginning and the end."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Automaton:
    """Where each token leads."""

    following: npt.NDArray[np.int32]
    """`[S, V]` the next state; the last state is a dead end."""
    accepts: npt.NDArray[np.bool_]
    """`[S]` whether a fill may end."""
    distance: npt.NDArray[np.int32]
    """`[S]` least tokens to where it may end."""


class _Place(NamedTuple):
    """A state of the automaton over characters."""

    begun: int
    """Characters of the beginning that have been written, and one inside where there has to be."""
    tail: int
    """Characters of the end that have just been written."""
    after_word: bool
    """Whether the last character belongs to a word."""
    open: frozenset[tuple[int, int]]
    """Words that have begun: number and characters so far."""
    found: frozenset[int]
    """Required words that stand there."""


@functools.lru_cache(maxsize=32)
def automaton_of(spelling: Spelling, phrases: Phrases) -> Automaton:
    """Make the automaton of some bounds.

    Raises:
        RequestError: no fill can obey them, or they have too many states.
    """
    characters = sorted({*"".join([phrases.begin, phrases.end, *_words(phrases)])})
    table, accepts = _over_characters(phrases, characters)
    begun = _begun_characters(characters)
    num_states = len(table) * len(begun) + 1
    if num_states * len(spelling.texts) > MOST_ENTRIES:
        raise _too_many(phrases)
    following = _over_tokens(table, spelling, characters, begun)
    ends = np.zeros(num_states, np.bool_)
    ends[: len(table)] = accepts
    distance = _distances(following, ends)
    if distance[0] >= FAR:
        raise RequestError(
            "no fill can obey the bounds together: what it must begin or end with, or hold, holds "
            "a forbidden word; take one of them out"
        )
    return Automaton(following=following, accepts=ends, distance=distance)


def _words(phrases: Phrases) -> tuple[str, ...]:
    return (*phrases.required, *phrases.forbidden)


def _too_many(phrases: Phrases) -> RequestError:
    return RequestError(
        f"{len(_words(phrases))} required and forbidden words are too many for one fill; give "
        "fewer, or shorter ones"
    )


def _over_characters(
    phrases: Phrases, characters: Sequence[str]
) -> tuple[npt.NDArray[np.int32], list[bool]]:
    """Make the automaton over classes of characters: those that are named, then other letters and
    digits, then all else.

    Returns:
        `[S, C]` the next state, -1 where there is none; `[S]` whether a fill may end.
    """
    classes = [*characters, _other(characters, "x"), _other(characters, "-")]
    number = {_Place(0, 0, False, frozenset(), frozenset()): 0}
    places = list(number)
    rows: list[list[int]] = []
    for place in places:  # grows while it is gone through
        row: list[int] = []
        for character in classes:
            after = _step(place, character, phrases)
            if after is not None and after not in number:
                number[after] = len(places)
                places.append(after)
            row.append(-1 if after is None else number[after])
        rows.append(row)
        if len(places) > MOST_STATES:
            raise _too_many(phrases)
    return np.array(rows, np.int32), [_may_end(place, phrases) for place in places]


def _other(characters: Sequence[str], like: str) -> str:
    """Give a character that is not among some and of the same kind as one."""
    kind = _in_word(like)
    return next(
        c for c in map(chr, range(33, 2**16)) if c not in characters and _in_word(c) == kind
    )


def _in_word(character: str) -> bool:
    return character.isalnum() and not is_dense(character)


def _step(place: _Place, character: str, phrases: Phrases) -> _Place | None:
    """Write one more character; None where it may not come."""
    begun, tail = place.begun, place.tail
    if begun < len(phrases.begin):
        if character != phrases.begin[begun]:
            return None
        begun += 1
    elif phrases.has_inside and begun == len(phrases.begin):
        begun += 1
    else:
        tail = _tail(phrases.end, tail, character)
    words, num_required = _words(phrases), len(phrases.required)
    in_word = _in_word(character)
    still: set[tuple[int, int]] = set()
    found = set(place.found)

    def has_come(number: int) -> bool:
        """Note a word that has come; false of a forbidden one."""
        if number < num_required:
            found.add(number)
        return number < num_required

    begins = {
        (w, 0) for w, word in enumerate(words) if not (place.after_word and _in_word(word[0]))
    }
    for w, k in {*place.open, *begins}:
        word = words[w]
        if k == len(word):
            if not in_word and not has_come(w):
                return None
        elif character == word[k]:
            if k + 1 < len(word) or _in_word(word[-1]):
                still.add((w, k + 1))
            elif not has_come(w):
                return None
    still = {(w, k) for w, k in still if w not in found}
    return _Place(begun, tail, in_word, frozenset(still), frozenset(found))


def _tail(end: str, tail: int, character: str) -> int:
    """Give the longest beginning of `end` that the text ends with, one character further on."""
    if not end:
        return 0
    text = end[:tail] + character
    return next((k for k in range(min(len(text), len(end)), 0, -1) if text.endswith(end[:k])), 0)


def _may_end(place: _Place, phrases: Phrases) -> bool:
    words = _words(phrases)
    closed = {w for w, k in place.open if k == len(words[w])}
    if any(w >= len(phrases.required) for w in closed):
        return False
    all_found = len(place.found | closed) == len(phrases.required)
    is_begun = place.begun == len(phrases.begin) + phrases.has_inside
    return is_begun and place.tail == len(phrases.end) and all_found


def _begun_characters(characters: Sequence[str]) -> list[bytes | int]:
    """List where a fill may stand inside of a character that is written in bytes: nowhere, behind
    the first bytes of one that is named, or so many bytes before the end of another one."""
    named = {c.encode()[:k] for c in characters for k in range(1, len(c.encode()))}
    return [b"", *sorted(named), 1, 2, 3]


def _over_tokens(
    table: npt.NDArray[np.int32], spelling: Spelling, characters: Sequence[str],
    begun: Sequence[bytes | int],
) -> npt.NDArray[np.int32]:  # fmt: skip
    """Give where each token leads, `[S, V]`: for each of `begun` all states, then the dead end."""
    num_states = len(table)
    classes = _classes(spelling.codes, characters)  # [V, L]
    dead = num_states * len(begun)
    following = np.full((dead + 1, len(spelling.texts)), dead, np.int32)
    spelled = np.array([bool(text) for text in spelling.texts])
    for state in range(num_states):
        now = np.full(len(classes), state, np.int32)
        for column in classes.T:
            goes_on = (column >= 0) & (now >= 0)
            now[goes_on] = table[now[goes_on], column[goes_on]]
        following[state, spelled] = np.where(now >= 0, now, dead)[spelled]
    for place, part in enumerate(begun):
        rows = np.arange(num_states) + num_states * place
        for token, byte in spelling.bytes_of.items():
            after = _after_byte(part, byte, begun)
            if isinstance(after, int):
                following[rows, token] = np.arange(num_states) + num_states * after
            elif after is not None and not (after and spelling.is_whole(after)):
                column = table[:, _class_of(after, characters)]
                following[rows, token] = np.where(column >= 0, column, dead)
    return following


def _after_byte(part: bytes | int, byte: int, begun: Sequence[bytes | int]) -> int | str | None:
    """Say where one more byte leads: to a place of `begun`, or to the end of a character.

    Returns:
        The number of the place; or the character, nothing of one that no bound names; None where
        the byte may not come.
    """
    goes_on = 0x80 <= byte < 0xC0
    if part == b"":
        if byte < 0x80:
            return chr(byte)
        left = 1 if 0xC2 <= byte < 0xE0 else 2 if 0xE0 <= byte < 0xF0 else 3
        if goes_on or not 0xC2 <= byte < 0xF5:
            return None
    elif not goes_on:
        return None
    elif isinstance(part, int):
        left = part - 1
    else:
        left = (1 if part[0] < 0xE0 else 2 if part[0] < 0xF0 else 3) - len(part)
    text = (
        bytes([byte]) if part == b"" else part + bytes([byte]) if isinstance(part, bytes) else b""
    )
    if text in begun and text:
        return begun.index(text)
    if left:
        return begun.index(left)
    return text.decode(errors="ignore")


def _class_of(character: str, characters: Sequence[str]) -> int:
    """Give the class of a character; of none that of those in no word."""
    if character in characters:
        return characters.index(character)
    return len(characters) + (not (character and _in_word(character)))


def _classes(codes: npt.NDArray[np.int32], characters: Sequence[str]) -> npt.NDArray[np.int32]:
    """Give the class of every character of every piece, `[V, L]`; -1 behind the last."""
    distinct, where = np.unique(codes, return_inverse=True)
    known = [-1 if code < 0 else _class_of(chr(code), characters) for code in distinct.tolist()]
    return np.array(known, np.int32)[where].reshape(codes.shape)


def _distances(
    following: npt.NDArray[np.int32], ends: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int32]:
    """Count the least tokens from every state to one where a fill may end, `[S]`."""
    distance = np.where(ends, 0, FAR).astype(np.int32)
    while True:
        nearer = np.minimum(distance, distance[following].min(axis=1) + 1)
        if (nearer == distance).all():
            return np.minimum(distance, FAR)
        distance = nearer.astype(np.int32)
