import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blankfill.text import json_records
from blankfill.text.corpus import read_documents
from blankfill.text.json_records import cut_at_brackets, is_one_a_line
from blankfill.text.records import Skips

RECORDS = [
    {"text": "one, [two] {three}"},
    {"text": 'a "quote" \\ and\n a line', "n": [1, {"m": []}]},
    {"text": "\u4eba", "n": {}},
]
LINES = [json.dumps(record, ensure_ascii=False) for record in RECORDS]
LAYOUTS = {
    "one a line": "\n".join(LINES),
    "an array on one line": json.dumps(RECORDS),
    "an array, one record a line": "[" + ",\n".join(LINES) + "]",
    "an array, comma first": "[\n  " + "\n, ".join(LINES) + "\n]\n",
    "an indented array": json.dumps(RECORDS, indent=2),
    "an array over lines without indentation": json.dumps(RECORDS, indent=0),
    "two arrays": json.dumps(RECORDS[:2], indent=1) + "\n" + json.dumps(RECORDS[2:]),
    "indented objects": "\n".join(json.dumps(record, indent=4) for record in RECORDS),
    "objects on one line": "".join(LINES),
    "lines with commas": ",\n".join(LINES) + ",\n",
    "lines with record separators": "".join(f"\x1e{line}\n" for line in LINES),
}


@pytest.mark.parametrize("lead", ["", "\ufeff", " \n\n"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_json_gives_the_same_documents(tmp_path, layout, lead):
    path = tmp_path / "a.json"
    path.write_text(lead + LAYOUTS[layout], encoding="utf-8")
    documents = list(read_documents([path], strict=True))
    assert [document.text for document in documents] == [record["text"] for record in RECORDS]


values = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
        st.text(), inner), max_leaves=5,
)  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.dictionaries(st.text(), values), min_size=1, max_size=6),
    st.integers(1, 50), st.sampled_from([None, 0, 3]), st.booleans(),
)  # fmt: skip
def test_elements_do_not_depend_on_how_they_arrive(objects, size, indent, ascii_only):
    data = json.dumps(objects, indent=indent, ensure_ascii=ascii_only).encode(errors="replace")
    expected = json.loads(data)
    blocks = (data[i : i + size] for i in range(0, len(data), size))
    skips = Skips()
    found = list(cut_at_brackets("f", blocks, 1, skips))
    assert [json.loads(record.data) for record in found] == expected
    assert not skips.total
    # Each record begins in the line that it is said to begin in.
    lines = data.split(b"\n")
    for record in found:
        assert record.data.split(b"\n")[0] in lines[record.line - 1]


@pytest.mark.parametrize(
    ("lines", "texts"),
    [
        (['[{"text": "a"},', '{"text": "b},', '{"text": "c"}]'], "ac"),
        (["[", '{"text": "a"},', '{"text": "b",', '{"text": "c"},', '{"text": "d"}', "]"], "acd"),
        (["[", '{"text": "a"},', '{"text": "b"}},', '{"text": "c"}', "]"], "ac"),
        (['{"text": "a",', '{"text": "b"}', '{"text": "c"}'], "bc"),
        (['{"text": "a', '{"text": "b"}'], "b"),
        (['[{"text": "a"}, 5, null, "x", [{"text": "b"}], {"text": "c"}]'], "ac"),
    ],
)
def test_a_broken_record_costs_no_other(tmp_path, lines, texts):
    path = tmp_path / "a.json"
    path.write_text("\n".join(lines))
    skips = Skips()
    found = [document.text for document in read_documents([path], report=skips)]
    assert found == list(texts)
    assert skips.total == (4 if "null" in lines[0] else 1)


def test_an_array_that_is_cut_off_gives_what_it_has(tmp_path):
    for stop in ("", ","):
        (tmp_path / "a.json").write_text('[{"text": "a"}, {"text": "b"}' + stop)
        skips = Skips()
        found = read_documents([tmp_path / "a.json"], report=skips)
        assert [document.text for document in found] == ["a", "b"]
        assert skips.counts == {"the JSON array is cut off": 1}


def test_an_object_around_the_array_is_named(tmp_path):
    for indent in (None, 2):
        text = json.dumps({"version": 1, "data": RECORDS}, indent=indent)
        (tmp_path / "a.json").write_text(text)
        skips = Skips()
        assert list(read_documents([tmp_path / "a.json"], report=skips)) == []
        assert "if data is the array of records" in str(skips.first[0])


@pytest.mark.parametrize("kind", ["array", "objects"])
def test_a_record_too_long_for_memory_is_skipped(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(json_records, "RECORD_BYTES", 1000)
    texts = ["a", "b" * 600_000, "c"]
    records = [json.dumps({"text": text}, indent=1) for text in texts]
    joined = "[" + ",\n".join(records) + "]" if kind == "array" else "\n".join(records)
    (tmp_path / "a.json").write_text(joined)
    skips = Skips()
    found = [document.text for document in read_documents([tmp_path / "a.json"], report=skips)]
    assert found == ["a", "c"]
    assert skips.counts == {"a record of more than 0 MiB": 1}


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b'{"text": "a"}\n{"text', True),
        (b'{"text": "a', True),
        (b'{"text": "a\n{"text": "b"}', True),
        (b'{"text": "a",\n{"text": "b"}', True),
        (b'{"text": "a"} and more\n', True),
        (b'{\n"text": "a"}', False),
        (b'{"text":\n"a"}', False),
        (b'{"a": [\n{"b": 1}]}', False),
        (b'{"text": "a"}{"text": "b"', False),
        (b'{"text": "a"},\n', False),
    ],
)
def test_a_broken_first_line_leaves_the_file_one_of_lines(start, expected):
    assert is_one_a_line(start) == expected
