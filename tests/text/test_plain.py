"""Plain text as files, paragraphs or lines; shorter white space."""

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blankfill.text import plain
from blankfill.text.corpus import read_documents
from blankfill.text.options import TextOptions
from blankfill.text.plain import text_records
from blankfill.text.records import Skips
from blankfill.text.whitespace import squeezed

MARKS = ["a b", "\n", "\r\n", " ", "\t", "\n\n", "\u4eba", "\u3000", "x"]
PIECES = st.lists(st.sampled_from(MARKS), max_size=30)


def cut(data, unit, size):
    blocks = [data[i : i + size] for i in range(0, len(data), size)]
    return [(record.data.decode(), record.line) for record in text_records("a", blocks, unit)]


def by_hand(text, unit):
    """The rule once more, line by line."""
    found, held, first = [], [], 0
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        is_empty = not line.strip(" \t\r\v\f")
        if held and (is_empty or unit == "line"):
            found.append(("\n".join(held), first))
            held = []
        if not is_empty:
            first = first if held else number
            held.append(line)
    if held:
        found.append(("\n".join(held), first))
    trimmed = ((text.rstrip(" \t\r\n\v\f"), line) for text, line in found)
    return [(text, line) for text, line in trimmed if text.strip("\u3000 \t\r\n")]


@settings(max_examples=200, deadline=None)
@given(PIECES, st.sampled_from(["paragraph", "line"]), st.integers(1, 9))
def test_paragraphs_and_lines_are_those_of_the_text_however_it_is_read(pieces, unit, size):
    text = "".join(pieces)
    assert cut(text.encode(), unit, size) == by_hand(text, unit)


def test_each_kind_of_document_and_where_it_begins(tmp_path):
    path = tmp_path / "a.txt.gz"
    text = "\ufeffone\ntwo  \n \n\n\u3000three\r\n\r\nfour"
    path.write_bytes(gzip.compress(text.encode()))
    found = {
        unit: [(d.text, d.where.rpartition(":")[2])
               for d in read_documents([path], TextOptions(documents=unit))]
        for unit in ("paragraph", "line")
    }  # fmt: skip
    assert found["paragraph"] == [("one\ntwo", "1"), ("\u3000three", "5"), ("four", "7")]
    assert found["line"] == [("one", "1"), ("two", "2"), ("\u3000three", "5"), ("four", "7")]
    assert [d.text for d in read_documents([path])] == [text.removeprefix("\ufeff")]


@pytest.mark.parametrize("unit", ["paragraph", "line"])
def test_a_paragraph_without_end_is_cut(monkeypatch, unit):
    monkeypatch.setattr(plain, "TEXT_BYTES", 1000)
    text = "word " * 3000
    found = [text for text, _ in cut(text.encode(), unit, 700)]
    assert "".join(found).replace(" ", "") == text.replace(" ", "")
    assert max(map(len, found)) <= 1000
    assert len(cut(b"\n" * 100_000, unit, 4096)) == 0


def test_records_of_json_and_tables_are_documents_whatever_a_text_is_cut_into(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a\\n\\nb"}\n')
    for unit in ("file", "paragraph", "line"):
        documents = read_documents([tmp_path / "a.jsonl"], TextOptions(documents=unit))
        assert [d.text for d in documents] == ["a\n\nb"]


@pytest.mark.parametrize(
    ("text", "shorter"),
    [
        ("  a \t b\u3000\u3000c  ", "a b c"),
        ("a \r\n  b\rc\u2028d", "a\nb\nc\nd"),
        ("a\n\n \n\t\nb\n", "a\n\nb"),
        ("a\n\nb\nc", "a\n\nb\nc"),
        ("\u4eba\u3002\n\u3000\u3000\u5c71", "\u4eba\u3002\n\u5c71"),
        (" \n\t", ""),
    ],
)
def test_white_space_is_squeezed_and_nothing_else(text, shorter):
    assert squeezed(text) == shorter
    assert squeezed(shorter) == shorter


@settings(deadline=None)
@given(st.text())
def test_squeezing_keeps_every_word(text):
    assert squeezed(text).split() == text.split()
    assert squeezed(squeezed(text)) == squeezed(text)


def test_squeezing_is_done_to_texts_and_answers_and_blank_ones_are_dropped(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a   b"}\n{"text": " \\n "}\n')
    skips = Skips()
    options = TextOptions(squeeze_whitespace=True)
    assert [d.text for d in read_documents([tmp_path], options, report=skips)] == ["a b"]
    assert skips.counts == {"empty": 1}
