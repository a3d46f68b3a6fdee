"""What is one character and one word to a reader."""

import unicodedata

import pytest

from blankfill.text.characters import joins, last_character, reading_words

WHOLE = [
    "a", "\u4e2d", "e\u0301", "e\u0301\u0323", "\u304b\u3099", "\u845b\U000e0100",
    "\U0001f44d\U0001f3fd", "\u2764\ufe0f", "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\U0001f1e8\U0001f1f3", "\u1100\u1161\u11a8", "\uac00\u11a8", "\r\n", "1\ufe0f\u20e3",
    "\U0001f3f4\U000e0067\U000e0062\U000e007f", "\u0915\u093f", "\u0e01\u0e34\u0e49",
]  # fmt: skip


@pytest.mark.parametrize("character", WHOLE)
def test_a_character_of_several_code_points_is_one(character):
    for before in ("", "x", "\u4e2d", "\U0001f1e8\U0001f1f3"):
        text = before + character
        assert last_character(text) == len(before)
        assert all(joins(text[:k], text[k]) for k in range(len(before) + 1, len(text)))
    assert not joins(character, "x")
    assert not joins(character, "\u4e2d")
    assert not joins(character, " ")


def test_neighbours_that_are_characters_of_their_own_are_apart():
    assert not joins("\U0001f1e8\U0001f1f3", "\U0001f1e8")  # a second flag
    assert not joins("\uac01", "\u1161")
    assert not joins("\n", "\u0301")
    assert not joins("", "\u0301")
    assert last_character("") == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The fox, (very) quick.", ["The", "fox", ",", "(", "very", ")", "quick", "."]),
        ("don't e.g. 3.5", ["don't", "e.g", ".", "3.5"]),
        ("\u661f\u671f\u4e00\uff0cAnna \u4e70", ["\u661f", "\u671f", "\u4e00", "\uff0c", "Anna",
                                                  "\u4e70"]),
        (" \n\t ", []), ("", []), ("...", ["..."]),
        ("cafe\u0301. .\u0301x", ["cafe\u0301", ".", ".\u0301x"]),
        ("\u304b\u3099\u3042", ["\u304b\u3099", "\u3042"]),
        ("\u4e2d\U0001f468\u200d\U0001f467", ["\u4e2d", "\U0001f468\u200d\U0001f467"]),
    ],
)  # fmt: skip
def test_words_are_what_a_reader_calls_so(text, words):
    assert [text[start:end] for start, end in reading_words(text)] == words


def test_words_and_white_space_are_all_of_a_text():
    text = "A \u4e2d e\u0301!\u0301 \u00a0b\u2028c\x00d\ud800 \u200d"
    covered = {k for start, end in reading_words(text) for k in range(start, end)}
    assert {text[k] for k in set(range(len(text))) - covered} <= {
        c for c in text if c.isspace() or unicodedata.category(c)[0] == "Z"
    }
