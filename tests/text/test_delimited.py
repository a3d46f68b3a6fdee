"""CSV and TSV: cells as they were written, and every row that is none is counted."""

import bz2
import csv
import io
import lzma

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blankfill.errors import DataError
from blankfill.text import delimited
from blankfill.text.corpus import read_documents
from blankfill.text.options import TextOptions
from blankfill.text.records import Skips


def read(path, skips=None, **options):
    return [d.text for d in read_documents([path], TextOptions(**options), report=skips)]


def put(folder, data, name="a.csv"):
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


CELLS = st.text(
    st.sampled_from('a,;\t"\n\r \u4eba\u3002\u2028\x0b\x85|') | st.characters(codec="utf-8"),
    min_size=1,
    max_size=12,
).filter(lambda text: not text.isspace() and "\0" not in text)


@settings(max_examples=60, deadline=None)
@given(st.lists(CELLS, min_size=1, max_size=5), st.sampled_from([",", "\t", ";"]))
def test_what_a_spreadsheet_writes_comes_back(tmp_path_factory, texts, separator):
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=separator, quoting=csv.QUOTE_ALL)
    writer.writerow(["id", "text", "note"])
    writer.writerows([i, text, "x"] for i, text in enumerate(texts))
    name = "a.tsv" if separator == "\t" else "a.csv"
    path = put(tmp_path_factory.mktemp("csv"), buffer.getvalue(), name)
    assert read(path) == texts


def test_rows_are_counted_by_what_is_wrong_with_them_and_others_stay(tmp_path):
    rows = 'id,text\n1,one\n2,a, b\n3\n\n4,"two\nlines"\n5,"b"c\n6,\n7,\xff\n8,last\n'
    path = put(tmp_path, rows.encode("latin-1"))
    skips = Skips()
    assert read(path, skips, encoding="utf-8") == ["one", "two\nlines", "last"]
    assert skips.counts == {
        "another number of cells than of names": 2, "not a row": 1, "empty": 1, "not UTF-8": 1,
    }  # fmt: skip
    assert sorted(case.line for case in skips.first) == [3, 4, 8, 9, 10]
    assert skips.report().kinds["CSV"].kept == 3
    assert sum(skips.report().kinds["CSV"].dropped.values()) == 5


def test_a_mark_that_is_not_closed_is_said(tmp_path):
    skips = Skips()
    path = put(tmp_path, 'text,n\ngood,1\n"open,2\nmore,3\n')
    assert read(path, skips) == ["good"]
    assert "not closed (what follows it is lost)" in str(skips.first[0])
    assert skips.first[0].line == 3


def test_a_cell_without_end_takes_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "CELL_BYTES", 10_000)
    before = csv.field_size_limit()
    for data in ('text\ngood\n"' + "a\n" * 50_000, "text\ngood\n" + "a" * 1_000_000):
        skips = Skips()
        assert read(put(tmp_path, data), skips) == ["good"]
        assert "what came before it was kept" in str(skips.first[0])
    assert csv.field_size_limit() == before


def test_a_large_cell_is_read(tmp_path):
    text = "word " * 200_000
    assert read(put(tmp_path, f'text\n"{text}"\n')) == [text]


def test_the_column_is_found_by_its_name(tmp_path):
    path = put(tmp_path, "\ufeff id ,body\n1,x\n")
    assert read(path, text_field="body") == ["x"]
    with pytest.raises(
        DataError, match=r"no column 'text'; its columns are id, body.*--text-field"
    ):
        read(path)
    # Beside a corpus it is a table of something else; a field that was named must be somewhere.
    put(tmp_path, "a note", "note.txt")
    skips = Skips()
    assert read(tmp_path, skips) == ["a note"]
    assert skips.counts == {"no such column": 1}
    with pytest.raises(DataError, match="no record has a text in the field 'txt'"):
        read(tmp_path, text_field="txt")


@pytest.mark.parametrize("data", ["", "\n\n", "text\n", "text", '"'])
def test_tables_without_rows_have_no_documents(tmp_path, data):
    path = put(tmp_path, data)
    if data == '"':
        with pytest.raises(DataError, match="no column"):
            read(path)
    else:
        assert read(path) == []


def test_lines_end_in_every_way(tmp_path):
    assert read(put(tmp_path, b'text\r\none\r\n"a\r\nb"\rtwo\nthree')) == [
        "one", "a\r\nb", "two", "three",
    ]  # fmt: skip


def test_an_index_without_a_name_is_a_column_too(tmp_path):
    assert read(put(tmp_path, "\ttext\n0\tone\n1\ttwo\n", "a.tsv")) == ["one", "two"]
    assert read(put(tmp_path, ",text\n0,one\n")) == ["one"]


def test_answers_are_a_column_and_empty_ones_are_none(tmp_path):
    path = put(tmp_path, "text,answer\na,1\nb,\n")
    from blankfill.text.corpus import read_records
    from blankfill.text.fields import FieldCheck
    from blankfill.text.records import parse_record

    options = TextOptions(answer_field="answer")
    records = read_records([path], options, check=FieldCheck(options.fields), skips=Skips())
    documents = [parse_record(record, options) for record in records]
    assert [(d.text, d.answer) for d in documents] == [("a", "1"), ("b", "")]


PACK = {"bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("suffix", PACK)
def test_bzip2_and_xz_are_unpacked_and_damage_is_said(tmp_path, suffix):
    rows = "text\n" + "".join(f"row {i * 7919 % 1_000_003}\n" for i in range(200_000))
    texts = rows.splitlines()[1:]
    pack = PACK[suffix]
    half = len(rows) // 2
    assert read(put(tmp_path, pack(rows[:half].encode()) + pack(rows[half:].encode()),
                    f"two.csv.{suffix}")) == texts  # fmt: skip
    assert read(put(tmp_path, pack(b""), f"none.csv.{suffix}")) == []
    whole = bytearray(pack(rows.encode()))
    cut = put(tmp_path, bytes(whole[: len(whole) * 3 // 4]), f"cut.csv.{suffix}")
    whole[len(whole) * 3 // 4] ^= 0x55
    for path, said in (
        (cut, "cut off"),
        (put(tmp_path, bytes(whole), f"flip.csv.{suffix}"), "damaged"),
        (put(tmp_path, pack(rows.encode()) + b"other bytes", f"more.csv.{suffix}"), "other bytes"),
    ):
        skips = Skips()
        found = read(path, skips)
        assert any(said in str(case) for case in skips.first)
        # A changed byte may be found only at the next checksum.
        assert len(found) > 1000
        assert found[:1000] == texts[:1000]
